"""Score the network on test images with dropout off, in JAX and Flax.

python -m impls.jax.evaluate --weights runs/jax/weights.safetensors
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from impls.jax.mlp import MLP
from shared.config import InputError
from shared.runs import evaluate_main
from shared.weights import layer_sizes


def cross_entropy(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Float[Array, ""]:
    """Return the mean over the batch of -log softmax(logits)[label]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()


def count_correct(
    logits: Float[Array, "batch classes"], labels: Int[Array, " batch"]
) -> Int[Array, ""]:
    """Return for how many examples the largest logit is the label's."""
    return (logits.argmax(1) == labels).sum()


def evaluate(
    model: MLP, images: Float[Array, "n inputs"], labels: Int[Array, " n"]
) -> tuple[float, float]:
    """Score all images at once, with dropout off, whatever mode the model is in.

    Args:
        model: left in the mode that it was in.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.

    Returns:
        Mean loss, and the fraction of images classified correctly.
    """
    model = nnx.merge(*nnx.split(model))  # DIFF: another module around the same weights
    model.eval()
    loss, correct = _score(model, images, labels)
    return loss.item(), correct.item() / len(labels)


@nnx.jit
def _score(model: MLP, images: Array, labels: Array) -> tuple[Array, Array]:
    logits = model(images)
    return cross_entropy(logits, labels), count_correct(logits, labels)


def evaluate_weights(
    weights: Mapping[str, np.ndarray], images: np.ndarray, labels: np.ndarray, device: str = "auto"
) -> tuple[float, float]:
    """Do the same from arrays: weights as in a weight file, float32 images, int64 labels."""
    dtype = str(weights["linear_1.weight"].dtype)
    # DIFF: JAX has float64 only where it is asked for.
    with jax.default_device(choose_device(device)), jax.enable_x64(dtype == "float64"):
        model = MLP(*layer_sizes(weights))
        model.set_weights(weights)
        return evaluate(model, jnp.asarray(images, dtype), jnp.asarray(labels))


def choose_device(name: str) -> jax.Device:
    """Return the named device; `auto` is a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    try:
        return jax.devices(None if name == "auto" else name)[0]
    except RuntimeError as error:
        raise InputError(f"no device {name!r}: {str(error).splitlines()[0]}") from None


def main() -> None:
    """Read the command line, and print loss and accuracy."""
    evaluate_main("jax", evaluate_weights)


if __name__ == "__main__":
    main()
