"""Weight files: safetensors with PyTorch's names and layout, whichever framework wrote them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from shared.checks import InputError

Weights = Mapping[str, np.ndarray]
Sizes = tuple[int, int, int, int]  # inputs, hidden_1, hidden_2, outputs


def shapes_of(sizes: Sizes) -> dict[str, tuple[int, ...]]:
    """Return the shape of each array, `linear_1.weight` (out, in) to `linear_3.bias` (out,)."""
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in (1, 2, 3):
        shapes[f"linear_{layer}.weight"] = (sizes[layer], sizes[layer - 1])
        shapes[f"linear_{layer}.bias"] = (sizes[layer],)
    return shapes


def check_weights(weights: Weights, sizes: Sizes) -> None:
    """Check that these are the weights of a network of these sizes.

    Raises:
        ValueError: an array is missing, unknown, or of another shape.
        TypeError: the dtypes are not all float32 or all float64.
    """
    shapes = shapes_of(sizes)
    if set(weights) != set(shapes):
        raise ValueError(f"expected the arrays {', '.join(shapes)}; got {', '.join(weights)}")
    for name, shape in shapes.items():
        if weights[name].shape != shape:
            raise ValueError(f"{name} must have the shape {shape}, got {weights[name].shape}")
    dtypes = {str(array.dtype) for array in weights.values()}
    if dtypes not in ({"float32"}, {"float64"}):
        raise TypeError(f"expected all float32 or all float64, got {', '.join(sorted(dtypes))}")


def to_bytes(weights: Weights, metadata: dict[str, str] | None = None) -> bytes:
    """Return the six arrays as the content of a weight file."""
    contiguous = {name: np.ascontiguousarray(weights[name]) for name in sorted(weights)}
    return safetensors.numpy.save(contiguous, metadata)


def load_weights(path: Path) -> dict[str, np.ndarray]:
    """Read the six arrays of a weight file.

    Raises:
        InputError: there is no such file, or it does not hold finite weights of this network.
    """
    return read_file(path)[0]


def read_file(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Read the six arrays of a weight file, and its metadata.

    Raises:
        InputError: there is no such file, or it does not hold finite weights of this network.
    """
    try:
        with safe_open(path, "np") as file:
            names, metadata = file.keys(), file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in names if name in NAMES}
    except FileNotFoundError:
        raise InputError(f"no weight file at {path}") from None
    # What safetensors raises for a folder, a file that is none, and for dtypes unknown to NumPy.
    except (OSError, SafetensorError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not a readable safetensors file: {error}") from None
    try:
        check_weights(dict.fromkeys(names, np.empty(0)) | weights, layer_sizes(weights))
        if 0 in layer_sizes(weights):
            raise ValueError("a layer is empty")
    except (ValueError, TypeError, KeyError, IndexError) as error:
        raise InputError(f"{path} does not hold the weights of this network: {error}") from None
    if not all(np.isfinite(array).all() for array in weights.values()):
        raise InputError(f"{path}: the weights are not all finite")
    return weights, metadata


NAMES = tuple(shapes_of((0, 0, 0, 0)))


def layer_sizes(weights: Weights) -> Sizes:
    """Return (inputs, hidden_1, hidden_2, outputs) of a set of weights."""
    hidden_1, inputs = weights["linear_1.weight"].shape
    outputs, hidden_2 = weights["linear_3.weight"].shape
    return inputs, hidden_1, hidden_2, outputs


def dtype_of(weights: Weights) -> Literal["float32", "float64"]:
    """Return the dtype of a set of weights."""
    return "float64" if weights["linear_1.weight"].dtype == np.float64 else "float32"
