"""What the contract needs of a framework. Each framework is imported only when it is asked for."""

import contextlib
import functools
import importlib.util
import math
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from dropout_contract.budget import Deviation

FRAMEWORKS = ("torch", "jax", "numpy")


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


class TorchBackend(Backend):
    """PyTorch, on the CPU."""

    name = "torch"
    source_name = "generator"

    def __init__(self) -> None:
        import torch

        self.torch = self.xp = torch

    def source(self, seed: int) -> Any:
        return self.torch.Generator().manual_seed(seed)

    def state(self, source: Any) -> Any:
        return bytes(source.get_state().numpy())

    def saved(self, sources: dict[str, Any]) -> Any:
        if sources:
            return sources[self.source_name].get_state()
        return self.torch.get_rng_state(), random.getstate(), np.random.get_state()

    def put_back(self, sources: dict[str, Any], state: Any) -> None:
        if sources:
            sources[self.source_name].set_state(state)
            return
        self.torch.set_rng_state(state[0])
        random.setstate(state[1])
        np.random.set_state(state[2])

    def seed_again(self, sources: dict[str, Any], seed: int) -> bool:
        if sources:
            sources[self.source_name].manual_seed(seed)
        else:
            self.seed_globally(seed)
        return True

    def global_state(self) -> list[Any]:
        return [*super().global_state(), bytes(self.torch.get_rng_state().numpy())]

    def seed_globally(self, seed: int) -> None:
        super().seed_globally(seed)
        self.torch.manual_seed(seed)

    @contextlib.contextmanager
    def global_state_restored(self) -> Iterator[None]:
        state, torch = self.torch.get_rng_state(), self.torch
        # Inside the user's no_grad or inference_mode, too, gradients are computed here.
        with super().global_state_restored(), torch.inference_mode(False), torch.enable_grad():
            try:
                yield
            finally:
                self.torch.set_rng_state(state)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        return self.torch.tensor(np.asarray(values)).to(getattr(self.torch, dtype))

    def numpy(self, array: Any) -> np.ndarray:
        array = array.detach()
        half = array.dtype in (self.torch.bfloat16, self.torch.float16)
        return (array.float() if half else array).numpy()

    def is_array(self, value: Any) -> bool:
        return isinstance(value, self.torch.Tensor)

    def cast(self, x: Any, dtype: Any) -> Any:
        return x.to(dtype)

    def is_floating(self, x: Any) -> bool:
        return x.is_floating_point()

    def stop_gradient(self, x: Any) -> Any:
        return x.detach()

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.torch.rand(shape, generator=source, dtype=self.torch.float32)

    def normal(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.torch.randn(shape, generator=source)

    def global_uniform(self, shape: tuple[int, ...]) -> Any:
        return self.torch.rand(shape)

    def gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        x = x.detach().clone().requires_grad_()
        out = function(x)
        if not out.requires_grad:
            raise Deviation("no gradient: for PyTorch, the result does not depend on x")
        (out * weights).sum().backward()
        if x.grad is None:
            raise Deviation("no gradient arrives at x")
        return self.numpy(x.grad)

    def second_gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        x = x.detach().clone().requires_grad_()
        (first,) = self.torch.autograd.grad(function(x).sum(), x, create_graph=True)
        if not first.requires_grad:
            raise Deviation("the gradient is cut off: it cannot be differentiated again")
        (second,) = self.torch.autograd.grad((first * weights).sum(), x)
        return self.numpy(second)

    def gradient_by_incoming(
        self, function: Callable[[Any], Any], x: Any, weights: Any
    ) -> np.ndarray:
        x = x.detach().clone().requires_grad_()
        incoming = self.torch.ones_like(x, requires_grad=True)
        (first,) = self.torch.autograd.grad(function(x), x, incoming, create_graph=True)
        if not first.requires_grad:
            raise Deviation("the gradient is cut off: it cannot be differentiated again")
        (second,) = self.torch.autograd.grad((first * weights).sum(), incoming)
        return self.numpy(second)

    @contextlib.contextmanager
    def uniforms_are(self, value: float) -> Iterator[Drawn]:
        torch = self.torch
        drawn = Drawn()

        def fill(x: Any, low: float = 0.0, high: float = 1.0, **options: Any) -> Any:
            low, high = options.get("from", low), options.get("to", high)
            drawn.append(x.numel())
            return x.fill_(low + (high - low) * value)

        def rand(*shape: Any, **options: Any) -> Any:
            options.pop("generator", None)
            return fill(torch.zeros(*shape, **options))

        with (
            mock.patch.object(torch, "rand", rand),
            mock.patch.object(torch, "rand_like", lambda x, **o: fill(torch.zeros_like(x, **o))),
            mock.patch.object(torch.Tensor, "uniform_", fill),
        ):
            yield drawn

    def strided(self, values: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
        x = self.array(values)  # (2, 3, 4, 5)
        return {
            "transposed": (x.permute(3, 1, 0, 2), values.transpose(3, 1, 0, 2)),
            "channels last": (x.contiguous(memory_format=self.torch.channels_last), values),
            "every second": (x[:, :, ::2], values[:, :, ::2]),
            "the second half": (x[1:], values[1:]),
            "expanded": (x[:1].expand(6, 3, 4, 5), np.broadcast_to(values[:1], (6, 3, 4, 5))),
        }


class JaxBackend(Backend):
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


class ConstantRng(np.random.Generator):
    """A NumPy generator whose uniform numbers are all the same."""

    value = 0.0
    drawn: "Drawn"

    def spawn(self, n_children: int) -> Any:
        return [self] * n_children

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        if out is None:
            out = np.empty(() if size is None else size, dtype)
        out[...] = self.value
        self.drawn.append(out.size)
        return out

    def uniform(self, low: Any = 0.0, high: Any = 1.0, size: Any = None) -> Any:
        return low + (high - low) * self.random(size)


class NumpyBackend(Backend):
    """NumPy. It has no gradients."""

    name = "numpy"
    source_name = "rng"
    dtypes = ("float16", "float32", "float64")
    has_gradient = False
    xp = np
    constant: "tuple[float, Drawn] | None" = None

    def source(self, seed: int) -> Any:
        if self.constant is None:
            return np.random.default_rng(seed)
        rng = ConstantRng(np.random.PCG64(seed))
        rng.value, rng.drawn = self.constant
        return rng

    def state(self, source: Any) -> Any:
        return str(source.bit_generator.state)

    def saved(self, sources: dict[str, Any]) -> Any:
        if sources:
            return sources[self.source_name].bit_generator.state
        return random.getstate(), np.random.get_state()

    def put_back(self, sources: dict[str, Any], state: Any) -> None:
        if sources:
            sources[self.source_name].bit_generator.state = state
            return
        random.setstate(state[0])
        np.random.set_state(state[1])

    def array(self, values: Any, dtype: str = "float32") -> Any:
        return np.asarray(values).astype(dtype)

    def numpy(self, array: Any) -> np.ndarray:
        array = np.asarray(array)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    def is_array(self, value: Any) -> bool:
        return isinstance(value, np.ndarray | np.generic)

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return np.asarray(source.random(shape, dtype=np.float32))

    def normal(self, source: Any, shape: tuple[int, ...]) -> Any:
        return np.asarray(source.standard_normal(shape, dtype=np.float32))

    def global_uniform(self, shape: tuple[int, ...]) -> Any:
        return np.asarray(np.random.random(shape)).astype(np.float32)

    @contextlib.contextmanager
    def uniforms_are(self, value: float) -> Iterator[Drawn]:
        drawn = Drawn()
        self.constant = value, drawn
        try:
            yield drawn
        finally:
            self.constant = None

    def strided(self, values: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
        values = values.astype(np.float32)
        return {
            "transposed": (values.transpose(3, 1, 0, 2), values.transpose(3, 1, 0, 2)),
            "every second": (values[:, :, ::2], values[:, :, ::2]),
            "backwards": (values[::-1, :, :, ::-1], values[::-1, :, :, ::-1]),
            "the second half": (values[1:], values[1:]),
            "expanded": (np.broadcast_to(values[:1], (6, 3, 4, 5)),) * 2,
        }


def installed(framework: str) -> bool:
    """Return whether a framework can be imported, without importing it."""
    return importlib.util.find_spec(framework) is not None


@functools.cache
def backend(name: str) -> Backend:
    """Return the one backend of that name, importing its framework."""
    return {"torch": TorchBackend, "jax": JaxBackend, "numpy": NumpyBackend}[name]()
