"""Train PyTorch and JAX side by side, on the same masks, and see how far they drift apart.

python -m experiments.lockstep --epochs 10 --dtype float64

Both start from the same weights and see the same batches in any case. Here both also get the same
masks: one of the two frameworks draws each mask, and both apply it. A second run takes the masks of
the other framework. The steps are the real `train_step` of both, on the CPU.

NumPy takes part, too. At the start of each epoch it replays both masks of the first step, which
must be equal bit for bit. After each epoch it computes the logits of both networks under replayed
masks, and the largest difference is printed.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx

import impls.jax.dropout
import impls.jax.train
import impls.numpy.dropout
import impls.numpy.evaluate
import impls.torch.dropout
import impls.torch.train
from experiments.plot import pyplot
from impls.numpy import prng
from shared.cli import one_line_errors, parse
from shared.config import Config
from shared.data import Data, load, to_arrays
from shared.randomness import epoch_order, step_seed
from shared.records import DivergedError

LOSS_LIMIT, WEIGHT_LIMIT = 1e-12, 1e-10  # the largest differences allowed in float64
VISIBLE = 1e-3  # a loss difference worth reporting

Masks = tuple[Any, Any]  # of the two hidden layers
Shapes = list[tuple[int, int]]  # of the two masks


@dataclasses.dataclass(frozen=True)
class LockstepConfig:
    """Train PyTorch and JAX in lockstep, checked by NumPy."""

    epochs: int = 10
    """Passes over the training data."""
    dtype: Literal["float32", "float64"] = "float64"
    """float64 shows that both compute the same, float32 how rounding drives them apart."""
    masks: Literal["jax", "torch", "both"] = "both"
    """Which framework draws the masks. both: a run with JAX's, then one with PyTorch's."""
    batch_size: int = 256
    """Examples in a step."""
    lr: float = 0.5
    """Learning rate of stochastic gradient descent."""
    hidden_1: int = 256
    """Units in the first hidden layer."""
    hidden_2: int = 256
    """Units in the second hidden layer."""
    seed: int = 0
    """Initial weights, batch order and masks follow from it."""
    data: str = "auto"
    """full, sample, auto, or a folder of four IDX files."""
    plot: Path | None = None
    """File for a plot of the difference at each step (.png or .svg)."""


class Difference(NamedTuple):
    """The largest differences found in one run."""

    loss_per_step: np.ndarray
    weights: float
    numpy: float
    correct: tuple[int, int, int]  # test images, in torch, in JAX and in NumPy with torch's weights


def masks_of_jax(config: Config, shapes: Shapes, step: int) -> Masks:
    """Draw the masks of a step as impls/jax does."""
    key = jax.random.fold_in(jax.random.key(config.seed), np.uint32(step))
    return _draw(impls.jax.dropout, config, shapes, [{"key": one} for one in jax.random.split(key)])


def masks_of_torch(config: Config, shapes: Shapes, step: int) -> Masks:
    """Draw the masks of a step as impls/torch does."""
    generator = torch.Generator().manual_seed(step_seed(config.seed, step))
    return _draw(impls.torch.dropout, config, shapes, [{"generator": generator}] * 2)


def masks_of_numpy(config: Config, shapes: Shapes, step: int, source: str) -> Masks:
    """Replay the masks of a step in NumPy, those of `source`, which is jax or torch."""
    rngs: Any
    if source == "jax":
        rngs = prng.split(prng.fold_in(prng.key(config.seed), step))
    else:
        rngs = [prng.Generator().manual_seed(step_seed(config.seed, step))] * 2
    return _draw(impls.numpy.dropout, config, shapes, [{"rng": rng} for rng in rngs])


def _draw(framework: ModuleType, config: Config, shapes: Shapes, sources: Any) -> Masks:
    draws = zip(shapes, (config.p1, config.p2), sources, strict=True)
    keep_1, keep_2 = (framework.sample_keep(shape, p, **source) for shape, p, source in draws)
    return np.asarray(keep_1), np.asarray(keep_2)


def to_torch(keep: Masks) -> Masks:
    """Return NumPy masks as tensors."""
    return torch.tensor(keep[0]), torch.tensor(keep[1])


def lockstep(config: Config, data: Data, source: str, on_epoch: Callable[[str], Any]) -> Difference:
    """Train both frameworks on the masks of one source.

    Args:
        config: the settings of the run.
        data: Fashion-MNIST.
        source: the framework that draws the masks, `jax` or `torch`.
        on_epoch: called with a line of text for each epoch.

    Raises:
        DivergedError: a loss is infinite or not a number.
    """
    in_torch, in_jax, in_numpy = impls.torch.train, impls.jax.train, impls.numpy.evaluate
    in_torch.use("cpu", config.dtype)
    in_jax.use("cpu", config.dtype)
    draw = {"jax": masks_of_jax, "torch": masks_of_torch}[source]
    images, labels, test_images, test_labels = to_arrays(data, config.dtype)
    n, inputs = images.shape
    torch_model = in_torch.MLP.from_config(config, inputs)
    jax_model = in_jax.MLP.from_config(config, inputs)
    numpy_model = in_numpy.MLP.from_config(config, inputs)
    torch_optimizer = torch.optim.SGD(torch_model.parameters(), lr=config.lr)
    jax_optimizer = nnx.Optimizer(jax_model, optax.sgd(config.lr), wrt=nnx.Param)
    jax_step = nnx.jit(in_jax.train_step)

    def shapes(rows: int) -> Shapes:
        return [(rows, config.hidden_1), (rows, config.hidden_2)]

    differences: list[float] = []
    worst_numpy = 0.0
    for epoch in range(1, config.epochs + 1):
        order = epoch_order(n, seed=config.seed, epoch=epoch)
        first = len(differences)
        for batch in np.split(order, range(config.batch_size, n, config.batch_size)):
            step = len(differences)
            keep = draw(config, shapes(len(batch)), step)
            if step == first:
                replayed = masks_of_numpy(config, shapes(len(batch)), step, source)
                for mask, again in zip(keep, replayed, strict=True):
                    np.testing.assert_array_equal(mask, again)
            x, y = images[batch], labels[batch]
            torch_loss, _ = in_torch.train_step(
                torch_model, torch_optimizer, torch.from_numpy(x), torch.from_numpy(y),
                keep=to_torch(keep),
            )  # fmt: skip
            jax_loss, _ = jax_step(jax_model, jax_optimizer, x, y, keep=keep)
            differences.append(abs(torch_loss.item() - jax_loss.item()))
            if not math.isfinite(differences[-1]):
                raise DivergedError(
                    f"the losses are {torch_loss.item()} and {jax_loss.item()} at step {step}, in "
                    f"epoch {epoch}. A lower learning rate may help"
                )

        # NumPy replays two masks, and computes the logits of both frameworks' weights under them.
        keep = masks_of_numpy(config, shapes(len(test_images)), len(differences), source)
        torch_logits = torch_model(torch.from_numpy(test_images), keep=to_torch(keep))
        jax_logits = jax_model(
            jnp.asarray(test_images), keep=(jnp.asarray(keep[0]), jnp.asarray(keep[1]))
        )
        logit_difference = 0.0
        for weights, logits in (
            (torch_model.get_weights(), torch_logits.detach().numpy()),
            (jax_model.get_weights(), np.asarray(jax_logits)),
        ):
            numpy_model.set_weights(weights)
            numpy_logits = numpy_model(test_images, training=True, keep=keep)
            logit_difference = max(logit_difference, float(np.abs(numpy_logits - logits).max()))
        worst_numpy = max(worst_numpy, logit_difference)
        on_epoch(
            f"{epoch:5}  {torch_loss.item():17.12f}  {jax_loss.item():17.12f}"
            f"  {max(differences[first:]):16.3e}  {logit_difference:16.3e}"
        )

    torch_weights, jax_weights = torch_model.get_weights(), jax_model.get_weights()
    numpy_model.set_weights(torch_weights)
    of_torch = torch.from_numpy(test_images), torch.from_numpy(test_labels)
    of_jax = jnp.asarray(test_images), jnp.asarray(test_labels)
    torch_correct, jax_correct, numpy_correct = (
        round(accuracy * len(test_labels))
        for _, accuracy in (
            in_torch.evaluate(torch_model, *of_torch),
            in_jax.evaluate(jax_model, *of_jax),
            in_numpy.evaluate(numpy_model, test_images, test_labels),
        )
    )
    return Difference(
        np.array(differences),
        max(float(np.abs(torch_weights[n] - jax_weights[n]).max()) for n in torch_weights),
        worst_numpy,
        (torch_correct, jax_correct, numpy_correct),
    )


def draw_plot(plt: ModuleType, differences: dict[str, np.ndarray], dtype: str, path: Path) -> None:
    """Draw the loss difference of every step on a logarithmic scale."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    for source, values in differences.items():
        axes.semilogy(np.where(values > 0, values, np.nan), lw=0.7, label=f"masks of {source}")
    axes.set(
        xlabel="step",
        ylabel="|torch loss - JAX loss|",
        title=f"Same weights, batches and masks in {dtype}",
    )
    axes.legend()
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=120)
    plt.close(figure)


