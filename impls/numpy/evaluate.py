"""Score the network on test images with dropout off, in NumPy.

python -m impls.numpy.evaluate --weights runs/torch/weights.safetensors
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from numpy import ndarray

from impls.numpy.mlp import MLP, Inputs, Logits
from shared.checks import InputError
from shared.cli import one_line_errors, read_evaluation

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


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, and print loss and accuracy."""
    with one_line_errors():
        asked = read_evaluation("numpy", args)
        if asked.device not in ("auto", "cpu"):
            raise InputError(f"no device {asked.device!r}: NumPy computes on the cpu only")
        model = MLP(*asked.sizes)
        model.set_weights(asked.weights)
        with np.errstate(over="ignore", invalid="ignore"):  # such weights give inf or NaN
            asked.show("numpy", *evaluate(model, asked.images, asked.labels))


if __name__ == "__main__":
    main()
