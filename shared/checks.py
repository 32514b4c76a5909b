"""The checks that all three dropouts make, and the error for bad input from the user."""

import numbers
from typing import Any


class InputError(ValueError):
    """A flag, a file or a device cannot be used. The commands print it and exit with status 2."""


def check_probability(p: Any, name: str = "p") -> None:
    """Check that `p`, the probability of dropping a unit, is a real number in [0, 1].

    Args:
        p: the value to check.
        name: what to call it in the error message.

    Raises:
        TypeError: `p` is not a real number (it is a bool, a string or an array, for example).
        ValueError: `p` is NaN or lies outside [0, 1].
    """
    # Not an assert: `python -O` removes those.
    if isinstance(p, bool) or not isinstance(p, numbers.Real):
        traced = "Tracer" in type(p).__name__
        static = ". Under jax.jit, pass it as a constant: static_argnames" if traced else ""
        raise TypeError(f"{name} must be a real number, got {type(p).__name__}{static}")
    if not 0 <= p <= 1:  # type: ignore[operator]  # numbers.Real has no ordering for mypy
        raise ValueError(f"{name} must be in [0, 1], got {p}")


def check_floating(is_floating: bool, dtype: Any) -> None:
    """Raise TypeError unless `is_floating`: integers cannot hold x / (1 - p)."""
    if not is_floating:
        raise TypeError(f"dropout needs a real floating-point x, got {dtype}")
