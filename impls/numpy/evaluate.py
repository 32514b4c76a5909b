"""Score the network on test images with dropout off, in NumPy.

python -m impls.numpy.evaluate --weights runs/torch/weights.safetensors
"""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from impls.numpy.mlp import MLP, Inputs, Logits
from shared.checks import InputError
from shared.cli import evaluate_main
from shared.weights import dtype_of, layer_sizes

Labels = Int[ndarray, " batch"]


def cross_entropy(logits: Logits, labels: Labels) -> np.floating:
    """Return the mean over the batch of -log softmax(logits)[label]."""
    # Subtracting the largest logit does not change the softmax, and exp cannot overflow any more.
    logits = logits - logits.max(1, keepdims=True)
    log_softmax = logits - np.log(np.exp(logits).sum(1, keepdims=True))
    return -log_softmax[np.arange(len(labels)), labels].mean()


def count_correct(logits: Logits, labels: Labels) -> np.integer:
    """Return for how many examples the largest logit is the label's."""
    return (logits.argmax(1) == labels).sum()


def evaluate(model: MLP, images: Inputs, labels: Labels) -> tuple[float, float]:
    """Score all images at once with dropout off.

    Args:
        model: the network.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.

    Returns:
        Mean loss, and the fraction of images classified correctly.
    """
    logits = model(images)
    loss, correct = cross_entropy(logits, labels), count_correct(logits, labels)
    return loss.item(), correct.item() / len(labels)


def evaluate_weights(
    weights: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray, device: str = "auto"
) -> tuple[float, float]:
    """Score weights named as in a weight file, on float32 images and int64 labels."""
    if device not in ("auto", "cpu"):
        raise InputError(f"no device {device!r}: NumPy computes on the cpu only")
    dtype = dtype_of(weights)
    model = MLP(*layer_sizes(weights))
    model.set_weights(weights)
    inputs = images.astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):  # such weights give a loss of inf or NaN
        return evaluate(model, inputs, labels)


def main() -> None:
    """Read the command line, and print loss and accuracy."""
    evaluate_main("numpy", evaluate_weights)


if __name__ == "__main__":
    main()
