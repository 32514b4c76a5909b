import atexit
import os
import shutil
import tempfile

import numpy as np
import pytest

from shared import data, idx

# The tests of this process, and the commands that they start, share one cache of compiled JAX code.
compiled = tempfile.mkdtemp(prefix="compiled-")
atexit.register(shutil.rmtree, compiled, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# Compiling the small programs of tests in parts takes longer. The code is the same.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_cpu_parallel_codegen_split_count=1"
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with an argument `framework` for all three, with `trainable` for torch and JAX."""
    for name in {"framework", "trainable"} & set(metafunc.fixturenames):
        from tests.adapters import ALL, WITH_GRADIENT  # all frameworks at once

        adapters = ALL if name == "framework" else WITH_GRADIENT
        metafunc.parametrize(name, adapters, ids=lambda adapter: adapter.name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Run in one process what shares something: what JAX compiled, and runs nobody disturbed."""
    for item in items:
        if "jax" in item.nodeid and item.path.name in ("test_contract.py", "test_mutants.py"):
            item.add_marker(pytest.mark.xdist_group("jax"))
        if "undisturbed" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.xdist_group("undisturbed"))


@pytest.fixture(scope="module")
def quick_compilation():
    """Let JAX compile quickly instead of well, for tests in which rounding plays no part."""
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()  # other tests must not use what was compiled like this


@pytest.fixture
def full_data() -> data.Data:
    """The full data. If REQUIRE_FULL_DATA is set, the test fails without it, else it is skipped."""
    if os.environ.get("REQUIRE_FULL_DATA") or data.PACKAGE_FOLDER.exists():
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
        name="small",
    )


@pytest.fixture
def small_folder(tmp_path, small_data):
    """The small data as a folder of four IDX files."""
    folder = tmp_path / "small"
    idx.write_folder(folder, small_data)
    return folder


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max(initial=0.0))
