"""Score the network on test images with dropout off, in JAX and Flax.

python -m impls.jax.evaluate --weights runs/jax/weights.safetensors
"""

from collections.abc import Sequence

import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from impls.jax.device import use
from impls.jax.mlp import MLP, Inputs, Logits
from shared.cli import one_line_errors, read_evaluation

Labels = Int[Array, " batch"]


def cross_entropy(logits: Logits, labels: Labels) -> Float[Array, ""]:
    """Return the mean over the batch of -log softmax(logits)[label]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def count_correct(logits: Logits, labels: Labels) -> Int[Array, ""]:
    """Return for how many examples the largest logit is the label's."""
    return (logits.argmax(1) == labels).sum()


def evaluate(model: nnx.Module, images: Inputs, labels: Labels) -> tuple[float, float]:
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


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, and print loss and accuracy."""
    with one_line_errors():
        asked = read_evaluation("jax", args)
        device = use(asked.device, asked.dtype)
        model = MLP(*asked.sizes)
        model.set_weights(asked.weights)
        images, labels = (jnp.asarray(a, device=device) for a in (asked.images, asked.labels))
        asked.show("jax", *evaluate(model, images, labels))


if __name__ == "__main__":
    main()
