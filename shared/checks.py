"""The checks that all three dropouts make, and the error for bad input from the user."""

import math
import numbers
from typing import Any, Literal, TypeVar, get_args

import numpy as np

FLOATING = ("float16", "bfloat16", "float32", "float64")
LARGEST_FLOAT16 = 65504
Source = TypeVar("Source")


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


def check_array(x: Any, array: Any, name: str = "x") -> None:
    """Check that `x` is an array of the framework, and that its dtype can hold x / (1 - p).

    Args:
        x: what to check.
        array: the class of the framework's arrays.
        name: what to call it in the error message.

    Raises:
        TypeError: `x` is of another class or another dtype, or it is sparse, nested or masked.
    """
    if not isinstance(x, array):
        kind = array.__name__.split(".")[-1]
        raise TypeError(f"{name} must be of the class {kind}, got {type(x).__name__}")
    _check_dense(x, name)
    if (dtype := _dtype(x)) not in FLOATING:
        kinds = f"{', '.join(FLOATING[:3])} or {FLOATING[3]}"
        raise TypeError(f"{name} must be {kinds}, got {dtype}")


def _dtype(x: Any) -> str:
    """Return the name of the dtype, or of the class of what is no array."""
    if not hasattr(x, "dtype"):
        return type(x).__name__
    return getattr(x.dtype, "name", str(x.dtype)).removeprefix("torch.")


def _check_dense(x: Any, name: str) -> None:
    masked = hasattr(x, "mask") or hasattr(x, "get_mask")
    if masked or getattr(x, "is_sparse", False) or getattr(x, "is_nested", False):
        raise TypeError(f"{name} must be an ordinary dense array: not sparse, nested or masked")


def check_keep(x: Any, keep: Any, p: Any) -> None:
    """Check that a mask and a rate fit `x`.

    Raises:
        TypeError: `p` is not a real number, `x` does not hold floating point numbers, the mask
            does not hold booleans, or only one of the two is a tensor of PyTorch.
        ValueError: `p` is not in [0, 1], the mask has another shape than `x`, or `x` is float16
            and cannot hold 1 / (1 - p).
    """
    check_probability(p)
    _check_dense(x, "x")
    _check_dense(keep, "the mask")
    if _dtype(x) not in FLOATING or not hasattr(x, "shape"):
        raise TypeError(f"x must be an array of floating point numbers, got {_dtype(x)}")
    if _dtype(keep) != "bool" or not hasattr(keep, "shape"):
        raise TypeError(f"the mask must be an array of booleans, got {_dtype(keep)}")
    if isinstance(x.dtype, np.dtype) != isinstance(keep.dtype, np.dtype):
        raise TypeError(f"x is a {type(x).__name__}, but the mask a {type(keep).__name__}")
    if keep.shape != x.shape:
        raise ValueError(f"the mask has the shape {tuple(keep.shape)}, but x has {tuple(x.shape)}")
    if 0 < (1 - float(p)) * LARGEST_FLOAT16 < 1 and str(x.dtype) in ("float16", "torch.float16"):
        raise ValueError(f"float16 cannot hold 1 / (1 - p), got p = {p}")


def check_source(source: Source | None, kinds: tuple[Any, ...], missing: str) -> Source:
    """Return a source of randomness that is of one of the classes that a framework draws from.

    Raises:
        ValueError: there is none. The message is `missing`.
        TypeError: it is of another class.
    """
    if source is None:
        raise ValueError(missing)
    if not isinstance(source, kinds):
        names = " or ".join(dict.fromkeys(kind.__name__.split(".")[-1] for kind in kinds))
        raise TypeError(f"the source of randomness must be a {names}, got {type(source).__name__}")
    return source


def check_shape(shape: Any) -> None:
    """Raise TypeError or ValueError unless this is a sequence of sizes that an array can have."""
    if not isinstance(shape, (tuple, list)) or any(
        isinstance(n, bool) or not hasattr(n, "__index__") for n in shape
    ):
        raise TypeError(f"the shape must be a tuple of whole numbers, got {shape!r:.100}")
    if any(n < 0 for n in shape) or math.prod(map(int, shape)) >= 2**60:
        raise ValueError(f"no array has the shape {shape!r:.100}")


# The kinds of multiplicative noise of impls/<framework>/noise.py.
Kind = Literal["masks", "gaussian", "uniform", "lognormal"]


def check_noise(p: Any, kind: str, masks: int) -> None:
    """Check the arguments of multiplicative noise with variance p / (1 - p).

    Args:
        p: the rate of the dropout that has this variance.
        kind: one of `Kind`.
        masks: how many masks the kind `masks` averages.

    Raises:
        TypeError: `p` is not a real number, or `masks` is not a whole one.
        ValueError: `p` is not in [0, 1), or `kind` or `masks` is not one of the possible ones.
    """
    check_probability(p)
    if p == 1:
        raise ValueError("p must be less than 1: the variance p / (1 - p) would be infinite")
    if not isinstance(kind, str) or kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind}")
    if isinstance(masks, bool) or not isinstance(masks, numbers.Integral):
        raise TypeError(f"masks must be a whole number, got {type(masks).__name__}")
    if not 1 <= masks <= 10**6 or (masks > 1 and kind != "masks"):
        raise ValueError(
            "masks must be at least 1, at most a million, and 1 except for the kind masks, got "
            f"{masks}"
        )


def check_factors(x: Any, keep: Any, array: Any) -> None:
    """Raise TypeError or ValueError unless `keep` holds a factor for each unit of `x`."""
    check_array(x, array)
    check_array(keep, array, "keep")
    if keep.shape != x.shape:
        raise ValueError(f"keep has the shape {tuple(keep.shape)}, but x has {tuple(x.shape)}")


def check_linear(x: Any, weight: Any, bias: Any, p: Any, array: Any) -> None:
    """Check the arguments of dropout of weights.

    Raises:
        TypeError: an argument is not of the class `array` or of the dtype of `x`, or `p` is not a
            real number.
        ValueError: the shapes do not fit, or `p` is not in [0, 1].
    """
    check_probability(p)
    for name, one in {"x": x, "weight": weight, "bias": bias}.items():
        check_array(one, array, name)
        if one.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, {_dtype(x)}, got {_dtype(one)}")
    shapes = [tuple(one.shape) for one in (x, weight, bias)]
    if len(shapes[0]) != 2 or shapes[1:] != [(*shapes[2], shapes[0][1]), shapes[1][:1]]:
        raise ValueError(
            "x, weight and bias have shapes that do not fit: {}, {}, {}".format(*shapes)
        )
