"""The multilayer perceptron of the article (docs/article.md), in NumPy: the forward pass only.

The network is explained in impls/torch/mlp.py. The difference: the linear maps and the ReLU are
written out, `training` is an argument of the call, and there is no gradient.
"""

from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from impls.numpy import prng
from impls.numpy.dropout import apply_keep, dropout
from shared.checks import check_probability, check_training
from shared.config import Config
from shared.randomness import initial_weights
from shared.weights import check_weights

Inputs = Float[ndarray, "batch inputs"]
Logits = Float[ndarray, "batch outputs"]
Masks = tuple[Bool[ndarray, "batch hidden_1"], Bool[ndarray, "batch hidden_2"]]


class MLP:
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
        noise: Callable[..., ndarray] = dropout,
        seed: int = 0,
        dtype: str = "float32",
    ) -> None:
        """Make the network.

        Args:
            inputs, hidden_1, hidden_2, outputs: sizes of the layers.
            p1, p2: probabilities of dropping a unit of the first and second hidden layer.
            noise: `dropout`, or a function that is called like it (impls/numpy/noise.py).
            seed: seed of the initial weights, see shared/randomness.py.
            dtype: dtype of the weights, float32 or float64.
        """
        self.sizes = (inputs, hidden_1, hidden_2, outputs)
        self.p1, self.p2 = check_probability(p1), check_probability(p2)
        self.noise = noise
        self.set_weights(initial_weights(*self.sizes, seed=seed, dtype=dtype))

    @classmethod
    def from_config(cls, config: Config, inputs: int) -> Self:
        """Make the network of a run. `inputs` is the number of pixels of an image."""
        sizes = (inputs, config.hidden_1, config.hidden_2, 10)  # ten classes
        return cls(*sizes, config.p1, config.p2, seed=config.seed, dtype=config.dtype)

    def __call__(
        self,
        x: Inputs,
        *,
        training: bool = False,  # DIFF mode: an argument, off by default
        rng: prng.Source | None = None,
        keep: Masks | None = None,
    ) -> Logits:
        """Compute the logits, one row per example.

        Args:
            x: inputs, in the dtype of the weights.
            training: whether dropout is on.
            rng: in training, the source of both masks.
            keep: in training, two masks to use instead of drawing them.
        """
        keep_1, keep_2 = keep or (None, None)
        # DIFF randomness: a key is split as in JAX, a generator is shared as in PyTorch.
        rng_1, rng_2 = prng.for_layers(rng, 2)
        h1 = np.maximum(self._linear(1, x), 0)
        h1 = self._drop(h1, self.p1, training, rng_1, keep_1)
        h2 = np.maximum(self._linear(2, h1), 0)
        h2 = self._drop(h2, self.p2, training, rng_2, keep_2)
        return self._linear(3, h2)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the weights, named and shaped as those of `get_weights`. Their dtype is kept."""
        check_weights(weights, self.sizes)
        self._weights = {name: array.copy() for name, array in weights.items()}

    def get_weights(self) -> dict[str, np.ndarray]:
        """Return copies of the weights, `linear_1.weight` (out, in) to `linear_3.bias` (out,)."""
        return {name: array.copy() for name, array in self._weights.items()}

    def _drop(
        self, x: ndarray, p: float, training: bool, rng: prng.Source | None, keep: ndarray | None
    ) -> ndarray:
        check_training(training)
        if training and keep is not None:
            return apply_keep(x, keep, p)
        return self.noise(x, p, training=training, rng=rng)

    def _linear(self, layer: int, x: ndarray) -> ndarray:
        return x @ self._weights[f"linear_{layer}.weight"].T + self._weights[f"linear_{layer}.bias"]
