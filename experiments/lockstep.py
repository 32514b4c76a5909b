"""Train PyTorch and JAX side by side, on the same masks, and see how far they part.

python -m experiments.lockstep --epochs 10 --dtype float64

Both start from the same weights and see the same batches anyway. Here, every mask is drawn once,
by one framework's own source, and given to both; then the run is repeated with the other's
source. The steps are the real `train_step` of both. At the start of each epoch NumPy replays the
epoch's first mask bit for bit, and after each epoch computes the forward pass of both frameworks'
weights under masks that it replays, too.
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
from shared.config import Config, InputError, one_line_errors, parse
from shared.data import Data, load, to_inputs
from shared.randomness import epoch_order, step_seed

LOSS_LIMIT, WEIGHT_LIMIT = 1e-12, 1e-10  # what is promised in float64
PARTED = 1e-3  # a loss difference that shows in a log

Masks = tuple[Any, Any]  # of the two hidden layers


@dataclasses.dataclass(frozen=True)
class LockstepConfig:
    """Train PyTorch and JAX in lockstep, with NumPy looking on."""

    epochs: int = 10
    """Passes over the training data."""
    dtype: Literal["float32", "float64"] = "float64"
    """float64 shows that the two are one, float32 how rounding drives them apart."""
    masks: Literal["jax", "torch", "both"] = "both"
    """Whose random source draws the masks for both; both: one run with each."""
    batch_size: int = 256
    """Examples in a step."""
    lr: float = 0.5
    """Learning rate of plain SGD."""
    hidden1: int = 256
    """Units in the first hidden layer."""
    hidden2: int = 256
    """Units in the second hidden layer."""
    seed: int = 0
    """Of the weights, the batch order and the masks."""
    data: str = "auto"
    """full, sample, auto, or a folder of four IDX files."""
    plot: Path | None = None
    """Where to save a plot of the difference at each step (.png or .svg)."""


class Difference(NamedTuple):
    """The largest differences found in one run."""

    loss_per_step: np.ndarray
    weights: float
    numpy: float
    correct: tuple[int, int, int]  # test images, by torch, JAX and NumPy (on torch's weights)


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
    """Replay the masks of a step, of either source, without either framework."""
    rng: prng.Source
    if source == "jax":
        rng = prng.fold_in(prng.key(config.seed), step)
    else:
        rng = prng.Generator().manual_seed(step_seed(config.seed, step))
    rng_1, rng_2 = prng.for_layers(rng, 2)
    keep_1 = numpy_sample_keep(shapes[0], config.p1, rng=rng_1)
    return keep_1, numpy_sample_keep(shapes[1], config.p2, rng=rng_2)


def to_torch(keep: Masks) -> Masks:
    """Make tensors of NumPy masks."""
    return torch.tensor(keep[0]), torch.tensor(keep[1])


def lockstep(config: Config, data: Data, source: str, on_epoch: Callable[[str], Any]) -> Difference:
    """Train both frameworks on the masks of one source.

    Args:
        config: of the run; precision, sizes, seed, rates.
        data: Fashion-MNIST.
        source: whose masks, `jax` or `torch`.
        on_epoch: called with a line for each epoch.
    """
    draw = {"jax": masks_of_jax, "torch": masks_of_torch}[source]
    images = to_inputs(data.train_images).astype(config.dtype)
    test_images, test_labels = to_inputs(data.test_images).astype(config.dtype), data.test_labels
    sizes = (images.shape[1], config.hidden1, config.hidden2)

    make: dict[str, Any] = {
        "p1": config.p1,
        "p2": config.p2,
        "seed": config.seed,
        "dtype": config.dtype,
    }
    torch_model = impls.torch.mlp.MLP(*sizes, **make)
    jax_model = impls.jax.mlp.MLP(*sizes, **make)
    numpy_model = impls.numpy.mlp.MLP(*sizes, **make)
    torch_optimizer = impls.torch.train.SGD(torch_model.parameters(), lr=config.lr)
    jax_optimizer = nnx.Optimizer(jax_model, impls.jax.train.sgd(config.lr), wrt=nnx.Param)
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

        # NumPy computes what both frameworks' weights give under masks that it replays itself.
        shapes = [(len(test_images), width) for width in sizes[1:]]
        keep = masks_of_numpy(config, shapes, len(differences), source)
        torch_logits = torch_model(torch.from_numpy(test_images), keep=to_torch(keep))
        jax_logits = jax_model(jnp.asarray(test_images), keep=keep)
        forward = 0.0
        for weights, logits in (
            (torch_model.get_weights(), torch_logits.detach().numpy()),
            (jax_model.get_weights(), np.asarray(jax_logits)),
        ):
            numpy_model.set_weights(weights)
            ours = numpy_model(test_images, training=True, keep=keep)
            forward = max(forward, float(np.abs(ours - logits).max()))
        worst_numpy = max(worst_numpy, forward)
        on_epoch(
            f"{epoch:5}  {torch_loss.item():17.12f}  {jax_loss.item():17.12f}"
            f"  {max(differences[first:]):16.3e}  {forward:15.3e}"
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
    torch_right, jax_right, numpy_right = (round(a * len(test_labels)) for _, a in scores)
    return Difference(
        np.array(differences),
        max(float(np.abs(torch_weights[n] - jax_weights[n]).max()) for n in torch_weights),
        worst_numpy,
        (torch_right, jax_right, numpy_right),
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
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def main() -> None:
    """Print a table per source of masks, and the largest loss difference of all as last line."""
    with one_line_errors():
        flags = parse(LockstepConfig)
        config = Config(
            epochs=flags.epochs,
            batch_size=flags.batch_size,
            lr=flags.lr,
            hidden1=flags.hidden1,
            hidden2=flags.hidden2,
            seed=flags.seed,
            dtype=flags.dtype,
        )
        data = load(flags.data)
        if flags.plot and flags.plot.suffix not in (".png", ".svg"):
            raise InputError(f"plot must end in .png or .svg, got {flags.plot}")
    print(f"{data.source}; {config.epochs} epochs in {config.dtype}")
    losses: dict[str, np.ndarray] = {}
    kept = True
    for source in ("jax", "torch") if flags.masks == "both" else (flags.masks,):
        print(f"\nmasks drawn by {source}, used by both")
        print("epoch    torch, last loss     JAX, last loss   max |difference|  NumPy's forward")
        with jax.enable_x64(config.dtype == "float64"):
            found = lockstep(config, data, source, print)
        losses[source] = found.loss_per_step
        apart = np.flatnonzero(found.loss_per_step > PARTED)
        print(f"max |weight difference| = {found.weights:.3e}")
        print(f"max |logit difference to NumPy| = {found.numpy:.3e}")
        print("correct test images: torch {}, JAX {}, NumPy {}".format(*found.correct))
        if len(apart):
            print(f"losses differ by more than {PARTED:g} from step {apart[0]} on")
        kept &= found.loss_per_step.max() <= LOSS_LIMIT and found.weights <= WEIGHT_LIMIT
        kept &= len(set(found.correct)) == 1
    if flags.plot:
        plot(losses, config.dtype, flags.plot)
    print(f"\nmax |loss difference| = {max(values.max() for values in losses.values()):.3e}")
    if config.dtype == "float64" and not kept:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
