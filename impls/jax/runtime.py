"""The device and the precision of a run, and the cache of compiled code, in JAX."""

import contextlib
import ctypes
import dataclasses
import os
import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache

from shared.checks import InputError
from shared.config import Config
from shared.data import cache_folder
from shared.records import Machine, processor

PRECISION = {"highest": "highest", "high": "high", "medium": "default"}  # JAX's names
MOST_NETWORKS = 16  # whose compiled code is kept in memory
_networks: set[Config] = set()


@contextlib.contextmanager
def runtime(config: Config) -> Iterator[jax.Device]:
    """Compute on the device and in the precision of `config`, as long as the context lasts.

    Yields:
        The device.

    Raises:
        InputError: there is no such device.
    """
    device = choose_device(config.device)
    _forget_old_code(config)
    with (
        jax.default_device(device),
        jax.enable_x64(config.dtype == "float64"),  # DIFF float64: off unless it is switched on
        jax.default_matmul_precision(PRECISION[config.precision]),  # DIFF precision: in this block
    ):
        yield device


def _forget_old_code(config: Config) -> None:
    """Forget compiled code if there is that of many other networks.

    JAX keeps all that it compiles: 30 MB and 300 memory maps for each network, dropout rates
    included. Linux ends a process that needs more than 65,530 maps.
    """
    network = dataclasses.replace(config, lr=0, seed=0, epochs=1, out=Path())
    if network not in _networks and len(_networks) >= MOST_NETWORKS:
        jax.clear_caches()
        with contextlib.suppress(OSError, AttributeError):  # where the C library is not glibc
            ctypes.CDLL(None).malloc_trim(0)  # else glibc keeps what was freed
        _networks.clear()
    _networks.add(network)


def choose_device(name: str) -> jax.Device:
    """Return the device of that name, or for `auto` a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    try:
        return jax.local_devices(backend=None if name == "auto" else name)[0]
    except RuntimeError as error:
        raise InputError(f"no device {name!r}: {str(error).splitlines()[0]}") from None


def describe(name: str) -> Machine:
    """Return what a run on the device of that name computes on, for its log.

    Raises:
        InputError: there is no such device.
    """
    device = choose_device(name)
    # XLA takes all cores that the process may use.
    cores = (
        os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    )
    return {"processor": processor(), "device": device.device_kind, "threads": len(cores)}


@contextlib.contextmanager
def compiled_code_on_disk() -> Iterator[None]:
    """Keep what XLA compiles on disk, so that the next start of a command need not compile it.

    The user's own setting JAX_COMPILATION_CACHE_DIR is respected.
    """
    folder = cache_folder() / "jax"
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        yield
        return
    with contextlib.suppress(OSError):  # without the folder, JAX compiles at each start
        folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "jax_compilation_cache_dir": str(folder),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()  # so that JAX looks at the settings again
        with _remove_if_damaged(folder):
            yield
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
        compilation_cache.reset_cache()


@contextlib.contextmanager
def _remove_if_damaged(folder: Path) -> Iterator[None]:
    """Empty the cache when JAX warns that it cannot use it, instead of printing the warning.

    JAX compiles anew then, but it never replaces a damaged file.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("always", message="Error .*persistent compilation cache")
        show_others = warnings.showwarning

        def show(message: Warning | str, *details: Any, **more: Any) -> None:
            if "persistent compilation cache" not in str(message):
                show_others(message, *details, **more)
                return
            with contextlib.suppress(OSError):  # a cache that cannot be entered stays as it is
                for path in folder.iterdir():
                    shutil.rmtree(path) if path.is_dir() else path.unlink()

        warnings.showwarning = show
        yield
