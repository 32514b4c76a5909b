"""Where and how precisely to compute, in JAX."""

import os

import jax

from shared.checks import InputError
from shared.config import Dtype, Precision
from shared.data import cache_folder

NAMES = {"highest": "highest", "high": "high", "medium": "default"}  # of the precisions, in JAX


def use(device: str = "auto", dtype: Dtype = "float32", precision: Precision = "highest"):
    """Compute like this from now on.

    Args:
        device: auto (a GPU if there is one), cpu, cuda, or another name that JAX knows.
        dtype: of the weights.
        precision: of float32 matrix products.

    Returns:
        The device, a `jax.Device`.

    Raises:
        InputError: there is no such device.
    """
    # DIFF float64: off unless it is switched on.
    jax.config.update("jax_enable_x64", dtype == "float64")
    jax.config.update("jax_default_matmul_precision", NAMES[precision])
    # DIFF randomness: variables of the environment could change what a key gives.
    jax.config.update("jax_default_prng_impl", "threefry2x32")
    jax.config.update("jax_threefry_partitionable", True)
    jax.config.update("jax_random_seed_offset", 0)
    # DIFF loop: compiled code is kept on disk, as compiling took seconds.
    if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
        jax.config.update("jax_compilation_cache_dir", str(cache_folder() / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)
    try:  # DIFF device: JAX's default from now on
        chosen = jax.local_devices(backend=None if device == "auto" else device)[0]
    except RuntimeError as error:
        raise InputError(f"no device {device!r}: {str(error).splitlines()[0]}") from None
    jax.config.update("jax_default_device", chosen)
    return chosen
