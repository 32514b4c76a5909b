"""The multilayer perceptron of the article (docs/article.md), in PyTorch.

Each hidden layer is a linear map, ReLU, and dropout, with less dropout near the input:

    x (N, 784) -> 256, ReLU, dropout 0.2 -> 256, ReLU, dropout 0.5 -> logits (N, 10)
"""

import functools
from collections.abc import Callable, Mapping
from typing import Self

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from impls.torch.dropout import Dropout
from shared.config import Config
from shared.randomness import initial_weights
from shared.weights import check_weights

Inputs = Float[Tensor, "batch inputs"]
Logits = Float[Tensor, "batch outputs"]
Masks = tuple[Bool[Tensor, "batch hidden_1"], Bool[Tensor, "batch hidden_2"]]


class MLP(nn.Module):
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
        noise: Callable[[float], nn.Module] = Dropout,
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
        super().__init__()
        self.sizes = (inputs, hidden_1, hidden_2, outputs)
        # DIFF initial weights: skip_init leaves them unset, so that nothing is drawn from PyTorch's
        # global generator. They are set below.
        linear = functools.partial(nn.utils.skip_init, nn.Linear)
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

    def forward(
        self, x: Inputs, *, generator: Generator | None = None, keep: Masks | None = None
    ) -> Logits:
        """Compute the logits, one row per example.

        Args:
            x: inputs, in the dtype of the weights.
            generator: in training, the source of both masks.
            keep: in training, two masks to use instead of drawing them.
        """
        keep_1, keep_2 = keep or (None, None)
        # DIFF randomness: both layers share the generator. Each draw changes its state.
        h1 = F.relu(self.linear_1(x))
        h1 = self.dropout_1(h1, generator=generator, keep=keep_1)
        h2 = F.relu(self.linear_2(h1))
        h2 = self.dropout_2(h2, generator=generator, keep=keep_2)
        return self.linear_3(h2)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the weights, named and shaped as those of `get_weights`. Their dtype is kept."""
        check_weights(weights, self.sizes)
        tensors = {name: torch.tensor(array) for name, array in weights.items()}
        self.to(tensors["linear_1.weight"].dtype)
        self.load_state_dict(tensors)

    def get_weights(self) -> dict[str, np.ndarray]:
        """Return copies of the weights, `linear_1.weight` (out, in) to `linear_3.bias` (out,)."""
        tensors = self.state_dict()
        return {name: tensor.cpu().numpy().copy() for name, tensor in tensors.items()}
