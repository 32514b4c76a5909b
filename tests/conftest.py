import atexit
import gzip
import os
import shutil
import sys
import tempfile
import typing
from pathlib import Path

import jaxtyping
import numpy as np
import pytest
from beartype import BeartypeConf, FrozenDict, beartype

from shared import data

# The annotations of impls are checked at each call: classes, dtypes and shapes. An int may stand
# for a float, and Self is left out, as beartype knows it in whole classes only.
checked = beartype(
    conf=BeartypeConf(is_pep484_tower=True, hint_overrides=FrozenDict({typing.Self: typing.Any}))
)
jaxtyping.install_import_hook("impls", "tests.conftest.checked")  # before impls is imported

# The tests of this process, and the commands that they start, share one cache of compiled JAX code.
compiled = tempfile.mkdtemp(prefix="compiled-")
atexit.register(shutil.rmtree, compiled, ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = compiled
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
# JAX compiles quickly instead of well here. `.ci/run` checks what it compiles well: in lockstep,
# and by the whole contract. Compiling small programs in parts takes longer. The code is the same.
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_cpu_parallel_codegen_split_count=1"
)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with an argument `framework` for all three, with `trainable` for torch and JAX."""
    for name in {"framework", "trainable"} & set(metafunc.fixturenames):
        from tests.adapters import ALL, WITH_GRADIENT  # all frameworks at once

        adapters = ALL if name == "framework" else WITH_GRADIENT
        metafunc.parametrize(name, adapters, ids=lambda adapter: adapter.name)


# What `use` of impls/jax/device.py sets for the whole process.
SETTINGS = ("jax_enable_x64", "jax_default_matmul_precision", "jax_default_device",
            "jax_default_prng_impl", "jax_threefry_partitionable",
            "jax_random_seed_offset")  # fmt: skip


@pytest.fixture(autouse=True)
def settings_put_back():
    """Put back what `use` sets, so that no test computes as the one before it did."""
    jax, torch = sys.modules.get("jax"), sys.modules.get("torch")
    before = {name: getattr(jax.config, name) for name in SETTINGS} if jax else {}
    precision = torch.get_float32_matmul_precision() if torch else ""
    yield
    for name, value in before.items():
        if jax and getattr(jax.config, name) != value:
            jax.config.update(name, value)
    if torch and precision:
        torch.set_float32_matmul_precision(precision)


@pytest.fixture(autouse=True, scope="module")
def compiled_code_forgotten():
    """Forget what JAX compiled for a file: it needs memory maps, of which Linux has few."""
    yield
    if jax := sys.modules.get("jax"):
        jax.clear_caches()


@pytest.fixture
def unannotated(monkeypatch):
    """Do not check the annotations of impls: for what our own checks say of a wrong type."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def full_data() -> data.Data:
    """The full data, if this machine has it: the package, or the cache of an earlier download.

    If REQUIRE_FULL_DATA is set, the test fails without it, else it is skipped.
    """
    cached = [data.cache_folder() / name for name in ("tfds/fashion_mnist", "idx")]
    if os.environ.get("REQUIRE_FULL_DATA") or any(
        path.exists() for path in (data.PACKAGE_FOLDER, *cached)
    ):
        return data.load("full")
    pytest.skip(f"no full data here: apt-get install {data.PACKAGE}, or make train")


def small(**changes) -> data.Data:
    """Return 600 training and 200 test images of the sample: two batches of 256, and one of 88."""
    of = data.load("sample")
    arrays = {
        "train_images": of.train_images[:600], "train_labels": of.train_labels[:600],
        "test_images": of.test_images[:200], "test_labels": of.test_labels[:200],
    }  # fmt: skip
    return data.Data(**{**arrays, **changes}, name="small")


@pytest.fixture
def small_data() -> data.Data:
    return small()


@pytest.fixture
def small_folder(tmp_path, small_data) -> Path:
    """The small data as a folder of four IDX files."""
    return write_folder(tmp_path / "small", small_data)


def write_folder(folder: Path, of: data.Data, compress: bool = False) -> Path:
    """Write images and labels as IDX files."""
    folder.mkdir(exist_ok=True)
    arrays = (of.train_images, of.train_labels, of.test_images, of.test_labels)
    for file, array in zip(data.FILES, arrays, strict=True):
        header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
        content = header + array.astype(np.uint8).tobytes()
        path = folder / (f"{file}.gz" if compress else file)
        path.write_bytes(gzip.compress(content) if compress else content)
    return folder


def largest_difference(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(np.asarray(a, np.float64) - np.asarray(b, np.float64)).max(initial=0.0))
