"""The checks that all three dropouts make, and the error for bad input from the user."""

import numbers
from typing import Any, Literal, get_args


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


# The kinds of multiplicative noise of impls/<framework>/noise.py.
Kind = Literal["masks", "gaussian", "uniform", "lognormal"]


def check_noise(p: Any, kind: str, masks: int) -> None:
    """Check the arguments of multiplicative noise with variance p / (1 - p).

    Args:
        p: the rate of the dropout that has this variance.
        kind: one of `Kind`.
        masks: how many masks the kind `masks` averages.

    Raises:
        TypeError: `p` is not a real number.
        ValueError: `p` is not in [0, 1), or `kind` or `masks` is not one of the possible ones.
    """
    check_probability(p)
    if p == 1:
        raise ValueError("p must be less than 1: the variance p / (1 - p) would be infinite")
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind}")
    if masks < 1 or (masks > 1 and kind != "masks"):
        raise ValueError(f"masks must be at least 1, and 1 except for the kind masks, got {masks}")
