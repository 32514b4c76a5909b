"""The multilayer perceptron of the article, in PyTorch.

Each hidden layer is a linear map, ReLU, and dropout, with less dropout near the input:

    x (N, 784) -> 256, ReLU, dropout 0.2 -> 256, ReLU, dropout 0.5 -> logits (N, 10)
"""

from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from impls.torch.dropout import Dropout
from shared.randomness import initial_weights


class MLP(nn.Module):
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
        super().__init__()
        # DIFF: on "meta" no weights are drawn, so that the global generator is left alone.
        self.linear_1 = nn.Linear(inputs, hidden1, device="meta")
        self.linear_2 = nn.Linear(hidden1, hidden2, device="meta")
        self.linear_3 = nn.Linear(hidden2, outputs, device="meta")
        self.dropout_1 = Dropout(p1)
        self.dropout_2 = Dropout(p2)
        self.set_weights(initial_weights(inputs, hidden1, hidden2, outputs, seed=seed, dtype=dtype))

    def forward(
        self,
        x: Float[Tensor, "batch inputs"],
        *,
        generator: torch.Generator | None = None,
        keep: tuple[Bool[Tensor, "batch hidden1"], Bool[Tensor, "batch hidden2"]] | None = None,
    ) -> Float[Tensor, "batch outputs"]:
        """Compute the logits.

        Args:
            x: inputs, in the dtype of the weights.
            generator: in training, the source of both masks, drawn one after the other.
            keep: in training, the two masks ready-made, instead of a generator.

        Returns:
            The logits, one row per example.
        """
        keep_1, keep_2 = keep or (None, None)
        # DIFF: a generator moves on with each draw, so both layers can share it.
        h1 = F.relu(self.linear_1(x))
        h1 = self.dropout_1(h1, generator=generator, keep=keep_1)
        h2 = F.relu(self.linear_2(h1))
        h2 = self.dropout_2(h2, generator=generator, keep=keep_2)
        return self.linear_3(h2)

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Take the weights, and with them the dtype, from arrays named as in a weight file."""
        # assign: replace the parameters instead of copying into them.
        self.load_state_dict({n: torch.tensor(a) for n, a in weights.items()}, assign=True)

    def get_weights(self) -> dict[str, np.ndarray]:
        """Return copies of the weights, `linear_1.weight` (out, in) to `linear_3.bias` (out,)."""
        return {n: a.detach().cpu().numpy().copy() for n, a in self.state_dict().items()}
