"""The article's program as a reader would run it: a picture at a time, through a DataLoader."""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.programs import LR, RATES, Run
from shared.data import load


class Images(Dataset[tuple[Tensor, int]]):
    """Each image becomes a picture, then a tensor (1, 28, 28) in [0, 1], when it is asked for."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        picture = Image.fromarray(self.images[i])
        pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        return pixels.unsqueeze(0).to(torch.float32).div(255), int(self.labels[i])


def drop(x: Tensor, p: float) -> Tensor:
    """Draw from the global generator, and multiply."""
    return (torch.rand(x.shape) > p).float() * x / (1 - p)


class Net(nn.Module):
    """The network with a flag of its own for dropout."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(784, 256), nn.Linear(256, 256)
        self.last, self.relu = nn.Linear(256, 10), nn.ReLU()
        self.is_training = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        h = self.relu(self.first(x.reshape(-1, 784)))
        h = drop(h, RATES[0]) if self.is_training else h
        h = self.relu(self.second(h))
        h = drop(h, RATES[1]) if self.is_training else h
        return self.last(h)


def program(data: str, workers: int) -> tuple[Net, Callable[[], None], Callable[[], float]]:
    """Return the network, an epoch of training, and test accuracy with dropout off."""
    held = load(data)
    training = DataLoader(
        Images(held.train_images, held.train_labels),
        batch_size=256, shuffle=True, num_workers=workers,
    )  # fmt: skip
    test = DataLoader(
        Images(held.test_images, held.test_labels), batch_size=256, num_workers=workers
    )
    net, loss_of = Net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def epoch() -> None:
        total = right = 0.0
        for x, y in training:
            logits = net(x)
            loss = loss_of(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            right += float((logits.argmax(1) == y).sum())

    def accuracy() -> float:
        net.is_training = False
        with torch.no_grad():
            right = sum(int((net(x).argmax(1) == y).sum()) for x, y in test)
        net.is_training = True
        return right / len(held.test_labels)

    return net, epoch, accuracy


def without_workers(data: str = "auto") -> Run:
    """Images loaded in the training process."""
    _, epoch, _ = program(data, 0)
    return lambda _: epoch()


def with_workers(data: str = "auto") -> Run:
    """Images loaded by four more processes."""
    warnings.filterwarnings("ignore", "This DataLoader will create")  # on fewer processors
    _, epoch, _ = program(data, 4)
    return lambda _: epoch()
