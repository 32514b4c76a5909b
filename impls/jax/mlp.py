"""The multilayer perceptron of the article, in JAX and Flax.

The network is told in impls/torch/mlp.py. What differs here: a key is passed at every call and
split by hand, and Flax keeps a weight as its transpose, the kernel (in, out).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from impls.jax.dropout import Dropout
from shared.randomness import initial_weights


class MLP(nnx.Module):
    """784-256-256-10 by default, computing in the dtype of its weights."""

    def __init__(
        self,
        inputs: int = 784,
        hidden1: int = 256,
        hidden2: int = 256,
        outputs: int = 10,
        p1: float = 0.2,
        p2: float = 0.5,
        *,
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        """Make the network.

        Args:
            inputs, hidden1, hidden2, outputs: sizes of the layers.
            p1, p2: probabilities of dropping a unit of the first and second hidden layer.
            seed: of the initial weights, as in shared/randomness.py.
            dtype: of the weights, float32 or float64.
        """
        # DIFF: Flax draws weights from keys of its own; zeros are cheap, and replaced below.
        made: dict[str, Any] = {"kernel_init": nnx.initializers.zeros, "rngs": nnx.Rngs(0)}
        self.linear_1 = nnx.Linear(inputs, hidden1, **made)
        self.linear_2 = nnx.Linear(hidden1, hidden2, **made)
        self.linear_3 = nnx.Linear(hidden2, outputs, **made)
        self.dropout_1 = Dropout(p1)
        self.dropout_2 = Dropout(p2)
        self.set_weights(initial_weights(inputs, hidden1, hidden2, outputs, seed=seed, dtype=dtype))

    def __call__(
        self,
        x: Float[Array, "batch inputs"],
        *,
        key: Array | None = None,
        keep: tuple[Bool[Array, "batch hidden1"], Bool[Array, "batch hidden2"]] | None = None,
    ) -> Float[Array, "batch outputs"]:
        """Compute the logits.

        Args:
            x: inputs, in the dtype of the weights.
            key: in training, the source of both masks, split into one key for each.
            keep: in training, the two masks ready-made, instead of a key.

        Returns:
            The logits, one row per example.
        """
        keep_1, keep_2 = keep or (None, None)
        # DIFF: a key is a value; used for both layers, it would give both the same mask.
        key_1, key_2 = (None, None) if key is None else jax.random.split(key)
        h1 = nnx.relu(self.linear_1(x))
        h1 = self.dropout_1(h1, key=key_1, keep=keep_1)
        h2 = nnx.relu(self.linear_2(h1))
        h2 = self.dropout_2(h2, key=key_2, keep=keep_2)
        return self.linear_3(h2)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take the weights, and with them the dtype, from arrays named as in a weight file."""
        if jnp.asarray(bias := weights["linear_1.bias"]).dtype != bias.dtype:
            # DIFF: without this switch JAX makes float32 of float64, and says nothing.
            raise ValueError("float64 in JAX needs `with jax.enable_x64(True):` around it")
        for name, layer in self._layers().items():
            layer.kernel.set_value(jnp.asarray(weights[f"{name}.weight"].T))  # DIFF: (in, out)
            layer.bias.set_value(jnp.asarray(weights[f"{name}.bias"]))

    def get_weights(self) -> dict[str, np.ndarray]:
        """Return copies of the weights, `linear_1.weight` (out, in) to `linear_3.bias` (out,)."""
        weights = {}
        for name, layer in self._layers().items():
            weights[f"{name}.weight"] = np.array(layer.kernel[...].T, order="C")
            weights[f"{name}.bias"] = np.array(layer.bias[...])
        return weights

    def _layers(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("linear_1", "linear_2", "linear_3")}
