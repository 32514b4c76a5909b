"""The multilayer perceptron of the article (docs/article.md), in JAX and Flax.

The network is explained in impls/torch/mlp.py. The difference: a key is passed to every call and
split into one for each dropout, and Flax stores a weight as its transpose, the kernel (in, out).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from impls.jax.dropout import Dropout
from shared.config import Config
from shared.randomness import initial_weights
from shared.weights import check_weights

Inputs = Float[Array, "batch inputs"]
Logits = Float[Array, "batch outputs"]
Masks = tuple[Bool[Array, "batch hidden_1"], Bool[Array, "batch hidden_2"]]


class MLP(nnx.Module):
    """784-256-256-10 by default, computing in the dtype of its weights."""

    def __init__(
        self,
        inputs: int = 784,
        hidden_1: int = 256,
        hidden_2: int = 256,
        outputs: int = 10,
        p1: float = 0.2,
        p2: float = 0.5,
        *,
        noise: Callable[[float], nnx.Module] = Dropout,
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        """Make the network.

        Args:
            inputs, hidden_1, hidden_2, outputs: sizes of the layers.
            p1, p2: probabilities of dropping a unit of the first and second hidden layer.
            noise: makes the two dropout layers from their rates: `Dropout`, or `Noise` of noise.py.
            seed: seed of the initial weights, see shared/randomness.py.
            dtype: dtype of the weights, float32 or float64.
        """
        self.sizes = (inputs, hidden_1, hidden_2, outputs)
        # DIFF initial weights: nnx.Linear always makes some. Zeros are quick, and replaced below.
        zeros = nnx.initializers.zeros
        linear = functools.partial(nnx.Linear, kernel_init=zeros, rngs=nnx.Rngs(0))
        self.linear_1 = linear(inputs, hidden_1)
        self.linear_2 = linear(hidden_1, hidden_2)
        self.linear_3 = linear(hidden_2, outputs)
        self.dropout_1 = noise(p1)
        self.dropout_2 = noise(p2)
        self.set_weights(initial_weights(*self.sizes, seed=seed, dtype=dtype))

    @classmethod
    def from_config(cls, config: Config, inputs: int) -> Self:
        """Make the network of a run. `inputs` is the number of pixels of an image."""
        sizes = (inputs, config.hidden_1, config.hidden_2, 10)  # ten classes
        return cls(*sizes, config.p1, config.p2, seed=config.seed, dtype=config.dtype)

    def __call__(self, x: Inputs, *, key: Array | None = None, keep: Masks | None = None) -> Logits:
        """Compute the logits, one row per example.

        Args:
            x: inputs, in the dtype of the weights.
            key: in training, the source of both masks.
            keep: in training, two masks to use instead of drawing them.
        """
        keep_1, keep_2 = keep or (None, None)
        # DIFF randomness: a key for each layer. With one key, both would use the same numbers.
        key_1, key_2 = (None, None) if key is None else jax.random.split(key)
        h1 = nnx.relu(self.linear_1(x))
        h1 = self.dropout_1(h1, key=key_1, keep=keep_1)
        h2 = nnx.relu(self.linear_2(h1))
        h2 = self.dropout_2(h2, key=key_2, keep=keep_2)
        return self.linear_3(h2)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the weights, named and shaped as those of `get_weights`. Their dtype is kept."""
        check_weights(weights, self.sizes)
        for name, array in weights.items():
            value = jnp.asarray(array)
            if value.dtype != array.dtype:  # DIFF float64: JAX would silently make it float32
                raise ValueError("float64 in JAX needs `with jax.enable_x64(True):` around it")
            layer, kind = name.split(".")
            if kind == "weight":
                getattr(self, layer).kernel.set_value(value.T)  # DIFF kernel: Flax has (in, out)
            else:
                getattr(self, layer).bias.set_value(value)

    def get_weights(self) -> dict[str, np.ndarray]:
        """Return copies of the weights, `linear_1.weight` (out, in) to `linear_3.bias` (out,)."""
        weights = {}
        for name in ("linear_1", "linear_2", "linear_3"):
            layer = getattr(self, name)
            kernel = layer.kernel[...]
            weights[f"{name}.weight"] = np.array(kernel.T, order="C")  # DIFF kernel: (out, in)
            weights[f"{name}.bias"] = np.array(layer.bias[...])
        return weights
