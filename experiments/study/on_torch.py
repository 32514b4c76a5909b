"""What the exercises add to impls/torch: other noise, weight decay, max-norm."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from experiments.study.runs import Arrays, Setting
from impls.torch.device import use
from impls.torch.dropout import Dropout
from impls.torch.mlp import MLP
from impls.torch.noise import Noise, dropconnect
from impls.torch.train import Data, Results, train_step
from shared.randomness import step_seed


class DropConnectMLP(MLP):
    """The network, dropping the weights that lead out of a hidden unit instead of the unit."""

    def forward(self, x: Tensor, *, generator: Generator | None = None, keep: Any = None) -> Tensor:
        """Compute the logits, as in `MLP`. Ready-made masks are not possible."""
        h1 = F.relu(self.linear_1(x))
        h2 = F.relu(self._drop(h1, self.linear_2, self.dropout_1, generator))
        return self._drop(h2, self.linear_3, self.dropout_2, generator)

    def _drop(self, h: Tensor, linear: Any, noise: Any, generator: Generator | None) -> Tensor:
        weight, bias, p = linear.weight, linear.bias, noise.p
        return dropconnect(h, weight, bias, p, training=self.training, generator=generator)


def prepare(setting: Setting, arrays: Arrays) -> tuple[MLP, torch.optim.Optimizer, Data]:
    """Return the network, its optimizer and the data, as the lesson's `train` takes them."""
    use("cpu")
    model = setting.network(arrays[0].shape[1], (MLP, DropConnectMLP), (Dropout, Noise))
    optimizer = torch.optim.SGD(
        model.parameters(), lr=setting.lr, weight_decay=setting.weight_decay
    )
    if setting.max_norm:
        optimizer.register_step_post_hook(lambda *_: limit(model, setting.max_norm))
    images, labels, test_images, test_labels = map(torch.as_tensor, arrays)
    return model, optimizer, (images, labels, test_images, test_labels)


@torch.no_grad()
def limit(model: MLP, most: float) -> None:
    """Shorten the weights into each unit to a norm of `most` where it is larger."""
    for linear in (model.linear_1, model.linear_2, model.linear_3):
        norms = linear.weight.norm(dim=1, keepdim=True)
        linear.weight.mul_((most / norms.clamp_min(1e-12)).clamp_max(1))


def take_step(
    model: MLP,
    optimizer: torch.optim.Optimizer,
    data: Data,
    batch: np.ndarray,
    seed: int,
    step: int,
) -> Results:
    """Take one step of a run, on these examples."""
    generator = Generator().manual_seed(step_seed(seed, step))
    return train_step(model, optimizer, data[0][batch], data[1][batch], generator=generator)
