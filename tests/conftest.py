import os

import jax
import numpy as np
import pytest

from shared import data
from tests.adapters import ALL, WITH_GRADIENT

# float32 + float64 is an error instead of a silent change of precision.
jax.config.update("jax_numpy_dtype_promotion", "strict")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test that asks for `framework` on all three, for `trainable` on torch and JAX."""
    for name, adapters in (("framework", ALL), ("trainable", WITH_GRADIENT)):
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, adapters, ids=lambda adapter: adapter.name)


@pytest.fixture
def full_data() -> data.Data:
    """The full data; its absence is a failure where REQUIRE_FULL_DATA says it is there."""
    if os.environ.get("REQUIRE_FULL_DATA") or data.DEBIAN.exists():
        return data.load("full")
    pytest.skip("the full data is not on this machine: apt-get install dataset-fashion-mnist")


@pytest.fixture
def small_data() -> data.Data:
    """600 training and 200 test images of the sample: two batches of 256, and one of 88."""
    sample = data.load("sample")
    return data.Data(
        sample.train_images[:600],
        sample.train_labels[:600],
        sample.test_images[:200],
        sample.test_labels[:200],
        source="small",
    )


@pytest.fixture
def small_folder(tmp_path, small_data):
    """The same as a folder of four IDX files."""
    folder = tmp_path / "small"
    data._write_folder(folder, small_data)
    return folder


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max(initial=0.0))
