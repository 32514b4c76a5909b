"""What each framework has to offer: the same in all of them, or to be overridden."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np


class Drawn(list[int]):
    """How many numbers each draw drew. It ends a program that draws until a number fits."""

    def append(self, number: int) -> None:
        super().append(number)
        if len(self) > 100:
            raise RuntimeError("it draws again and again, because all numbers are the same")


class Backend:
    """One framework. The methods here are the same in all three, or have to be overridden.

    Attributes:
        name: torch, jax or numpy.
        source_name: name of the argument that takes the source of randomness: a generator in
            PyTorch, a key in JAX, an rng in NumPy.
        dtypes: the floating-point dtypes.
        xp: the module with the functions that work on arrays.
    """

    name: str
    source_name: str
    dtypes: tuple[str, ...] = ("float16", "bfloat16", "float32", "float64")
    has_gradient = True
    has_state = True  # a source has a state, which each draw changes
    bits = 32  # of a seed or key that must all count
    xp: Any

    def source(self, seed: int) -> Any:
        """Make a source of randomness from a seed below 2**32."""
        raise NotImplementedError

    def source_of_bits(self, number: int) -> Any:
        """Make a source from exactly these bits."""
        return self.source(number)

    def state(self, source: Any) -> Any:
        """Return something that changes when the source is drawn from."""
        return None

    def saved(self, sources: dict[str, Any]) -> Any:
        """Return the state of the source given, or of the global generators if there is none."""
        raise NotImplementedError

    def put_back(self, sources: dict[str, Any], state: Any) -> None:
        """Put a source, or the global generators, back to a state that was saved."""
        raise NotImplementedError

    def seed_again(self, sources: dict[str, Any], seed: int) -> bool:
        """Seed a source anew, if that can be done to one that exists. Return whether it can."""
        return False

    def global_state(self) -> list[Any]:
        """Return all global random state that a user of this framework may have."""
        state: Any = np.random.get_state()
        return [random.getstate(), bytes(state[1]), state[2]]

    def states(self, sources: dict[str, Any]) -> list[Any]:
        """Return what changes when a source, or a global generator, is drawn from."""
        return [*(self.state(source) for source in sources.values()), *self.global_state()]

    def seed_globally(self, seed: int) -> None:
        """Seed all global random state."""
        random.seed(seed)
        np.random.seed(seed)

    @contextlib.contextmanager
    def global_state_restored(self) -> Iterator[None]:
        """Put global random state back at the end, and compute gradients until then."""
        python, numpy = random.getstate(), np.random.get_state()
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        """Make an array of this framework from numbers that NumPy understands."""
        raise NotImplementedError

    def numpy(self, array: Any) -> np.ndarray:
        """Read an array. The 16-bit dtypes come back as float32, which holds them exactly."""
        raise NotImplementedError

    def is_array(self, value: Any) -> bool:
        """Return whether a value is an array of this framework."""
        raise NotImplementedError

    def dtype(self, array: Any) -> str:
        """Return the name of an array's dtype."""
        return str(array.dtype).removeprefix("torch.")

    def cast(self, x: Any, dtype: Any) -> Any:
        """Convert an array to a dtype of the framework."""
        return x.astype(dtype)

    def is_floating(self, x: Any) -> bool:
        """Return whether an array has a real floating-point dtype."""
        return self.xp.issubdtype(x.dtype, self.xp.floating)

    def stop_gradient(self, x: Any) -> Any:
        """Return x, cut off from the computation of gradients."""
        return x

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        """Draw float32 numbers in [0, 1)."""
        raise NotImplementedError

    def normal(self, source: Any, shape: tuple[int, ...]) -> Any:
        """Draw float32 numbers from the standard normal distribution."""
        raise NotImplementedError

    def global_uniform(self, shape: tuple[int, ...]) -> Any:
        """Draw float32 numbers in [0, 1) from the global generator."""
        raise NotImplementedError

    def gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        """Return the gradient of sum(function(x) * weights)."""
        raise NotImplementedError

    def second_gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        """Return the gradient of sum(g * weights), where g is the gradient of sum(function(x))."""
        raise NotImplementedError

    def gradient_by_incoming(
        self, function: Callable[[Any], Any], x: Any, weights: Any
    ) -> np.ndarray:
        """Return the gradient of sum(g * weights) by the incoming gradient v of function(x).

        g is the gradient of sum(function(x) * v).
        """
        raise NotImplementedError

    def precision(self, dtype: str) -> contextlib.AbstractContextManager[Any]:
        """Enter a context in which there is such a dtype."""
        return contextlib.nullcontext()

    def quick_compilation(self) -> contextlib.AbstractContextManager[Any]:
        """Enter a context in which compiling is quick, for code where rounding plays no part."""
        return contextlib.nullcontext()

    def uniforms_are(self, value: float) -> contextlib.AbstractContextManager[Drawn]:
        """Enter a context in which every uniform number drawn, in the usual ways, is this one.

        It gives a list to which each draw appends how many numbers it drew.
        """
        raise NotImplementedError

    def strided(self, values: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
        """Return arrays that are not plain rows in memory, with the values that they hold."""
        return {}
