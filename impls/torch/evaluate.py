"""Score the network on test images with dropout off, in PyTorch.

python -m impls.torch.evaluate --weights runs/torch/weights.safetensors
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from impls.torch.mlp import MLP, Inputs, Logits
from impls.torch.runtime import runtime
from shared.cli import evaluate_main
from shared.config import Config
from shared.weights import dtype_of, layer_sizes

Labels = Int[Tensor, " batch"]


def cross_entropy(logits: Logits, labels: Labels) -> Float[Tensor, ""]:
    """Return the mean over the batch of -log softmax(logits)[label]."""
    return F.cross_entropy(logits, labels)


def count_correct(logits: Logits, labels: Labels) -> Int[Tensor, ""]:
    """Return for how many examples the largest logit is the label's."""
    return (logits.argmax(1) == labels).sum()


def evaluate(model: MLP, images: Inputs, labels: Labels) -> tuple[float, float]:
    """Score all images at once with dropout off, whatever mode the model is in.

    Args:
        model: the network. Its mode is the same afterwards.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.

    Returns:
        Mean loss, and the fraction of images classified correctly.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.inference_mode():  # DIFF gradient: without this, the forward pass is recorded
        logits = model(images)
    for module, training in modes.items():  # DIFF mode: put back what model.eval() changed
        module.training = training
    loss, correct = cross_entropy(logits, labels), count_correct(logits, labels)
    return loss.item(), correct.item() / len(labels)


def evaluate_weights(
    weights: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray, device: str = "auto"
) -> tuple[float, float]:
    """Score weights named as in a weight file, on float32 images and int64 labels."""
    dtype = dtype_of(weights)
    with runtime(Config(device=device, dtype=dtype)) as chosen:
        model = MLP(*layer_sizes(weights))
        model.set_weights(weights)
        model.to(chosen)
        inputs = torch.tensor(images.astype(dtype), device=chosen)
        return evaluate(model, inputs, torch.tensor(labels, device=chosen))


def main() -> None:
    """Read the command line, and print loss and accuracy."""
    evaluate_main("torch", evaluate_weights)


if __name__ == "__main__":
    main()
