"""What the exercises add to the training of impls/torch: noise, weight decay, max-norm."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from experiments.study.runs import Setting
from impls.torch.dropout import Dropout
from impls.torch.evaluate import evaluate
from impls.torch.mlp import MLP
from impls.torch.noise import Noise, dropconnect
from impls.torch.train import train_epoch


class DropConnectMLP(MLP):
    """The network, dropping the weights that lead out of a hidden unit instead of the unit."""

    def forward(self, x: Tensor, *, generator: Generator | None = None, keep: Any = None) -> Tensor:
        """Compute the logits, as in `MLP`. Ready-made masks are not possible."""
        h = F.relu(self.linear_1(x))
        layers: Any = ((self.linear_2, self.dropout_1), (self.linear_3, self.dropout_2))
        for linear, noise in layers:
            h = dropconnect(
                h, linear.weight, linear.bias, noise.p,
                training=self.training, generator=generator,
            )  # fmt: skip
            h = F.relu(h) if linear is self.linear_2 else h
        return h


class Trainer:
    """Trains one network, an epoch at a time."""

    def __init__(self, setting: Setting, images: np.ndarray, labels: np.ndarray) -> None:
        def noise(p: float) -> nn.Module:
            if setting.noise in ("dropout", "dropconnect"):
                return Dropout(p)
            kind, masks = setting.kind
            return Noise(p, kind=kind, masks=masks)

        network = DropConnectMLP if setting.noise == "dropconnect" else MLP
        sizes = (images.shape[1], setting.hidden_1, setting.hidden_2, 10)
        self.model: Any = network(*sizes, setting.p1, setting.p2, noise=noise, seed=setting.seed)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), lr=setting.lr, weight_decay=setting.weight_decay
        )
        if setting.max_norm:
            self.optimizer.register_step_post_hook(lambda *_: self._limit(setting.max_norm))
        self.images, self.labels = torch.as_tensor(images), torch.as_tensor(labels)
        self.setting = setting

    def epoch(
        self, order: np.ndarray, p1: float, p2: float, first_step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Train an epoch with these rates. Return loss and number correct of each step."""
        self.model.dropout_1.p, self.model.dropout_2.p = p1, p2
        size = self.setting.batch_size * self.setting.copies
        losses, correct = train_epoch(
            self.model, self.optimizer, self.images, self.labels, torch.as_tensor(order),
            self.setting.seed, first_step, size,
        )  # fmt: skip
        return losses.numpy(), correct.numpy()

    def score(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Return loss and accuracy with dropout off."""
        return evaluate(self.model, torch.as_tensor(images), torch.as_tensor(labels))

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weights as in a weight file."""
        return self.model.get_weights()

    @torch.no_grad()
    def _limit(self, most: float) -> None:
        """Shorten the weights into each unit to a norm of `most` where it is larger."""
        for linear in (self.model.linear_1, self.model.linear_2, self.model.linear_3):
            norms = linear.weight.norm(dim=1, keepdim=True)
            linear.weight.mul_((most / norms.clamp_min(1e-12)).clamp_max(1))
