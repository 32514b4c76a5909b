"""Score the network on test images with dropout off, in NumPy.

python -m impls.numpy.evaluate --weights runs/torch/weights.safetensors
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray

from impls.numpy.mlp import MLP
from shared.config import InputError
from shared.runs import evaluate_main
from shared.weights import layer_sizes


def cross_entropy(
    logits: Float[ndarray, "batch classes"], labels: Int[ndarray, " batch"]
) -> np.floating:
    """Return the mean over the batch of -log softmax(logits)[label]."""
    # log softmax does not change when all logits move together: from 0 down, exp is safe.
    logits = logits - logits.max(1, keepdims=True)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_softmax[np.arange(len(labels)), labels].mean()


def count_correct(
    logits: Float[ndarray, "batch classes"], labels: Int[ndarray, " batch"]
) -> np.integer:
    """Return for how many examples the largest logit is the label's."""
    return (logits.argmax(1) == labels).sum()


def evaluate(
    model: MLP, images: Float[ndarray, "n inputs"], labels: Int[ndarray, " n"]
) -> tuple[float, float]:
    """Score all images at once, with dropout off.

    Args:
        model: the network.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.

    Returns:
        Mean loss, and the fraction of images classified correctly.
    """
    logits = model(images)
    correct = count_correct(logits, labels)
    return cross_entropy(logits, labels).item(), correct.item() / len(labels)


def evaluate_weights(
    weights: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray, device: str = "auto"
) -> tuple[float, float]:
    """Do the same from arrays: weights as in a weight file, float32 images, int64 labels."""
    choose_device(device)
    dtype = weights["linear_1.weight"].dtype
    model = MLP(*layer_sizes(weights))
    model.set_weights(weights)
    return evaluate(model, images.astype(dtype), labels)


def choose_device(name: str) -> None:
    """Accept `auto` and `cpu`.

    Raises:
        InputError: there is no such device.
    """
    if name not in ("auto", "cpu"):
        raise InputError(f"no device {name!r}: NumPy has only the cpu")


def main() -> None:
    """Read the command line, and print loss and accuracy."""
    evaluate_main("numpy", evaluate_weights)


if __name__ == "__main__":
    main()
