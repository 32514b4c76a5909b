"""An epoch beside its floor: nothing but the eight matrix products of each step.

python -m experiments.speed

Each framework's epoch and floor are timed in turn, so that a machine whose speed drifts slows both
alike; the ratio is what carries over to other machines.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import impls.jax.mlp
import impls.jax.train
import impls.torch.mlp
import impls.torch.train
from shared.config import InputError, one_line_errors, parse
from shared.data import Data, load, to_inputs
from shared.randomness import epoch_order

BATCH_SIZE, LR = 256, 0.5


@dataclasses.dataclass(frozen=True)
class SpeedConfig:
    """Time an epoch of training against its matrix products."""

    repeats: int = 12
    """Epochs to time, after two that are not counted."""
    data: str = "auto"
    """full, sample, auto, or a folder of four IDX files."""


Work = Callable[[int], object]


def torch_work(data: Data) -> tuple[Work, Work]:
    """Return an epoch of impls/torch, and its floor."""
    images, labels = torch.from_numpy(to_inputs(data.train_images)), torch.tensor(data.train_labels)
    model = impls.torch.mlp.MLP(images.shape[1])
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)
    steps = -(-len(images) // BATCH_SIZE)

    def epoch(i: int) -> None:
        order = torch.from_numpy(epoch_order(len(images), seed=0, epoch=i))
        impls.torch.train.train_epoch(
            model, optimizer, images, labels, order,
            seed=0, first_step=i * steps, batch_size=BATCH_SIZE,
        )  # fmt: skip

    @torch.no_grad()
    def floor(_: int) -> None:
        x = images[:BATCH_SIZE]
        w1, w2, w3 = (torch.randn(shape) for shape in ((256, x.shape[1]), (256, 256), (10, 256)))
        for _ in range(steps):
            h1 = x @ w1.T
            h2 = h1 @ w2.T
            logits = h2 @ w3.T
            d2 = logits @ w3
            d1 = d2 @ w2
            w1, w2, w3 = d1.T @ x, d2.T @ h1, logits.T @ h2

    return epoch, floor


def jax_work(data: Data) -> tuple[Work, Work]:
    """Return an epoch of impls/jax, and its floor."""
    images, labels = jnp.asarray(to_inputs(data.train_images)), jnp.asarray(data.train_labels)
    model = impls.jax.mlp.MLP(images.shape[1])
    optimizer = nnx.Optimizer(model, impls.jax.train.sgd(LR), wrt=nnx.Param)
    steps = -(-len(images) // BATCH_SIZE)

    def epoch(i: int) -> None:
        order = jnp.asarray(epoch_order(len(images), seed=0, epoch=i))
        losses, _ = impls.jax.train.train_epoch(
            model, optimizer, images, labels, order,
            seed=np.uint32(0), first_step=np.uint32(i * steps), batch_size=BATCH_SIZE,
        )  # fmt: skip
        losses.block_until_ready()

    # Each step's weights are the last one's gradients, so that no product can be left out.
    @jax.jit
    def products(x: jax.Array, weights: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        def step(weights: tuple[jax.Array, ...], _: None) -> tuple[tuple[jax.Array, ...], None]:
            w1, w2, w3 = weights
            h1 = x @ w1
            h2 = h1 @ w2
            logits = h2 @ w3
            d2 = logits @ w3.T
            d1 = d2 @ w2.T
            return (x.T @ d1, h1.T @ d2, h2.T @ logits), None

        return jax.lax.scan(step, weights, None, length=steps)[0]

    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((images.shape[1], 256), (256, 256), (256, 10))
    weights = tuple(jax.random.normal(*pair) for pair in zip(keys, shapes, strict=True))
    return epoch, lambda _: jax.block_until_ready(products(images[:BATCH_SIZE], weights))


def main() -> None:
    """Print the medians and the ratio for each framework."""
    with one_line_errors():
        config = parse(SpeedConfig)
        if config.repeats < 1:
            raise InputError(f"repeats must be at least 1, got {config.repeats}")
        data = load(config.data)
    print(f"{data.source}; {torch.get_num_threads()} threads; medians of {config.repeats}\n")
    print("| | s/epoch | floor | ratio (min - max) |\n|---|---|---|---|")
    for name, make in (("PyTorch", torch_work), ("JAX", jax_work)):
        seconds: tuple[list[float], list[float]] = ([], [])
        works = make(data)
        for i in range(config.repeats + 2):
            for work, taken in zip(works, seconds, strict=True):
                started = time.perf_counter()
                work(i)
                taken.append(time.perf_counter() - started)
        epoch, floor = (taken[2:] for taken in seconds)
        ratios = sorted(a / b for a, b in zip(epoch, floor, strict=True))
        print(
            f"| {name} | {statistics.median(epoch):.3f} | {statistics.median(floor):.3f}"
            f" | {statistics.median(ratios):.2f} ({ratios[0]:.2f} - {ratios[-1]:.2f}) |",
            flush=True,
        )


if __name__ == "__main__":
    main()
