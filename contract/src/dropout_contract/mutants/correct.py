"""A right dropout in small pieces. Each mutant overrides one of them."""

from typing import Any, ClassVar

import numpy as np

from dropout_contract.backends import backend

EVERYWHERE = ("torch", "jax", "numpy")
WITH_GRADIENT = ("torch", "jax")
WITH_STATE = ("torch", "numpy")


class Correct:
    """A right dropout, in pieces to override."""

    frameworks: ClassVar[tuple[str, ...]] = EVERYWHERE

    def __init__(self, framework: str) -> None:
        self.framework = framework
        self.backend: Any = backend(framework)
        self.xp = self.backend.xp

    def __reduce__(self) -> Any:
        return type(self), (self.framework,)  # a module, such as xp, cannot be pickled

    def __call__(self, x: Any, p: Any, *, training: bool, **sources: Any) -> Any:
        source = sources.get(self.backend.source_name)
        p = self.validate(x, p, training)
        if not training:
            return self.in_evaluation(x, p, source)
        if p == 0:
            return self.at_zero(x, source)
        if p == 1:
            return self.at_one(x, source)
        return self.in_training(x, p, self.need(source))

    def validate(self, x: Any, p: Any, training: bool) -> float:
        if isinstance(p, bool) or not isinstance(p, int | float | np.number):
            raise TypeError("p must be a number")
        if not 0 <= p <= 1:
            raise ValueError("p must be in [0, 1]")
        self.validate_dtype(x)
        return float(p)

    def validate_dtype(self, x: Any) -> None:
        if not self.backend.is_floating(x):
            raise TypeError("floating point only")

    def need(self, source: Any) -> Any:
        if source is None:
            raise ValueError(f"pass {self.backend.source_name}=")
        return source

    def in_evaluation(self, x: Any, p: float, source: Any) -> Any:
        return x

    def at_zero(self, x: Any, source: Any) -> Any:
        return x

    def at_one(self, x: Any, source: Any) -> Any:
        return self.select(self.xp.zeros_like(x, dtype=self.xp.bool), x)

    def in_training(self, x: Any, p: float, source: Any) -> Any:
        return self.apply(x, self.keep(self.uniform(source, tuple(x.shape)), p), p)

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.backend.uniform(source, shape)

    def keep(self, u: Any, p: float) -> Any:
        return u >= p

    def apply(self, x: Any, keep: Any, p: float) -> Any:
        return self.select(keep, x / self.scalar(x, 1 - p))

    def select(self, keep: Any, x: Any) -> Any:
        if self.framework == "torch" and keep.stride() != x.stride():
            keep = self.xp.empty_like(x, dtype=self.xp.bool).copy_(keep)
        return self.xp.where(keep, x, self.scalar(x, 0))

    def scalar(self, x: Any, value: float) -> Any:
        return x.dtype.type(value) if self.framework == "numpy" else value

    def number(self, mask: Any, x: Any) -> Any:
        return self.backend.cast(mask, x.dtype)
