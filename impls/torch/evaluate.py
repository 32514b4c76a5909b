"""Score the network on test images with dropout off, in PyTorch.

python -m impls.torch.evaluate --weights runs/torch/weights.safetensors
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from impls.torch.mlp import MLP
from shared.config import InputError
from shared.runs import evaluate_main
from shared.weights import layer_sizes


def cross_entropy(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> Float[Tensor, ""]:
    """Return the mean over the batch of -log softmax(logits)[label]."""
    return F.cross_entropy(logits, labels)


def count_correct(
    logits: Float[Tensor, "batch classes"], labels: Int[Tensor, " batch"]
) -> Int[Tensor, ""]:
    """Return for how many examples the largest logit is the label's."""
    return (logits.argmax(1) == labels).sum()


def evaluate(
    model: MLP, images: Float[Tensor, "n inputs"], labels: Int[Tensor, " n"]
) -> tuple[float, float]:
    """Score all images at once, with dropout off, whatever mode the model is in.

    Args:
        model: left in the mode that it was in.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.

    Returns:
        Mean loss, and the fraction of images classified correctly.
    """
    modes = {module: module.training for module in model.modules()}
    model.eval()
    with torch.inference_mode():
        logits = model(images)
    for module, training in modes.items():
        module.training = training
    correct = count_correct(logits, labels)
    return cross_entropy(logits, labels).item(), correct.item() / len(labels)


def evaluate_weights(
    weights: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray, device: str = "auto"
) -> tuple[float, float]:
    """Do the same from arrays: weights as in a weight file, float32 images, int64 labels."""
    chosen = choose_device(device)
    model = MLP(*layer_sizes(weights))
    model.set_weights(weights)
    model.to(chosen)
    dtype = model.linear_1.weight.dtype
    inputs = torch.tensor(images, dtype=dtype, device=chosen)
    return evaluate(model, inputs, torch.tensor(labels, device=chosen))


def choose_device(name: str) -> torch.device:
    """Return the named device; `auto` is a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # each kind of device has its own way to be missing
        raise InputError(f"no device {name!r}: {str(error).splitlines()[0]}") from None
    return device


def main() -> None:
    """Read the command line, and print loss and accuracy."""
    evaluate_main("torch", evaluate_weights)


if __name__ == "__main__":
    main()
