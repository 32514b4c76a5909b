"""PyTorch for the contract."""

import contextlib
import random
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import numpy as np

from dropout_contract.backends.base import Backend, Drawn
from dropout_contract.budget import Deviation


class Framework(Backend):
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
