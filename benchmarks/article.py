"""The article's program as a reader would run it. It is slow because it loads image by image."""

import warnings
from collections.abc import Iterator

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.programs import Run, Setting
from shared.data import load


class Images(Dataset[tuple[Tensor, int]]):
    """A dataset that turns each example into a Pillow image, and that into a tensor (1, 28, 28)."""

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        image = Image.fromarray(self.images[i])
        pixels = torch.from_numpy(np.array(image, np.uint8, copy=True))
        return pixels.unsqueeze(0).to(torch.float32).div(255), int(self.labels[i])


def dropout(x: Tensor, p: float) -> Tensor:
    """Draw a mask from the global generator, multiply by it, and divide by 1 - p."""
    return (torch.rand(x.shape) > p).float() * x / (1 - p)


class Net(nn.Module):
    """The network. Its flag `is_training` switches dropout on and off."""

    def __init__(self, p1: float, p2: float) -> None:
        super().__init__()
        self.p1, self.p2 = p1, p2
        self.linear_1 = nn.Linear(784, 256)
        self.linear_2 = nn.Linear(256, 256)
        self.linear_3 = nn.Linear(256, 10)
        self.relu = nn.ReLU()
        self.is_training = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        h1 = self.relu(self.linear_1(x.reshape(-1, 784)))
        if self.is_training:
            h1 = dropout(h1, self.p1)
        h2 = self.relu(self.linear_2(h1))
        if self.is_training:
            h2 = dropout(h2, self.p2)
        return self.linear_3(h2)


def epoch(setting: Setting, workers: int) -> Run:
    """An epoch on the CPU. So many other processes load the images, this one if there are none."""
    # PyTorch warns on machines with fewer than four processors.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    data = load(setting.data)
    images = DataLoader(
        Images(data.train_images, data.train_labels), 256, shuffle=True, num_workers=workers
    )
    net = Net(setting.p1, setting.p2)
    loss_of = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=setting.lr)

    def run(_: int) -> Net:
        total_loss = correct = 0.0
        for x, y in images:
            logits = net(x)
            loss = loss_of(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total_loss += loss.item()
            correct += float((logits.argmax(1) == y).sum())
        return net

    return run


def accuracies(setting: Setting) -> Iterator[float]:
    """Train, and yield the accuracy on the test images, dropout off, after each epoch."""
    torch.manual_seed(setting.seed)
    run, data = epoch(setting, workers=0), load(setting.data)
    images = DataLoader(Images(data.test_images, data.test_labels), 256)
    for i in range(setting.epochs):
        net = run(i)
        net.is_training = False
        with torch.no_grad():
            correct = sum(int((net(x).argmax(1) == y).sum()) for x, y in images)
        net.is_training = True
        yield correct / len(data.test_labels)
