"""Train PyTorch and JAX side by side, on the same masks, and see how far they drift apart.

python -m experiments.lockstep --epochs 10 --dtype float64

Both start from the same weights and see the same batches in any case. Here both also get the same
masks: one of the two frameworks draws each mask, and both apply it. A second run takes the masks of
the other framework. The steps are the real `train_step` of both.

NumPy takes part, too. At the start of each epoch it replays both masks of the first step, which
must be equal bit for bit. After each epoch it computes the logits of both networks under replayed
masks, and the largest difference is printed.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import impls.jax.evaluate
import impls.jax.mlp
import impls.jax.train
import impls.numpy.evaluate
import impls.numpy.mlp
import impls.torch.evaluate
import impls.torch.mlp
import impls.torch.train
from impls.jax.dropout import sample_keep as jax_sample_keep
from impls.numpy import prng
from impls.numpy.dropout import sample_keep as numpy_sample_keep
from impls.torch.dropout import sample_keep as torch_sample_keep
from shared.checks import InputError
from shared.cli import one_line_errors, parse, show
from shared.config import Config
from shared.data import Data, load, to_inputs
from shared.files import check_writable
from shared.randomness import epoch_order, step_seed

LOSS_LIMIT, WEIGHT_LIMIT = 1e-12, 1e-10  # the largest differences allowed in float64
VISIBLE = 1e-3  # a loss difference worth reporting

Masks = tuple[Any, Any]  # of the two hidden layers


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


def masks_of_jax(config: Config, shapes: list[tuple[int, int]], step: int) -> Masks:
    """Draw the masks of a step as impls/jax does."""
    key = jax.random.fold_in(jax.random.key(config.seed), np.uint32(step))
    key_1, key_2 = jax.random.split(key)
    keep_1 = jax_sample_keep(shapes[0], config.p1, key=key_1)
    return np.asarray(keep_1), np.asarray(jax_sample_keep(shapes[1], config.p2, key=key_2))


def masks_of_torch(config: Config, shapes: list[tuple[int, int]], step: int) -> Masks:
    """Draw the masks of a step as impls/torch does."""
    generator = torch.Generator().manual_seed(step_seed(config.seed, step))
    keep_1 = torch_sample_keep(shapes[0], config.p1, generator=generator)
    return keep_1.numpy(), torch_sample_keep(shapes[1], config.p2, generator=generator).numpy()


def masks_of_numpy(config: Config, shapes: list[tuple[int, int]], step: int, source: str) -> Masks:
    """Replay the masks of a step in NumPy, those of `source`, which is jax or torch."""
    rng_1: prng.Source
    rng_2: prng.Source
    if source == "jax":
        rng_1, rng_2 = prng.split(prng.fold_in(prng.key(config.seed), step))
    else:
        rng_1 = rng_2 = prng.Generator().manual_seed(step_seed(config.seed, step))
    keep_1 = numpy_sample_keep(shapes[0], config.p1, rng=rng_1)
    return keep_1, numpy_sample_keep(shapes[1], config.p2, rng=rng_2)


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
    """
    draw = {"jax": masks_of_jax, "torch": masks_of_torch}[source]
    images = to_inputs(data.train_images, config.dtype)
    test_images, test_labels = to_inputs(data.test_images, config.dtype), data.test_labels
    sizes = (images.shape[1], config.hidden_1, config.hidden_2)

    layers = (*sizes, 10, config.p1, config.p2)
    torch_model = impls.torch.mlp.MLP(*layers, seed=config.seed, dtype=config.dtype)
    jax_model = impls.jax.mlp.MLP(*layers, seed=config.seed, dtype=config.dtype)
    numpy_model = impls.numpy.mlp.MLP(*layers, seed=config.seed, dtype=config.dtype)
    torch_optimizer = impls.torch.train.make_optimizer(torch_model, config.lr)
    jax_optimizer = impls.jax.train.make_optimizer(jax_model, config.lr)
    jax_step = nnx.jit(impls.jax.train.train_step)

    differences: list[float] = []
    worst_numpy = 0.0
    for epoch in range(1, config.epochs + 1):
        order = epoch_order(len(images), seed=config.seed, epoch=epoch)
        first = len(differences)
        for start in range(0, len(order), config.batch_size):
            batch = order[start : start + config.batch_size]
            step = len(differences)
            shapes = [(len(batch), width) for width in sizes[1:]]
            keep = draw(config, shapes, step)
            if step == first:
                replayed = masks_of_numpy(config, shapes, step, source)
                for mask, again in zip(keep, replayed, strict=True):
                    np.testing.assert_array_equal(mask, again)
            torch_loss, _ = impls.torch.train.train_step(
                torch_model,
                torch_optimizer,
                torch.from_numpy(images[batch]),
                torch.from_numpy(data.train_labels[batch]),
                keep=to_torch(keep),
            )
            jax_loss, _ = jax_step(
                jax_model, jax_optimizer, images[batch], data.train_labels[batch], keep=keep
            )
            differences.append(abs(torch_loss.item() - jax_loss.item()))

        # NumPy replays two masks, and computes the logits of both frameworks' weights under them.
        shapes = [(len(test_images), width) for width in sizes[1:]]
        keep = masks_of_numpy(config, shapes, len(differences), source)
        torch_logits = torch_model(torch.from_numpy(test_images), keep=to_torch(keep))
        jax_logits = jax_model(jnp.asarray(test_images), keep=keep)
        logit_difference = 0.0
        for weights, logits in (
            (torch_model.get_weights(), torch_logits.detach().numpy()),
            (jax_model.get_weights(), np.asarray(jax_logits)),
        ):
            numpy_model.set_weights(weights)
            numpy_logits = numpy_model(test_images, training=True, keep=keep)
            difference = float(np.abs(numpy_logits - logits).max())
            logit_difference = max(logit_difference, difference)
        worst_numpy = max(worst_numpy, logit_difference)
        on_epoch(
            f"{epoch:5}  {torch_loss.item():17.12f}  {jax_loss.item():17.12f}"
            f"  {max(differences[first:]):16.3e}  {logit_difference:16.3e}"
        )

    torch_weights, jax_weights = torch_model.get_weights(), jax_model.get_weights()
    numpy_model.set_weights(torch_weights)
    scores = (
        impls.torch.evaluate.evaluate(
            torch_model, torch.from_numpy(test_images), torch.from_numpy(test_labels)
        ),
        impls.jax.evaluate.evaluate(jax_model, jnp.asarray(test_images), jnp.asarray(test_labels)),
        impls.numpy.evaluate.evaluate(numpy_model, test_images, test_labels),
    )
    torch_correct, jax_correct, numpy_correct = (
        round(accuracy * len(test_labels)) for _, accuracy in scores
    )
    return Difference(
        np.array(differences),
        max(float(np.abs(torch_weights[n] - jax_weights[n]).max()) for n in torch_weights),
        worst_numpy,
        (torch_correct, jax_correct, numpy_correct),
    )