def compare(flags: LockstepConfig, config: Config, data: Data) -> bool:
    """Print a table for each source of masks. Return False if float64 differs by too much."""
    plt = pyplot(flags.plot) if flags.plot else None
    print(f"{data.name}: {data.images} images; {config.epochs} epochs in {config.dtype}")
    losses: dict[str, np.ndarray] = {}
    good = True
    for source in ("jax", "torch") if flags.masks == "both" else (flags.masks,):
        print(f"\nmasks drawn by {source}, used by both")
        print("epoch   torch, last loss     JAX, last loss    max |difference|  NumPy difference")
        found = lockstep(config, data, source, lambda line: print(line, flush=True))
        losses[source] = found.loss_per_step
        apart = np.flatnonzero(found.loss_per_step > VISIBLE)
        print(f"max |weight difference| = {found.weights:.3e}")
        print(f"max |logit difference to NumPy| = {found.numpy:.3e}")
        print("correct test images: torch {}, JAX {}, NumPy {}".format(*found.correct))
        if len(apart):
            print(f"the losses first differ by more than {VISIBLE:g} at step {apart[0]}")
        good &= max(found.loss_per_step.max(), found.numpy) <= LOSS_LIMIT
        good &= found.weights <= WEIGHT_LIMIT and len(set(found.correct)) == 1
    if plt and flags.plot:
        draw_plot(plt, losses, config.dtype, flags.plot)
    print(f"\nmax |loss difference| = {max(values.max() for values in losses.values()):.3e}")
    return good or config.dtype == "float32"


def main(args: Sequence[str] | None = None) -> None:
    """Print the tables. Exit with status 1 if float64 differs by too much."""
    with one_line_errors():
        flags = parse(LockstepConfig, "experiments.lockstep", args)
        settings = {k: v for k, v in vars(flags).items() if k not in ("masks", "plot")}
        config = Config(**settings)
        good = compare(flags, config, load(flags.data))
    if not good:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
