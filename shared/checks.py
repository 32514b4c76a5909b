"""The checks that all three dropouts make, with one wording for all of them."""

import numbers
from typing import Any


def check_probability(p: Any, name: str = "p") -> float:
    """Return the probability `p` as a Python float.

    Args:
        p: the probability of dropping a unit, a real number in [0, 1].
        name: what to call it in the error message.

    Raises:
        TypeError: `p` is not a real number (a bool, a string, an array or a tensor, say).
        ValueError: `p` is NaN or lies outside [0, 1].
    """
    # Not an assert: `python -O` removes those.
    if isinstance(p, bool) or not isinstance(p, numbers.Real):
        raise TypeError(f"{name} must be a real number, got {type(p).__name__}")
    if not 0 <= p <= 1:  # type: ignore[operator]  # untyped, but ordered; a NaN is neither
        raise ValueError(f"{name} must be in [0, 1], got {p}")
    return float(p)


def check_floating(is_floating: bool, dtype: Any) -> None:
    """Raise TypeError unless `is_floating`: x / (1 - p) has no meaning in the integers."""
    if not is_floating:
        raise TypeError(f"dropout needs a real floating-point x, got {dtype}")


def check_source(source: Any, name: str, example: str) -> Any:
    """Return the source of randomness; raise ValueError if there is none to draw a mask from."""
    if source is None:
        raise ValueError(f"dropout in training needs randomness: pass {name}={example}")
    return source
