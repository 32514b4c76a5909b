"""The checks that all three dropouts make, and the error for bad input from the user."""

import numbers
from typing import Any, Literal, get_args

import numpy as np

FLOATING = ("float16", "bfloat16", "float32", "float64")
LARGEST_FLOAT16 = 65504


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
    # np.timedelta64 counts as a real number in Python.
    if isinstance(p, (bool, np.timedelta64)) or not isinstance(p, numbers.Real):
        traced = "Tracer" in type(p).__name__
        static = ". Under jax.jit, pass it as a constant: static_argnames" if traced else ""
        raise TypeError(f"{name} must be a real number, got {type(p).__name__}{static}")
    if not 0 <= p <= 1:  # type: ignore[operator]  # numbers.Real has no ordering for mypy
        raise ValueError(f"{name} must be in [0, 1], got {p}")


def check_array(x: Any, array: Any) -> None:
    """Check that `x` is an array of the framework, and that its dtype can hold x / (1 - p).

    Args:
        x: what to check.
        array: the class of the framework's arrays.

    Raises:
        TypeError: `x` is of another class or another dtype, or it is sparse, nested or masked.
    """
    if not isinstance(x, array):
        name = array.__name__.split(".")[-1]
        raise TypeError(f"x must be of the class {name}, got {type(x).__name__}")
    dtype = getattr(x.dtype, "name", str(x.dtype)).removeprefix("torch.")
    if dtype not in FLOATING:
        raise TypeError(f"x must be {', '.join(FLOATING[:3])} or {FLOATING[3]}, got {dtype}")
    masked = hasattr(x, "mask") or hasattr(x, "get_mask")
    if masked or getattr(x, "is_sparse", False) or getattr(x, "is_nested", False):
        raise TypeError("x must be an ordinary dense array: not sparse, nested or masked")


def check_keep(x: Any, keep: Any, p: Any) -> None:
    """Check that a mask and a rate fit `x`.

    Raises:
        TypeError: `p` is not a real number.
        ValueError: `p` is not in [0, 1], the mask has another shape than `x`, or `x` is float16
            and cannot hold 1 / (1 - p).
    """
    check_probability(p)
    if keep.shape != x.shape:
        raise ValueError(f"the mask has the shape {tuple(keep.shape)}, but x has {tuple(x.shape)}")
    if 0 < (1 - float(p)) * LARGEST_FLOAT16 < 1 and str(x.dtype) in ("float16", "torch.float16"):
        raise ValueError(f"float16 cannot hold 1 / (1 - p), got p = {p}")


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
