"""What goes wrong when several processes share a batch and something is forgotten, in PyTorch.

python -m experiments.parallel.mistakes

    right   the masks are drawn for the whole batch, and the loss is its mean (impls/torch/parallel)
    alike   every process seeds its own generator alike, so all parts get the same masks
    own     every process seeds its own generator its own way
    means   the masks are right, but the loss is the mean of the means of all parts

One process computes here what several would: it draws the masks of each part, and takes the mean
that they would take.
"""

import dataclasses
from typing import Literal, NamedTuple, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from impls.torch.dropout import sample_keep
from impls.torch.mlp import MLP, Masks
from impls.torch.train import make_optimizer
from shared.checks import InputError
from shared.cli import one_line_errors, parse, say
from shared.config import Config
from shared.data import load, to_arrays
from shared.idx import Data
from shared.randomness import epoch_order, step_seed
from shared.records import check_finite

Way = Literal["right", "alike", "own", "means"]
COUNTS = (2, 4)  # of processes


@dataclasses.dataclass(frozen=True)
class MistakesConfig:
    """Train with mistakes that are made when several processes share a batch."""

    epochs: int = 3
    """Passes over the training data."""
    batch_size: int = 353
    """Examples in a step. Of the sample, 3 are left for the last one."""
    lr: float = 0.1
    """Learning rate of stochastic gradient descent."""
    draws: int = 300
    """How often masks are drawn to measure the noise of the gradient."""
    data: str = "sample"
    """full, sample, auto, or a folder of four IDX files."""

    def __post_init__(self) -> None:
        if self.draws < 2:
            raise InputError(f"draws must be at least 2, got {self.draws}")


def parts(rows: int, count: int) -> list[slice]:
    """Return the rows of each of `count` processes. Their numbers differ by at most one."""
    return [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def draw(way: Way, config: Config, rows: int, count: int, step: int) -> Masks:
    """Draw the masks of a step as `count` processes would.

    Returns:
        The masks of the whole batch, (rows, hidden_1) and (rows, hidden_2).
    """

    def of(seed: int, rows: int) -> tuple[Tensor, Tensor]:
        generator = Generator().manual_seed(step_seed(seed, step))
        keep_1 = sample_keep((rows, config.hidden_1), config.p1, generator=generator)
        return keep_1, sample_keep((rows, config.hidden_2), config.p2, generator=generator)

    if way in ("right", "means"):
        return of(config.seed, rows)
    seeds = [config.seed + (rank if way == "own" else 0) for rank in range(count)]
    masks = [
        of(seed, part.stop - part.start)
        for seed, part in zip(seeds, parts(rows, count), strict=True)
    ]
    first, second = zip(*masks, strict=True)
    return torch.cat(first), torch.cat(second)


def mean(way: Way, losses: Tensor, count: int) -> Tensor:
    """Return the loss of a step from the losses of its examples, as `count` processes would."""
    if way != "means":
        return losses.mean()
    return torch.stack([losses[part].mean() for part in parts(len(losses), count)]).mean()


class Trained(NamedTuple):
    """The result of a run."""

    losses: np.ndarray  # of each step, the mean over its examples
    model: MLP


def train(way: Way, config: Config, arrays: tuple[Tensor, ...], count: int) -> Trained:
    """Train the network as `count` processes would."""
    images, labels = arrays
    model = make_model(config, images)
    optimizer = make_optimizer(model, config.lr)
    seen: list[float] = []
    for epoch in range(1, config.epochs + 1):
        order = torch.as_tensor(epoch_order(len(images), seed=config.seed, epoch=epoch))
        for batch in order.split(config.batch_size):
            keep = draw(way, config, len(batch), count, len(seen))
            losses = F.cross_entropy(
                model(images[batch], keep=keep), labels[batch], reduction="none"
            )
            optimizer.zero_grad()
            mean(way, losses, count).backward()
            optimizer.step()
            seen.append(losses.mean().item())
        check_finite(np.array(seen), epoch, 0)
    return Trained(np.array(seen), model)


def make_model(config: Config, images: Tensor) -> MLP:
    """Return the network before training."""
    sizes = (images.shape[1], config.hidden_1, config.hidden_2, 10)
    return MLP(*sizes, config.p1, config.p2, seed=config.seed, dtype=config.dtype)


def weights(way: Way, config: Config, examples: int, count: int) -> tuple[float, float]:
    """Return the least and the largest weight of an example in a step, which should be 1 / rows.

    Returns:
        Both as multiples of 1 / rows.
    """
    found = []
    for rows in {
        min(config.batch_size, examples),
        examples % config.batch_size or config.batch_size,
    }:
        losses = torch.zeros(rows, requires_grad=True)
        (weight,) = torch.autograd.grad(mean(way, losses, count), losses)
        found += (weight * rows).tolist()
    return min(found), max(found)


def noise(
    way: Way, config: Config, model: MLP, arrays: tuple[Tensor, ...], count: int, draws: int
) -> float:
    """Return the variance of the gradient of the first batch over masks, summed over weights."""
    images, labels = arrays[0][: config.batch_size], arrays[1][: config.batch_size]
    total: Tensor | float = 0.0
    squares: Tensor | float = 0.0
    for step in range(draws):
        keep = draw(way, config, len(images), count, step)
        losses = F.cross_entropy(model(images, keep=keep), labels, reduction="none")
        gradients = torch.autograd.grad(mean(way, losses, count), list(model.parameters()))
        gradient = torch.cat([one.flatten() for one in gradients])
        total, squares = total + gradient, squares + gradient**2
    assert isinstance(total, Tensor)
    return ((squares - total**2 / draws) / (draws - 1)).sum().item()


def main() -> None:
    """Print a line for each way and each number of processes."""
    with one_line_errors():
        flags = parse(MistakesConfig, "experiments.parallel.mistakes")
        config = Config(
            epochs=flags.epochs, batch_size=flags.batch_size, lr=flags.lr, dtype="float64"
        )
        table(config, load(flags.data), flags.draws)
    say("\nGradient noise: its variance over masks in the trained network, over that of right.")
    say("Weight: of an image in the loss of its step, times the number of images. 1 is right.")
    say("|loss - right loss|: the largest difference of the loss of a step from one process.")


def table(config: Config, data: Data, draws: int) -> None:
    """Print the table.

    Raises:
        DivergedError: a loss is infinite or not a number.
    """
    arrays = tuple(torch.as_tensor(array) for array in to_arrays(data, config.dtype)[:2])
    say(f"{data.summary}; {config.epochs} epochs, {config.batch_size} images in a step")
    say("way    processes  gradient noise  least weight  largest weight  |loss - right loss|")
    alone = train("right", config, arrays, 1)
    quiet = noise("right", config, alone.model, arrays, 1, draws)
    for way in get_args(Way):
        for count in COUNTS:
            result = train(way, config, arrays, count)
            ratio = noise(way, config, alone.model, arrays, count, draws) / quiet
            least, largest = weights(way, config, len(arrays[0]), count)
            difference = np.abs(result.losses - alone.losses).max()
            say(
                f"{way:5}  {count:9}  {ratio:14.2f}  {least:12.2f}  {largest:14.2f}"
                f"  {difference:19.1e}"
            )


if __name__ == "__main__":
    main()
