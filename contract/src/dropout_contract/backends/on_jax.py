"""JAX for the contract."""

import contextlib
import math
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from dropout_contract.backends.base import Backend, Drawn


class Framework(Backend):
    """JAX."""

    name = "jax"
    source_name = "key"
    has_state = False
    bits = 64

    def __init__(self) -> None:
        import jax

        self.jax, self.xp = jax, jax.numpy

    def source(self, seed: int) -> Any:
        # jax.random.key(seed) leaves one of the two words of a key 0. Here, both are filled.
        words = np.random.SeedSequence(seed).generate_state(2)
        return self.key(words)

    def key(self, words: np.ndarray, kind: str = "threefry2x32") -> Any:
        """Make a key from its words, as uint32."""
        return self.jax.random.wrap_key_data(self.jax.numpy.asarray(words), impl=kind)

    def words(self, key: Any) -> Any:
        """Return the words of a key, which may be raw, that is these words already."""
        typed = self.jax.numpy.issubdtype(key.dtype, self.jax.dtypes.prng_key)
        return self.jax.random.key_data(key) if typed else key

    def source_of_bits(self, number: int) -> Any:
        words = np.array([number >> 32, number % 2**32], np.uint32)
        return self.key(words)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        return self.jax.numpy.asarray(np.asarray(values)).astype(dtype)

    def numpy(self, array: Any) -> np.ndarray:
        half = str(array.dtype) in ("bfloat16", "float16")
        return np.asarray(array.astype("float32") if half else array)

    def is_array(self, value: Any) -> bool:
        return isinstance(value, self.jax.Array)

    def stop_gradient(self, x: Any) -> Any:
        return self.jax.lax.stop_gradient(x)

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.jax.random.uniform(source, shape, self.jax.numpy.float32)

    def normal(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.jax.random.normal(source, shape)

    def gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        return self.numpy(self.jax.grad(lambda x: (function(x) * weights).sum())(x))

    def second_gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        first = self.jax.grad(lambda x: function(x).sum())
        return self.gradient(first, x, weights)

    def gradient_by_incoming(
        self, function: Callable[[Any], Any], x: Any, weights: Any
    ) -> np.ndarray:
        def first(incoming: Any) -> Any:
            return self.jax.grad(lambda x: (function(x) * incoming).sum())(x)

        return self.gradient(first, self.jax.numpy.ones_like(x), weights)

    def precision(self, dtype: str) -> contextlib.AbstractContextManager[Any]:
        return self.jax.enable_x64(dtype == "float64")

    @contextlib.contextmanager
    def quick_compilation(self) -> Iterator[None]:
        before = self.jax.config.read("jax_disable_most_optimizations")
        self.jax.config.update("jax_disable_most_optimizations", True)
        try:
            yield
        finally:
            self.jax.config.update("jax_disable_most_optimizations", before)
            if not before:
                self.jax.clear_caches()  # what was compiled like this must not be used later

    @contextlib.contextmanager
    def uniforms_are(self, value: float) -> Iterator[Drawn]:
        drawn = Drawn()

        def uniform(
            key: Any, shape: Any = (), dtype: Any = "float32", minval: Any = 0.0, maxval: Any = 1.0,
            **_: Any,
        ) -> Any:  # fmt: skip
            drawn.append(math.prod(shape))
            return self.jax.numpy.full(shape, minval + (maxval - minval) * value, dtype)

        with mock.patch.object(self.jax.random, "uniform", uniform):
            yield drawn
