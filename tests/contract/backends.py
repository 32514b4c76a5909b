"""What the contract needs of a framework; each is imported only when it is asked for."""

import contextlib
import functools
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

BACKENDS = ("torch", "jax", "numpy")


class Backend:
    """The part that is the same everywhere."""

    name: str
    dtypes = ("float16", "bfloat16", "float32", "float64")
    has_gradient = True
    source_name: str  # of the argument that takes the source of randomness

    def source(self, seed: int) -> Any:
        """Make a source of randomness."""
        raise NotImplementedError

    def state(self, source: Any) -> Any:
        """Return something that changes when the source is drawn from."""
        return None

    def global_state(self) -> list[Any]:
        """Return all global random state that this framework's user may have."""
        _, keys, position, *_ = np.random.get_state()
        return [random.getstate(), bytes(keys), position]

    def seed_globally(self, seed: int) -> None:
        """Seed all global random state."""
        random.seed(seed)
        np.random.seed(seed)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        """Make an array of this framework."""
        raise NotImplementedError

    def numpy(self, array: Any) -> np.ndarray:
        """Read an array; the half precisions come as float32, which holds them exactly."""
        raise NotImplementedError

    def dtype(self, array: Any) -> str:
        """Return the name of an array's dtype."""
        return str(array.dtype).removeprefix("torch.")

    def gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        """Return the gradient of sum(function(x) * weights)."""
        raise NotImplementedError

    def precision(self, dtype: str) -> contextlib.AbstractContextManager[Any]:
        """Enter a context in which there is such a dtype."""
        return contextlib.nullcontext()

    def uniforms_are(self, value: float) -> contextlib.AbstractContextManager[Any]:
        """Enter a context in which every uniform drawn, by the usual ways, is this number."""
        raise NotImplementedError

    def strided(self, values: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
        """Return arrays that are not plain rows in memory, with the values that they hold."""
        return {}


class TorchBackend(Backend):
    name = "torch"
    source_name = "generator"

    def __init__(self) -> None:
        import torch

        self.torch = torch

    def source(self, seed: int) -> Any:
        return self.torch.Generator().manual_seed(seed)

    def state(self, source: Any) -> Any:
        return bytes(source.get_state().numpy())

    def global_state(self) -> list[Any]:
        return [*super().global_state(), bytes(self.torch.get_rng_state().numpy())]

    def seed_globally(self, seed: int) -> None:
        super().seed_globally(seed)
        self.torch.manual_seed(seed)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        values = np.asarray(values)
        return self.torch.tensor(values).to(getattr(self.torch, dtype))

    def numpy(self, array: Any) -> np.ndarray:
        array = array.detach()
        half = array.dtype in (self.torch.bfloat16, self.torch.float16)
        return (array.float() if half else array).numpy()

    def gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        x = x.detach().clone().requires_grad_()
        out = function(x)
        assert out.requires_grad, "the result is cut off from the graph: no gradient at all"
        (out * weights).sum().backward()
        assert x.grad is not None, "no gradient arrives at x"
        return self.numpy(x.grad)

    @contextlib.contextmanager
    def uniforms_are(self, value: float) -> Iterator[None]:
        import pytest

        torch = self.torch

        def rand(*shape: Any, **options: Any) -> Any:
            options.pop("generator", None)
            return torch.zeros(*shape, **options) + value

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(torch, "rand", rand)
            patch.setattr(torch, "rand_like", lambda x, **o: torch.zeros_like(x) + value)
            patch.setattr(torch.Tensor, "uniform_", lambda x, *a, **o: x.fill_(value))
            yield

    def strided(self, values: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
        x = self.array(values)  # (2, 3, 4, 5)
        return {
            "transposed": (x.permute(3, 1, 0, 2), values.transpose(3, 1, 0, 2)),
            "channels last": (x.contiguous(memory_format=self.torch.channels_last), values),
            "every second": (x[:, :, ::2], values[:, :, ::2]),
            "expanded": (x[:1].expand(6, 3, 4, 5), np.broadcast_to(values[:1], (6, 3, 4, 5))),
        }


class JaxBackend(Backend):
    name = "jax"
    source_name = "key"

    def __init__(self) -> None:
        import jax

        self.jax = jax

    def source(self, seed: int) -> Any:
        return self.jax.random.key(seed)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        return self.jax.numpy.asarray(np.asarray(values)).astype(dtype)

    def numpy(self, array: Any) -> np.ndarray:
        half = str(array.dtype) in ("bfloat16", "float16")
        return np.asarray(array.astype("float32") if half else array)

    def gradient(self, function: Callable[[Any], Any], x: Any, weights: Any) -> np.ndarray:
        return self.numpy(self.jax.grad(lambda x: (function(x) * weights).sum())(x))

    def precision(self, dtype: str) -> contextlib.AbstractContextManager[Any]:
        return self.jax.enable_x64(dtype == "float64")

    @contextlib.contextmanager
    def uniforms_are(self, value: float) -> Iterator[None]:
        import pytest

        def uniform(key: Any, shape: Any = (), dtype: Any = "float32", *_: Any, **__: Any) -> Any:
            return self.jax.numpy.full(shape, value, dtype)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(self.jax.random, "uniform", uniform)
            yield


class ConstantRng(np.random.Generator):
    """A NumPy generator whose uniforms are all one number."""

    value = 0.0

    def random(self, size: Any = None, dtype: Any = np.float64, out: Any = None) -> Any:
        return np.full(() if size is None else size, self.value, dtype)

    def uniform(self, low: float = 0.0, high: float = 1.0, size: Any = None) -> Any:
        return low + (high - low) * self.random(size)


class NumpyBackend(Backend):
    name = "numpy"
    source_name = "rng"
    dtypes = ("float16", "float32", "float64")
    has_gradient = False
    constant: float | None = None

    def source(self, seed: int) -> Any:
        if self.constant is None:
            return np.random.default_rng(seed)
        rng = ConstantRng(np.random.PCG64(seed))
        rng.value = self.constant
        return rng

    def state(self, source: Any) -> Any:
        return str(source.bit_generator.state)

    def array(self, values: Any, dtype: str = "float32") -> Any:
        return np.asarray(values).astype(dtype)

    def numpy(self, array: Any) -> np.ndarray:
        array = np.asarray(array)
        return array.astype(np.float32) if array.dtype == np.float16 else array

    @contextlib.contextmanager
    def uniforms_are(self, value: float) -> Iterator[None]:
        self.constant = value
        try:
            yield
        finally:
            self.constant = None

    def strided(self, values: np.ndarray) -> dict[str, tuple[Any, np.ndarray]]:
        values = values.astype(np.float32)
        return {
            "transposed": (values.transpose(3, 1, 0, 2), values.transpose(3, 1, 0, 2)),
            "every second": (values[:, :, ::2], values[:, :, ::2]),
            "expanded": (np.broadcast_to(values[:1], (6, 3, 4, 5)),) * 2,
        }


@functools.cache
def backend(name: str) -> Backend:
    """Return the one backend of that name, importing its framework."""
    return {"torch": TorchBackend, "jax": JaxBackend, "numpy": NumpyBackend}[name]()
