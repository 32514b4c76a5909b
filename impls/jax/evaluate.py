"""Score the network on test images with dropout off, in JAX and Flax.

python -m impls.jax.evaluate --weights runs/jax/weights.safetensors
"""

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from impls.jax.mlp import MLP, Inputs, Logits
from impls.jax.runtime import runtime
from shared.cli import evaluate_main
from shared.config import Config
from shared.weights import dtype_of, layer_sizes

Labels = Int[Array, " batch"]


def cross_entropy(logits: Logits, labels: Labels) -> Float[Array, ""]:
    """Return the mean over the batch of -log softmax(logits)[label]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def count_correct(logits: Logits, labels: Labels) -> Int[Array, ""]:
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
    model = nnx.merge(*nnx.split(model))  # DIFF mode: only a copy is switched
    model.eval()
    logits = model(images)
    loss, correct = cross_entropy(logits, labels), count_correct(logits, labels)
    return loss.item(), correct.item() / len(labels)


def evaluate_weights(
    weights: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray, device: str = "auto"
) -> tuple[float, float]:
    """Score weights named as in a weight file, on float32 images and int64 labels."""
    dtype = dtype_of(weights)
    with runtime(Config(device=device, dtype=dtype)):
        model = MLP(*layer_sizes(weights))
        model.set_weights(weights)
        inputs = jnp.asarray(images.astype(dtype))
        return evaluate(model, inputs, jnp.asarray(labels))


def main() -> None:
    """Read the command line, and print loss and accuracy."""
    evaluate_main("jax", evaluate_weights)


if __name__ == "__main__":
    main()
