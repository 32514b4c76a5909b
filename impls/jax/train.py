"""Train the network on Fashion-MNIST, in JAX and Flax.

python -m impls.jax.train --help
"""

import math
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from impls.jax.evaluate import Labels, count_correct, cross_entropy, evaluate
from impls.jax.mlp import MLP, Inputs, Masks
from impls.jax.parallel import distribute, join
from impls.jax.runtime import compiled_code_on_disk, describe, runtime
from shared.cli import train_main
from shared.config import Config, ParallelConfig
from shared.data import Data, load, to_arrays
from shared.randomness import epoch_order
from shared.records import EpochRecord, OnEpoch, TrainResult, check_finite, epoch_record

Results = tuple[Float[Array, "*steps"], Int[Array, "*steps"]]

# DIFF learning rate: `optax.sgd(lr)` would be compiled for each lr. Here lr is a part of the state.
SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.0)


def make_optimizer(model: nnx.Module, lr: float) -> nnx.Optimizer:
    """Return stochastic gradient descent, without momentum or weight decay."""
    optimizer = nnx.Optimizer(model, SGD, wrt=nnx.Param)
    optimizer.opt_state.hyperparams["learning_rate"][...] = lr
    return optimizer


def train_step(
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    images: Inputs,
    labels: Labels,
    *,
    key: Array | None = None,
    keep: Masks | None = None,
) -> Results:
    """Take one step of gradient descent on one batch.

    Args:
        model, optimizer: changed in place.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.
        key: the source of both masks.
        keep: two masks to use instead of drawing them.

    Returns:
        Mean loss of the batch and number of correct examples, before the step, dropout on.
    """

    # DIFF gradient: JAX differentiates functions, so the forward pass is written as one.
    def loss_and_logits(model: nnx.Module) -> tuple[Array, Array]:
        logits = model(images, key=key, keep=keep)
        return cross_entropy(logits, labels), logits

    (loss, logits), gradients = nnx.value_and_grad(loss_and_logits, has_aux=True)(model)
    optimizer.update(model, gradients)
    return loss, count_correct(logits, labels)


@nnx.jit(static_argnames="batch_size")  # DIFF loop: compiled for each new shape or p
def train_epoch(
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    images: Inputs,
    labels: Labels,
    order: Int[Array, " examples"],
    key: Array,  # DIFF randomness: a key made from the seed
    first_step: int,
    batch_size: int,
) -> Results:
    """Visit every example once, in the order given, the short last batch included.

    Args:
        model, optimizer: changed in place.
        images, labels: all of them, on the device.
        order: which examples come first, second, ...
        key: key of the run.
        first_step: how many steps the run took before this epoch.
        batch_size: examples in a step.

    Returns:
        Mean loss and number of correct examples of each step.
    """
    graph, state = nnx.split((model, optimizer))  # DIFF state: scan passes it from step to step

    def one_step(state: nnx.State, step_and_batch: tuple[Array, Array]):
        step, batch = step_and_batch
        model, optimizer = nnx.merge(graph, state)
        step_key = jax.random.fold_in(key, step)  # DIFF randomness: a key for each step
        result = train_step(model, optimizer, images[batch], labels[batch], key=step_key)
        return nnx.state((model, optimizer)), result

    # DIFF loop: one compiled loop over all full batches. The short batch has another shape.
    full = len(order) // batch_size
    batches = order[: full * batch_size].reshape(full, batch_size)
    steps = first_step + jnp.arange(full, dtype=jnp.uint32)
    state, (losses, correct) = jax.lax.scan(one_step, state, (steps, batches))
    if rest := len(order) % batch_size:
        state, (loss, count) = one_step(state, (first_step + jnp.uint32(full), order[-rest:]))
        losses, correct = jnp.append(losses, loss), jnp.append(correct, count)
    nnx.update((model, optimizer), state)
    return losses, correct


def train(
    config: Config,
    data: Data | None = None,
    on_epoch: OnEpoch | None = None,
    start: TrainResult | None = None,
) -> TrainResult:
    """Train a network, printing nothing and writing nothing.

    Args:
        config: every setting. `config.out` is not used.
        data: what `load(config.data)` returned, for callers who train more than once.
        on_epoch: called with the record of each epoch and a function that returns the weights.
            Training ends early if it returns True.
        start: where a run of the same settings stood at the end of an epoch, to go on from there.

    Returns:
        The records and the final weights.

    Raises:
        DivergedError: a loss is infinite or not a number.
    """
    data = data or load(config.data, resize=config.resize)
    with runtime(config):  # DIFF device: JAX's default inside this block
        images, labels, test_images, test_labels = map(jnp.asarray, to_arrays(data, config.dtype))
        n, inputs = images.shape
        sizes = (inputs, config.hidden_1, config.hidden_2, 10)
        model = MLP(*sizes, config.p1, config.p2, seed=config.seed, dtype=config.dtype)
        network = distribute(model)  # the model itself, or one whose batches are shared
        optimizer = make_optimizer(network, config.lr)
        key = jax.random.key(config.seed)
        history: list[EpochRecord] = []
        if start:
            model.set_weights(start.weights)
            history = list(start.history)
        steps = len(history) * math.ceil(n / config.batch_size)
        for epoch in range(len(history) + 1, config.epochs + 1):
            started = time.perf_counter()
            order = jnp.asarray(epoch_order(n, seed=config.seed, epoch=epoch))
            results = train_epoch(
                network, optimizer, images, labels, order, key, steps, config.batch_size
            )
            losses, correct = (np.asarray(result) for result in results)  # waits for the device
            seconds = time.perf_counter() - started
            check_finite(losses, epoch, steps)
            scores = evaluate(model, test_images, test_labels)
            record = epoch_record(epoch, losses, correct, scores, n, config.batch_size, seconds)
            history.append(record)
            steps += len(losses)
            if on_epoch and on_epoch(record, model.get_weights):
                break
        return TrainResult(history, model.get_weights())


def main() -> None:
    """Read the command line, train, print a line per epoch, write the log and the weights."""
    with compiled_code_on_disk():  # DIFF loop: compiled code is kept, it took seconds
        train_main("jax", train, describe, join, ParallelConfig)


if __name__ == "__main__":
    main()
