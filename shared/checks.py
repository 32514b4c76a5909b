"""The checks that all implementations make, and the error for bad input from the user."""

import numbers
from typing import Any, Literal, get_args

import numpy as np

FLOATING = ("float16", "bfloat16", "float32", "float64")
LARGEST_FLOAT16 = 65504


class InputError(Exception):
    """A flag, a file or a device cannot be used. The commands print it and exit with status 2."""


def check_probability(p: Any, name: str = "p") -> float:
    """Return `p`, the probability of dropping a unit, as a float.

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
    return float(p)


def check_training(training: Any) -> None:
    """Raise TypeError unless the mode is a bool: a string or a method would count as True."""
    if not isinstance(training, bool):
        raise TypeError(f"training must be True or False, got {type(training).__name__}")


def check_source(source: Any, kind: Any, missing: str) -> Any:
    """Return a source of randomness that can be drawn from.

    Args:
        source: a generator, a key or an rng.
        kind: the class or classes that it may have.
        missing: what to say if there is none.

    Raises:
        ValueError: there is none.
        TypeError: it is of another class.
    """
    if source is None:
        raise ValueError(missing)
    if not isinstance(source, kind):
        raise TypeError(f"{type(source).__name__} is no source of randomness: {missing}")
    return source


def check_array(x: Any, kind: Any, name: str = "x") -> None:
    """Check that `x` is a dense array of floating point numbers.

    Args:
        x: what to check.
        kind: the class of the framework's arrays.
        name: what to call it in the error message.

    Raises:
        TypeError: `x` is of another class or another dtype, or it is sparse, nested or masked.
    """
    if not isinstance(x, kind):
        raise TypeError(f"{name} must be a {_name(kind)}, got {type(x).__name__}")
    if str(getattr(x, "layout", "torch.strided")) != "torch.strided" or (
        getattr(x, "is_nested", False) or hasattr(x, "mask") or hasattr(x, "get_mask")
    ):
        raise TypeError(f"{name} must be an ordinary dense array: not sparse, nested or masked")
    if (dtype := _dtype(x)) not in FLOATING:
        raise TypeError(f"{name} must be {', '.join(FLOATING[:3])} or float64, got {dtype}")


def _name(kind: Any) -> str:
    return kind.__name__.rpartition(".")[2]  # that of jax.Array is jaxlib._jax.Array


def _dtype(x: Any) -> str:
    return str(x.dtype).removeprefix("torch.") if not isinstance(x, np.ndarray) else x.dtype.name


def check_dropout(x: Any, p: Any, training: Any, kind: Any) -> float:
    """Return p as a float, if these are arguments for `dropout`. `kind` is the class of x.

    Raises:
        TypeError: p is not a real number, the mode is not a bool, or x is not a dense array of
            floating point numbers.
        ValueError: p is not in [0, 1].
    """
    p = check_probability(p)
    check_training(training)
    check_array(x, kind)
    return p


def check_keep(x: Any, keep: Any, p: Any, kind: Any) -> float:
    """Return p as a float, if these are arguments for `apply_keep`. `kind` is the class of x.

    Raises:
        TypeError: p is not a real number, x is not a dense array of floating point numbers, or the
            mask is not one of booleans.
        ValueError: p is not in [0, 1], the mask has another shape than x, or x is float16 and
            cannot hold 1 / (1 - p).
    """
    p = check_probability(p)
    check_array(x, kind)
    if not isinstance(keep, kind) or _dtype(keep) != "bool":
        got = _dtype(keep) if isinstance(keep, kind) else type(keep).__name__
        raise TypeError(f"the mask must be a {_name(kind)} of booleans, got {got}")
    if keep.shape != x.shape:
        raise ValueError(f"the mask has the shape {tuple(keep.shape)}, but x has {tuple(x.shape)}")
    if 0 < (1 - p) * LARGEST_FLOAT16 < 1 and _dtype(x) == "float16":
        raise ValueError(f"float16 cannot hold 1 / (1 - p), got p = {p}")
    return p


# The kinds of multiplicative noise of impls/<framework>/noise.py.
Kind = Literal["masks", "gaussian", "uniform", "lognormal"]


def check_noise(p: Any, kind: str, masks: int) -> float:
    """Return p as a float, if there is multiplicative noise with variance p / (1 - p).

    Args:
        p: the rate of the dropout that has this variance.
        kind: one of `Kind`.
        masks: how many masks the kind `masks` averages.

    Raises:
        TypeError: `p` is not a real number, or `masks` is not a whole one.
        ValueError: `p` is not in [0, 1), or `kind` or `masks` is not one of the possible ones.
    """
    p = check_probability(p)
    if p == 1:
        raise ValueError("p must be less than 1: the variance p / (1 - p) would be infinite")
    if not isinstance(kind, str) or kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {', '.join(get_args(Kind))}, got {kind}")
    if isinstance(masks, bool) or not isinstance(masks, numbers.Integral):
        raise TypeError(f"masks must be a whole number, got {type(masks).__name__}")
    if masks < 1 or (masks > 1 and kind != "masks"):
        raise ValueError(f"masks must be at least 1, and 1 except for the kind masks, got {masks}")
    return p


def check_factors(x: Any, keep: Any, kind: Any) -> None:
    """Raise TypeError or ValueError unless `keep` holds a factor for each unit of `x`."""
    check_array(x, kind)
    check_array(keep, kind, "keep")
    if keep.shape != x.shape:
        raise ValueError(f"keep has the shape {tuple(keep.shape)}, but x has {tuple(x.shape)}")


def check_linear(x: Any, weight: Any, bias: Any, p: Any, training: Any, kind: Any) -> float:
    """Return p as a float, if these are arguments for dropout of weights.

    Raises:
        TypeError: an array is not of the class `kind` or of the dtype of `x`, `p` is not a real
            number, or the mode is not a bool.
        ValueError: the shapes do not fit, or `p` is not in [0, 1].
    """
    p = check_dropout(x, p, training, kind)
    for name, one in {"weight": weight, "bias": bias}.items():
        check_array(one, kind, name)
        if one.dtype != x.dtype:
            raise TypeError(f"{name} must have the dtype of x, {_dtype(x)}, got {_dtype(one)}")
    shapes = [tuple(one.shape) for one in (x, weight, bias)]
    if len(shapes[0]) != 2 or shapes[1:] != [(*shapes[2], shapes[0][1]), shapes[1][:1]]:
        raise ValueError(
            "x, weight and bias have shapes that do not fit: {}, {}, {}".format(*shapes)
        )
    return p