def plot(differences: dict[str, np.ndarray], dtype: str, path: Path) -> None:
    """Draw the loss difference of every step on a logarithmic scale."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4), layout="constrained")
    for source, values in differences.items():
        axes.semilogy(np.where(values > 0, values, np.nan), lw=0.7, label=f"masks of {source}")
    axes.set(
        xlabel="step",
        ylabel="|torch loss - JAX loss|",
        title=f"Same weights, batches and masks in {dtype}",
    )
    axes.legend()
    axes.grid(alpha=0.3)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise InputError(f"cannot write the plot {path}: {error.strerror or error}") from None
    pyplot.close(figure)


def main() -> None:
    """Print a table for each source of masks. The last line is the largest loss difference."""
    with one_line_errors():
        flags = parse(LockstepConfig, "experiments.lockstep")
        config = Config(
            epochs=flags.epochs,
            batch_size=flags.batch_size,
            lr=flags.lr,
            hidden_1=flags.hidden_1,
            hidden_2=flags.hidden_2,
            seed=flags.seed,
            dtype=flags.dtype,
        )
        data = load(flags.data)
        if flags.plot:
            check_plot(flags.plot)
        run(flags, config, data)


def check_plot(path: Path) -> None:
    """Make the folder of the plot, and see before hours of work that we can write there.

    Raises:
        InputError: we cannot, or the name does not end in .png or .svg.
    """
    if path.suffix not in (".png", ".svg"):
        raise InputError(f"plot must end in .png or .svg, got {path}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_writable(path)
    except OSError as error:
        raise InputError(f"cannot write the plot {path}: {error.strerror or error}") from None


def run(flags: LockstepConfig, config: Config, data: Data) -> None:
    """Print the tables, and draw the plot. Exit with status 1 if float64 differs by too much."""
    show(f"{data.summary}; {config.epochs} epochs in {config.dtype}")
    losses: dict[str, np.ndarray] = {}
    within_limits = True
    for source in ("jax", "torch") if flags.masks == "both" else (flags.masks,):
        show(f"\nmasks drawn by {source}, used by both")
        show("epoch   torch, last loss     JAX, last loss    max |difference|  NumPy difference")
        with jax.enable_x64(config.dtype == "float64"):
            difference = lockstep(config, data, source, show)
        losses[source] = difference.loss_per_step
        apart = np.flatnonzero(difference.loss_per_step > VISIBLE)
        show(f"max |weight difference| = {difference.weights:.3e}")
        show(f"max |logit difference to NumPy| = {difference.numpy:.3e}")
        show("correct test images: torch {}, JAX {}, NumPy {}".format(*difference.correct))
        if len(apart):
            show(f"the losses first differ by more than {VISIBLE:g} at step {apart[0]}")
        within_limits &= (
            difference.loss_per_step.max() <= LOSS_LIMIT
            and difference.weights <= WEIGHT_LIMIT
            and difference.numpy <= LOSS_LIMIT
        )
        within_limits &= len(set(difference.correct)) == 1
    if flags.plot:
        plot(losses, config.dtype, flags.plot)
    show(f"\nmax |loss difference| = {max(values.max() for values in losses.values()):.3e}")
    if config.dtype == "float64" and not within_limits:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
