"""The article's program as a reader would run it. It is slow because it loads image by image."""

import warnings

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from benchmarks.programs import LR, RATES, Run, Setting
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

    def __init__(self) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(784, 256)
        self.linear_2 = nn.Linear(256, 256)
        self.linear_3 = nn.Linear(256, 10)
        self.relu = nn.ReLU()
        self.is_training = True

    def forward(self, x: Tensor) -> Tensor:
        """Compute the logits."""
        h1 = self.relu(self.linear_1(x.reshape(-1, 784)))
        if self.is_training:
            h1 = dropout(h1, RATES[0])
        h2 = self.relu(self.linear_2(h1))
        if self.is_training:
            h2 = dropout(h2, RATES[1])
        return self.linear_3(h2)


class Article:
    """The article's program. It always runs on the CPU.

    Args:
        data: as in `shared.data.load`.
        workers: how many other processes load the images. If it is 0, this process loads them.
    """

    def __init__(self, data: str, workers: int) -> None:
        arrays = load(data)
        self.training = DataLoader(
            Images(arrays.train_images, arrays.train_labels),
            batch_size=256,
            shuffle=True,
            num_workers=workers,
        )
        self.test = DataLoader(
            Images(arrays.test_images, arrays.test_labels), batch_size=256, num_workers=workers
        )
        self.net = Net()
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=LR)

    def train_epoch(self) -> tuple[float, float]:
        """Train for one epoch. Return the mean loss of its steps and its accuracy, dropout on."""
        total_loss = correct = 0.0
        examples = 0
        for x, y in self.training:
            logits = self.net(x)
            loss = self.loss(logits, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total_loss += loss.item()
            correct += float((logits.argmax(1) == y).sum())
            examples += len(y)
        return total_loss / len(self.training), correct / examples

    def test_accuracy(self) -> float:
        """Return the accuracy on the test images with dropout off."""
        correct = examples = 0
        self.net.is_training = False
        with torch.no_grad():
            for x, y in self.test:
                correct += int((self.net(x).argmax(1) == y).sum())
                examples += len(y)
        self.net.is_training = True
        return correct / examples


def without_workers(setting: Setting) -> Run:
    """An epoch in which the training process loads the images."""
    article = Article(setting.data, workers=0)
    return lambda _: article.train_epoch()


def with_workers(setting: Setting) -> Run:
    """An epoch in which four other processes load the images."""
    # PyTorch warns on machines with fewer than four processors.
    warnings.filterwarnings("ignore", "This DataLoader will create")
    article = Article(setting.data, workers=4)
    return lambda _: article.train_epoch()
