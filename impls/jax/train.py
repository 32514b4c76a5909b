"""Train the network on Fashion-MNIST, in JAX and Flax.

python -m impls.jax.train                       # the article's settings, into runs/jax
python -m impls.jax.train --p1 0 --p2 0 --out runs/no-dropout
python -m impls.jax.train --resume              # go on with a run that was stopped
python -m impls.jax.train --help
"""

import math
import time
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from impls.jax.device import use
from impls.jax.evaluate import Labels, count_correct, cross_entropy, evaluate
from impls.jax.mlp import MLP, Inputs, Masks
from shared.config import Config
from shared.randomness import epoch_order
from shared.records import EpochRecord, epoch_record
from shared.run import Run

Data = tuple[Array, ...]  # images and labels for training, then those for the test
Results = tuple[Float[Array, "*steps"], Int[Array, "*steps"]]


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

    # has_aux: the logits are returned, too, and not differentiated.
    (loss, logits), gradients = nnx.value_and_grad(loss_and_logits, has_aux=True)(model)
    optimizer.update(model, gradients)
    return loss, count_correct(logits, labels)


def train_epoch(
    model: nnx.Module, optimizer: nnx.Optimizer, data: Data, config: Config, epoch: int
) -> Results:
    """Visit every training example once, in an order drawn anew, the short last batch included.

    Args:
        model, optimizer: changed in place.
        data: images and labels, on the device.
        config: for the seed and the size of a batch.
        epoch: counted from 1. It and the seed determine the order and the masks.

    Returns:
        Mean loss and number of correct examples of each step.
    """
    images, labels, *_ = data
    order = jnp.asarray(epoch_order(len(images), seed=config.seed, epoch=epoch))
    # Steps are counted over the run: each has masks of its own.
    first_step = (epoch - 1) * math.ceil(len(order) / config.batch_size)
    key = jax.random.key(config.seed)
    return _scan(model, optimizer, images, labels, order, key, first_step, config.batch_size)


# DIFF loop: compiled once, and again for another shape or p. All arrays are arguments: others would
# be compiled in as constants. A process that trains hundreds of different networks has to call
# jax.clear_caches() now and then: JAX keeps all that it compiled.
@nnx.jit(static_argnames="batch_size")
def _scan(model, optimizer, images, labels, order, key, first_step, batch_size):
    """Take all steps of an epoch, as `train_epoch`."""
    graph, state = nnx.split((model, optimizer))  # DIFF state: scan passes it from step to step

    def one_step(state, step_and_batch):
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
    nnx.update((model, optimizer), state)  # in place, as in PyTorch
    return losses, correct


def train(
    model: nnx.Module,
    optimizer: nnx.Optimizer,
    data: Data,
    config: Config,
    first_epoch: int = 1,
) -> Iterator[EpochRecord]:
    """Train until the last epoch, and yield a record of each. Stop early by leaving the loop.

    Args:
        model, optimizer: changed in place. Between two epochs, the caller may change them, too: for
            example `model.dropout_1.p`. The model is in training mode, as every new one is.
        data: images and labels, on the device.
        config: for the seed, the size of a batch and the number of epochs.
        first_epoch: 1, unless the weights are those of a run that was stopped.

    Raises:
        DivergedError: a loss is infinite or not a number.
    """
    images, _, test_images, test_labels = data
    for epoch in range(first_epoch, config.epochs + 1):
        started = time.perf_counter()
        results = train_epoch(model, optimizer, data, config, epoch)
        losses, correct = (np.asarray(result) for result in results)  # waits for the device
        seconds = time.perf_counter() - started
        scores = evaluate(model, test_images, test_labels)
        n = len(images)
        yield epoch_record(epoch, losses, correct, scores, n, config.batch_size, seconds)


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, train, print a line per epoch, write the log and the weights."""
    with Run("jax", args) as run:
        config = run.config
        device = use(config.device, config.dtype, config.precision)
        data = tuple(jnp.asarray(array, device=device) for array in run.arrays)
        model = MLP.from_config(config, inputs=data[0].shape[1])
        optimizer = nnx.Optimizer(model, optax.sgd(config.lr), wrt=nnx.Param)
        first_epoch = run.restore(model, device)
        for record in train(model, optimizer, data, config, first_epoch):
            run.save(record, model)


if __name__ == "__main__":
    main()
