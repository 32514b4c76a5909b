"""What goes wrong when several processes share a batch and something is forgotten, in PyTorch.

python -m experiments.parallel.mistakes

    right   the masks are drawn for the whole batch, and the loss is its mean (impls/torch/parallel)
    alike   every process seeds its own generator alike, so all parts get the same masks
    own     every process seeds its own generator its own way
    means   the masks are right, but the loss is the mean of the means of all parts

One process computes here what several would.
"""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from experiments.parallel import keep_rows
from impls.torch.device import use
from impls.torch.dropout import sample_keep
from impls.torch.mlp import MLP, Masks
from impls.torch.train import train_step
from shared.cli import one_line_errors, parse
from shared.config import Config, check_range
from shared.data import load, to_arrays
from shared.randomness import epoch_order, step_seed

Way = Literal["right", "alike", "own", "means"]
COUNTS = (2, 4)  # of processes


@dataclasses.dataclass(frozen=True)
class MistakesConfig:
    """Train with mistakes that are made when several processes share a batch."""

    epochs: int = 3
    """Passes over the training data."""
    batch_size: int = 353
    """Examples in a step. Of the sample, 3 are left for the last one."""
    draws: int = 300
    """How often masks are drawn to measure the noise of the gradient."""
    data: str = "sample"
    """full, sample, auto, or a folder of four IDX files."""
    record: Path | None = None
    """A JSON file to keep the rows in, as docs/parallel.json."""

    def __post_init__(self) -> None:
        check_range(self, epochs=10**6, batch_size=10**6, draws=10**6)


def parts(rows: int, count: int) -> list[slice]:
    """Return the rows of each of `count` processes. Their numbers differ by at most one."""
    return [slice(rows * i // count, rows * (i + 1) // count) for i in range(count)]


def draw(way: Way, config: Config, rows: int, count: int, step: int) -> Masks:
    """Draw the masks of a step as `count` processes would, for the whole batch."""

    def of(seed: int, rows: int) -> Masks:
        generator = Generator().manual_seed(step_seed(seed, step))
        keep_1 = sample_keep((rows, config.hidden_1), config.p1, generator=generator)
        return keep_1, sample_keep((rows, config.hidden_2), config.p2, generator=generator)

    if way in ("right", "means"):
        return of(config.seed, rows)
    seeds = [config.seed + (rank if way == "own" else 0) for rank in range(count)]
    masks = [of(s, p.stop - p.start) for s, p in zip(seeds, parts(rows, count), strict=True)]
    first, second = zip(*masks, strict=True)
    return torch.cat(first), torch.cat(second)


def mean(way: Way, losses: Tensor, count: int) -> Tensor:
    """Return the loss of a step from the losses of its examples, as `count` processes would."""
    if way != "means":
        return losses.mean()
    return torch.stack([losses[part].mean() for part in parts(len(losses), count)]).mean()


def train(way: Way, config: Config, data: tuple[Tensor, Tensor], count: int) -> tuple[Tensor, MLP]:
    """Train with the masks of `count` processes. Return the loss of each step, and the network."""
    images, labels = data
    model = MLP.from_config(config, inputs=images.shape[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    seen: list[Tensor] = []
    for epoch in range(1, config.epochs + 1):
        order = torch.as_tensor(epoch_order(len(images), seed=config.seed, epoch=epoch))
        for batch in order.split(config.batch_size):
            keep = draw(way, config, len(batch), count, len(seen))
            loss, _ = train_step(model, optimizer, images[batch], labels[batch], keep=keep)
            seen.append(loss)
    return torch.stack(seen), model


def shares(way: Way, sizes: set[int], count: int) -> list[float]:
    """Return the weight of each example in the loss of its step, times the number of examples."""
    found: list[float] = []
    for rows in sizes:
        losses = torch.zeros(rows, requires_grad=True)
        (weight,) = torch.autograd.grad(mean(way, losses, count), losses)
        found += (weight * rows).tolist()
    return found


def noise(
    way: Way, config: Config, model: MLP, data: tuple[Tensor, Tensor], count: int, draws: int
) -> float:
    """Return the variance of the gradient of the first batch over masks, summed over weights."""
    images, labels = (array[: config.batch_size] for array in data)
    gradients = []
    for step in range(draws):
        keep = draw(way, config, len(images), count, step)
        losses = F.cross_entropy(model(images, keep=keep), labels, reduction="none")
        found = torch.autograd.grad(mean(way, losses, count), list(model.parameters()))
        gradients.append(torch.cat([one.flatten() for one in found]).float())
    return torch.stack(gradients).var(0).sum().item()


def table(config: Config, data: tuple[Tensor, Tensor], draws: int) -> list[str]:
    """Return a row for each way and each number of processes."""
    rows, n = [], len(data[0])
    sizes = {min(config.batch_size, n), n % config.batch_size or config.batch_size}
    alone, model = train("right", config, data, 1)
    quiet = noise("right", config, model, data, 1, draws)
    for way in get_args(Way):
        for count in COUNTS:
            ratio = noise(way, config, model, data, count, draws) / quiet
            share = shares(way, sizes, count)
            losses, _ = train(way, config, data, count)
            apart = (losses - alone).abs().max().item()
            rows.append(
                f"| `{way}` | {count} | {ratio:.2f} | {min(share):.2f} – {max(share):.2f} | "
                f"{'–' if way == 'means' else f'{apart:.1g}'} |"
            )
    return rows


def main() -> None:
    """Print the table."""
    with one_line_errors():
        flags = parse(MistakesConfig, "experiments.parallel.mistakes")
        config = Config(epochs=flags.epochs, batch_size=flags.batch_size, lr=0.1, dtype="float64")
        use("cpu", config.dtype)
        images, labels, *_ = map(torch.as_tensor, to_arrays(load(flags.data), config.dtype))
        keep_rows("mistakes", table(config, (images, labels), flags.draws), flags.record)


if __name__ == "__main__":
    main()
