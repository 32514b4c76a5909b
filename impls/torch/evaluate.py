"""Score the network on test images with dropout off, in PyTorch.

python -m impls.torch.evaluate --weights runs/torch/weights.safetensors
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from impls.torch.device import use
from impls.torch.mlp import MLP, Inputs, Logits
from shared.cli import one_line_errors, read_evaluation

Labels = Int[Tensor, " batch"]


def cross_entropy(logits: Logits, labels: Labels) -> Float[Tensor, ""]:
    """Return the mean over the batch of -log softmax(logits)[label]."""
    return F.cross_entropy(logits, labels)


def count_correct(logits: Logits, labels: Labels) -> Int[Tensor, ""]:
    """Return for how many examples the largest logit is the label's."""
    return (logits.argmax(1) == labels).sum()


def evaluate(model: nn.Module, images: Inputs, labels: Labels) -> tuple[float, float]:
    """Score all images at once with dropout off, whatever mode the model is in.

    Args:
        model: the network. Its mode is the same afterwards.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.

    Returns:
        Mean loss, and the fraction of images classified correctly.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        with torch.inference_mode():  # DIFF gradient: without this, the forward pass is recorded
            logits = model(images)
    finally:
        for module, training in modes.items():  # DIFF mode: put back what model.eval() changed
            module.training = training
    loss, correct = cross_entropy(logits, labels), count_correct(logits, labels)
    return loss.item(), correct.item() / len(labels)


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, and print loss and accuracy."""
    with one_line_errors():
        asked = read_evaluation("torch", args)
        device = use(asked.device, asked.dtype)
        model = MLP(*asked.sizes)
        model.set_weights(asked.weights)
        model.to(device)
        images, labels = (torch.asarray(a, device=device) for a in (asked.images, asked.labels))
        asked.show("torch", *evaluate(model, images, labels))


if __name__ == "__main__":
    main()
