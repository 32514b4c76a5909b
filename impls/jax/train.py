"""Train the network on Fashion-MNIST, in JAX and Flax.

python -m impls.jax.train --help
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float, Int

from impls.jax.evaluate import choose_device, count_correct, cross_entropy, evaluate
from impls.jax.mlp import MLP
from shared.config import Config
from shared.data import Data, cache_folder, load, to_inputs
from shared.randomness import epoch_order
from shared.runs import TrainResult, epoch_record, train_main

PRECISION = {"highest": "highest", "high": "high", "medium": "default"}  # DIFF: JAX's own names


def train_step(
    model: MLP,
    optimizer: nnx.Optimizer,
    images: Float[Array, "batch inputs"],
    labels: Int[Array, " batch"],
    *,
    key: Array | None = None,
    keep: tuple[Bool[Array, "batch hidden1"], Bool[Array, "batch hidden2"]] | None = None,
) -> tuple[Float[Array, ""], Int[Array, ""]]:
    """Take one step of gradient descent on one batch.

    Args:
        model, optimizer: changed in place.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.
        key: the source of both masks.
        keep: the two masks ready-made, instead of a key.

    Returns:
        Mean loss of the batch and number of correct examples, before the step, dropout on.
    """

    def loss_and_logits(model: MLP) -> tuple[Array, Array]:
        logits = model(images, key=key, keep=keep)
        return cross_entropy(logits, labels), logits

    (loss, logits), gradients = nnx.value_and_grad(loss_and_logits, has_aux=True)(model)
    optimizer.update(model, gradients)
    return loss, count_correct(logits, labels)


@nnx.jit(static_argnames="batch_size")
def train_epoch(
    model: MLP,
    optimizer: nnx.Optimizer,
    images: Float[Array, "n inputs"],
    labels: Int[Array, " n"],
    order: Int[Array, " n"],
    *,
    seed: np.uint32,
    first_step: np.uint32,
    batch_size: int,
) -> tuple[Float[Array, " steps"], Int[Array, " steps"]]:
    """Visit every example once, in the order given, the short last batch included.

    Args:
        model, optimizer: changed in place.
        images, labels: all of them, on the device.
        order: which examples come first, second, ...
        seed: of the run.
        first_step: how many steps the run took before this epoch.
        batch_size: examples in a step.

    Returns:
        Mean loss of each step and number of correct examples of each step.
    """
    key = jax.random.key(seed)
    # DIFF: inside jit values do not change; the state goes into a step and a new one comes out.
    graph, state = nnx.split((model, optimizer))

    def one_step(state: nnx.State, step_and_batch: tuple[Array, Array]):
        step, batch = step_and_batch
        model, optimizer = nnx.merge(graph, state)
        loss, right = train_step(
            model, optimizer, images[batch], labels[batch], key=jax.random.fold_in(key, step)
        )
        return nnx.state((model, optimizer)), (loss, right)

    # DIFF: one compiled loop over the full batches, which have one shape; the short one after it.
    full = len(order) // batch_size
    batches = order[: full * batch_size].reshape(full, batch_size)
    steps = first_step + jnp.arange(full, dtype=np.uint32)
    state, (losses, correct) = jax.lax.scan(one_step, state, (steps, batches))
    if rest := len(order) % batch_size:
        state, (loss, right) = one_step(state, (jnp.uint32(first_step + full), order[-rest:]))
        losses, correct = jnp.append(losses, loss), jnp.append(correct, right)
    nnx.update((model, optimizer), state)
    return losses, correct


@functools.cache  # compiled code is found again by the identity of its optimizer
def sgd(lr: float) -> optax.GradientTransformation:
    """Return plain stochastic gradient descent, the same object for the same lr."""
    return optax.sgd(lr)


def train(
    config: Config,
    data: Data | None = None,
    on_epoch: Callable[[dict[str, Any]], None] | None = None,
) -> TrainResult:
    """Train a network, printing nothing and writing nothing.

    Args:
        config: every setting; `config.out` is not used.
        data: what `load(config.data)` gave, for callers who train more than once.
        on_epoch: called with the record of each epoch when it ends.

    Returns:
        The records and the final weights.
    """
    data = data or load(config.data, resize=config.resize)
    # DIFF: JAX has float64 only where it is asked for.
    with (
        jax.default_device(choose_device(config.device)),
        jax.enable_x64(config.dtype == "float64"),
        jax.default_matmul_precision(PRECISION[config.precision]),
    ):
        return _train(config, data, on_epoch)


def _train(config: Config, data: Data, on_epoch: Callable[[dict[str, Any]], None] | None):
    images = jnp.asarray(to_inputs(data.train_images), config.dtype)
    labels = jnp.asarray(data.train_labels)
    test_images = jnp.asarray(to_inputs(data.test_images), config.dtype)
    test_labels = jnp.asarray(data.test_labels)
    n, inputs = images.shape
    sizes, rates = (inputs, config.hidden1, config.hidden2, 10), (config.p1, config.p2)
    model = MLP(*sizes, *rates, seed=config.seed, dtype=config.dtype)
    optimizer = nnx.Optimizer(model, sgd(config.lr), wrt=nnx.Param)
    history = []
    steps = 0
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        order = jnp.asarray(epoch_order(n, seed=config.seed, epoch=epoch))
        # DIFF: numbers of a fixed width are arguments of the compiled code, not parts of it.
        seed, first_step = np.uint32(config.seed), np.uint32(steps)
        settings: dict[str, Any] = {
            "seed": seed,
            "first_step": first_step,
            "batch_size": config.batch_size,
        }
        step_losses, step_correct = train_epoch(model, optimizer, images, labels, order, **settings)
        # This waits until the device is done.
        losses, correct = np.asarray(step_losses), np.asarray(step_correct)
        seconds = time.perf_counter() - started
        test = evaluate(model, test_images, test_labels)
        record = epoch_record(
            epoch, losses, correct, test, n=n, batch_size=config.batch_size, seconds=seconds
        )
        steps += len(losses)
        history.append(record)
        if on_epoch:
            on_epoch(record)
    return TrainResult(history, model.get_weights())


def keep_compiled_code() -> None:
    """Keep on disk what XLA compiles, so that the next start of this program need not wait."""
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    with contextlib.suppress(OSError):
        (folder := cache_folder() / "jax").mkdir(parents=True, exist_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def main() -> None:
    """Read the command line, train, print a line per epoch, write the log and the weights."""
    keep_compiled_code()
    train_main("jax", ("jax", "jaxlib", "flax", "optax"), train, choose_device)


if __name__ == "__main__":
    main()
