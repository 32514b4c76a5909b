"""Weight files: safetensors with PyTorch's names and layout, whichever framework wrote them."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from shared.checks import InputError
from shared.files import open_regular, printable, write_whole

NAMES = tuple(f"linear_{layer}.{kind}" for layer in (1, 2, 3) for kind in ("weight", "bias"))


def to_bytes(weights: Mapping[str, np.ndarray], metadata: dict[str, str] | None = None) -> bytes:
    """Return the six arrays as the content of a weight file. Each weight is (out, in)."""
    contiguous = {name: np.ascontiguousarray(weights[name]) for name in NAMES}
    return safetensors.numpy.save(contiguous, metadata)


def save_weights(path: Path, weights: Mapping[str, np.ndarray]) -> None:
    """Write a weight file, which appears complete or not at all."""
    write_whole(path, to_bytes(weights))


def load_weights(path: Path) -> dict[str, np.ndarray]:
    """Read the six arrays of a weight file.

    Raises:
        InputError: there is no such file, or it does not hold the weights of this network.
    """
    if os.path.isdir(path):
        raise InputError(f"{path} is a folder, not a weight file")
    try:
        open_regular(path).close()
        with safe_open(path, "np") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
            _check_shapes(shapes)
            weights = {name: file.get_tensor(name) for name in shapes}
    except FileNotFoundError:
        raise InputError(f"no weight file at {path}") from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (OSError, SafetensorError, KeyError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {printable(error)}") from None
    try:
        layer_sizes(weights)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    return weights


LARGEST_SIDE = 1024  # of images, as for `--resize`


def _check_shapes(shapes: Mapping[str, Sequence[int]]) -> None:
    """Raise InputError if the arrays of a file are not those of this network, or too large."""
    if set(shapes) != set(NAMES):
        got = printable(", ".join(shapes))
        raise InputError(f"expected the arrays {', '.join(NAMES)}; got {got}")
    for name, shape in shapes.items():
        if len(shape) > 2:
            raise InputError(f"{name.split('.')[0]}: an array of {len(shape)} dimensions")
    if list(shapes["linear_1.weight"])[-1:] > [LARGEST_SIDE**2]:
        raise InputError(f"a network of {shapes['linear_1.weight'][-1]:,} inputs is too large")


def layer_sizes(weights: Mapping[str, np.ndarray]) -> tuple[int, int, int, int]:
    """Return (inputs, hidden_1, hidden_2, outputs) of a set of weights.

    Raises:
        InputError: an array is missing, unknown, of another dtype than float32 or float64, not
            finite, or of a shape that does not fit its neighbours.
    """
    if set(weights) != set(NAMES):
        _check_shapes({name: array.shape for name, array in weights.items()})
    dtypes = {str(array.dtype) for array in weights.values()}
    if dtypes not in ({"float32"}, {"float64"}):
        raise InputError(f"expected all float32 or all float64, got {', '.join(sorted(dtypes))}")
    sizes = [weights["linear_1.weight"].shape[-1]] if weights["linear_1.weight"].ndim == 2 else [0]
    for layer in (1, 2, 3):
        weight, bias = weights[f"linear_{layer}.weight"], weights[f"linear_{layer}.bias"]
        if bias.ndim != 1 or weight.shape != (len(bias), sizes[-1]) or weight.size == 0:
            raise InputError(
                f"linear_{layer}: a weight {weight.shape} and a bias {bias.shape} do not fit "
                f"each other and {sizes[-1]} inputs"
            )
        sizes.append(weight.shape[0])
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise InputError("the weights are not all finite")
    return sizes[0], sizes[1], sizes[2], sizes[3]


def dtype_of(weights: Mapping[str, np.ndarray]) -> Literal["float32", "float64"]:
    """Return the dtype of a set of weights that `layer_sizes` accepts."""
    return "float64" if weights["linear_1.weight"].dtype == np.float64 else "float32"
