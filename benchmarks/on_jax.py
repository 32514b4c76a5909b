"""The programs in JAX: our implementation, its floor, and the dropout and loop of flax.nnx."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import impls.jax.dropout
from benchmarks.programs import Run, Setting, products
from impls.jax.device import use
from impls.jax.mlp import MLP
from impls.jax.train import Data, train, train_epoch
from shared.randomness import epoch_order


def _set_up(setting: Setting) -> tuple[MLP, nnx.Optimizer, Data]:
    """Return what `train` and `train_epoch` need: the model, the optimizer and the data."""
    use(setting.device, setting.dtype, setting.precision)
    model = MLP.from_config(setting, inputs=784)
    optimizer = nnx.Optimizer(model, optax.sgd(setting.lr), wrt=nnx.Param)
    return model, optimizer, tuple(jnp.asarray(array) for array in setting.arrays())


# Training


def epoch(setting: Setting) -> Run:
    """An epoch of our implementation, as `train` runs it."""
    model, optimizer, data = _set_up(setting)
    return lambda i: train_epoch(model, optimizer, data, setting, 1 + i)


def accuracies(setting: Setting) -> Iterator[float]:
    """Train, and yield the test accuracy after each epoch."""
    return (record["test_accuracy"] for record in train(*_set_up(setting), setting))


def floor(setting: Setting) -> Run:
    """Only the eight matrix products of each step, in one compiled loop."""
    use(setting.device, setting.dtype, setting.precision)
    x, *weights = map(jnp.asarray, setting.factors())
    steps = setting.number_of_steps()

    # XLA would remove products that nothing uses, so the gradients of a step become the weights of
    # the next one.
    @jax.jit
    def run(x: Array, weights: list[Array]) -> list[Array]:
        return jax.lax.scan(lambda w, _: (products(x, w), None), weights, length=steps)[0]

    return lambda _: run(x, weights)


class Net(nnx.Module):
    """The network as a usual flax.nnx program defines it."""

    def __init__(self, p1: float, p2: float, rngs: nnx.Rngs) -> None:
        self.linear_1 = nnx.Linear(784, 256, rngs=rngs)
        self.linear_2 = nnx.Linear(256, 256, rngs=rngs)
        self.linear_3 = nnx.Linear(256, 10, rngs=rngs)
        self.dropout_1 = nnx.Dropout(p1, rngs=rngs)
        self.dropout_2 = nnx.Dropout(p2, rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Compute the logits."""
        h1 = self.dropout_1(nnx.relu(self.linear_1(x)))
        h2 = self.dropout_2(nnx.relu(self.linear_2(h1)))
        return self.linear_3(h2)


def framework_loop(setting: Setting) -> Run:
    """A usual flax.nnx program: a Python loop over a compiled step, nnx.Dropout, metrics."""
    use(setting.device, setting.dtype, setting.precision)

    @nnx.jit
    def step(
        model: Net, optimizer: nnx.Optimizer, metrics: nnx.MultiMetric, x: Array, y: Array
    ) -> None:
        def loss_and_logits(model: Net) -> tuple[Array, Array]:
            logits = model(x)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            return loss, logits

        (loss, logits), gradients = nnx.value_and_grad(loss_and_logits, has_aux=True)(model)
        metrics.update(loss=loss, logits=logits, labels=y)
        optimizer.update(model, gradients)

    images, labels, *_ = setting.arrays()
    labels = labels.astype(np.int32)
    model = Net(setting.p1, setting.p2, nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(setting.lr), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))

    def run(i: int) -> Any:
        order = epoch_order(len(images), seed=0, epoch=i)
        for start in range(0, len(order), 256):
            batch = order[start : start + 256]
            step(model, optimizer, metrics, images[batch], labels[batch])
        results = metrics.compute()
        metrics.reset()
        return results

    return run


# Dropout alone, compiled, forward and backward, with p = 0.5


def dropout(setting: Setting) -> Run:
    """Our dropout."""

    def ours(x: Array, key: Array) -> Array:
        return impls.jax.dropout.dropout(x, 0.5, training=True, key=key)

    return _forward_and_backward(ours, setting)


def framework_dropout(setting: Setting) -> Run:
    """Flax's own dropout."""
    layer = nnx.Dropout(0.5, deterministic=False)
    return _forward_and_backward(lambda x, key: layer(x, rngs=key), setting)


def _forward_and_backward(function: Callable[[Array, Array], Array], setting: Setting) -> Run:
    use(setting.device)
    x = jax.random.normal(jax.random.key(1), (setting.size, setting.size), setting.units)

    @jax.jit
    def forward_and_backward(x: Array, key: Array) -> tuple[Array, Array]:
        result, backward = jax.vjp(lambda x: function(x, key), x)
        return result, backward(jnp.ones_like(x))[0]

    keys = jax.random.split(jax.random.key(0), setting.calls)

    def run(_: int) -> None:
        for key in keys:
            jax.block_until_ready(forward_and_backward(x, key))

    return run
