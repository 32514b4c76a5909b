"""The programs in JAX: our implementation, its floor, and the dropout and loop of flax.nnx."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

import impls.jax.dropout
from benchmarks.programs import LR, RATES, Run, Setting, load_examples, number_of_calls
from impls.jax.mlp import MLP
from impls.jax.runtime import PRECISION, choose_device
from impls.jax.train import make_optimizer, train_epoch
from shared.randomness import epoch_order


def _configure(setting: Setting) -> None:
    """Set the device and the precision for the rest of this process."""
    jax.config.update("jax_default_device", choose_device(setting.device))
    jax.config.update("jax_default_matmul_precision", PRECISION[setting.precision])


def _set_up(setting: Setting) -> tuple[Array, Array, int]:
    """Configure JAX. Return the inputs and labels on the device, and the number of steps."""
    _configure(setting)
    images, labels, steps = load_examples(setting)
    return jnp.asarray(images), jnp.asarray(labels), steps


def _network(setting: Setting, seed: int) -> tuple[MLP, nnx.Optimizer]:
    model = MLP(784, setting.width, setting.width, seed=seed)
    return model, make_optimizer(model, LR)


# One epoch


def epoch(setting: Setting) -> Run:
    """An epoch of our implementation, as `train` runs it."""
    return _epoch_of_seed(0, setting, *_set_up(setting))


def _epoch_of_seed(seed: int, setting: Setting, images: Array, labels: Array, steps: int) -> Run:
    model, optimizer = _network(setting, seed)
    key = jax.random.key(seed)

    def run(i: int) -> np.ndarray:
        order = jnp.asarray(epoch_order(len(images), seed=seed, epoch=i))
        losses, _ = train_epoch(
            model, optimizer, images, labels, order, key, i * steps, setting.batch
        )
        return np.asarray(losses)

    return run


def floor(setting: Setting) -> Run:
    """Only the eight matrix products of each step, in one compiled loop."""
    *_, steps = _set_up(setting)
    width = setting.width

    # XLA would remove products that nothing uses, so the gradients of a step become the weights of
    # the next one.
    @jax.jit
    def products(x: Array, weights: tuple[Array, ...]) -> tuple[Array, ...]:
        def step(weights: Any, _: None) -> Any:
            w1, w2, w3 = weights
            h1 = x @ w1
            h2 = h1 @ w2
            logits = h2 @ w3
            d2 = logits @ w3.T
            d1 = d2 @ w2.T
            return (x.T @ d1, h1.T @ d2, h2.T @ logits), None

        return jax.lax.scan(step, weights, None, length=steps)[0]

    shapes = ((setting.batch, 784), (784, width), (width, width), (width, 10))
    rng = np.random.default_rng(0)
    x, *weights = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    return lambda _: jax.block_until_ready(products(x, tuple(weights)))


class Net(nnx.Module):
    """The network as a usual flax.nnx program defines it."""

    def __init__(self, rngs: nnx.Rngs) -> None:
        self.linear_1 = nnx.Linear(784, 256, rngs=rngs)
        self.linear_2 = nnx.Linear(256, 256, rngs=rngs)
        self.linear_3 = nnx.Linear(256, 10, rngs=rngs)
        self.dropout_1 = nnx.Dropout(RATES[0], rngs=rngs)
        self.dropout_2 = nnx.Dropout(RATES[1], rngs=rngs)

    def __call__(self, x: Array) -> Array:
        """Compute the logits."""
        h1 = self.dropout_1(nnx.relu(self.linear_1(x)))
        h2 = self.dropout_2(nnx.relu(self.linear_2(h1)))
        return self.linear_3(h2)


def framework_loop(setting: Setting) -> Run:
    """A usual flax.nnx program: a Python loop over a compiled step, nnx.Dropout, metrics."""
    _configure(setting)

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

    images, labels, _ = load_examples(setting)
    labels = labels.astype(np.int32)
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(LR), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))

    def run(i: int) -> None:
        order = epoch_order(len(images), seed=0, epoch=i)
        for start in range(0, len(order), 256):
            batch = order[start : start + 256]
            step(model, optimizer, metrics, images[batch], labels[batch])
        jax.block_until_ready(metrics.compute())
        metrics.reset()

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
    _configure(setting)
    x = jax.random.normal(jax.random.key(1), (setting.size, setting.size), setting.dtype)

    @jax.jit
    def forward_and_backward(x: Array, key: Array) -> tuple[Array, Array]:
        result, backward = jax.vjp(lambda x: function(x, key), x)
        return result, backward(jnp.ones_like(x))[0]

    keys = jax.random.split(jax.random.key(0), number_of_calls(setting.size))

    def run(_: int) -> None:
        for key in keys:
            result = forward_and_backward(x, key)
        jax.block_until_ready(result)

    return run


# Several seeds, each with its own weights, order and masks


def seeds_at_once(setting: Setting) -> Run:
    """An epoch of one network per seed. Under vmap, one compiled loop trains all of them."""
    images, labels, steps = _set_up(setting)
    networks = [_network(setting, seed) for seed in range(setting.seeds)]
    graph = nnx.graphdef(networks[0])
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(nnx.state, networks))

    @jax.jit
    def epoch(states: Any, images: Array, labels: Array, orders: Array, first_step: int) -> Any:
        def epoch_of_seed(state: Any, order: Array, seed: Array) -> tuple[Any, Array]:
            model, optimizer = nnx.merge(graph, state)
            key = jax.random.key(seed)
            losses, _ = train_epoch(
                model, optimizer, images, labels, order, key, first_step, setting.batch
            )
            return nnx.state((model, optimizer)), losses

        seeds = jnp.arange(setting.seeds, dtype=jnp.uint32)
        return jax.vmap(epoch_of_seed)(states, orders, seeds)

    def run(i: int) -> np.ndarray:
        nonlocal states
        orders = [epoch_order(len(images), seed=seed, epoch=i) for seed in range(setting.seeds)]
        states, losses = epoch(states, images, labels, np.stack(orders), i * steps)
        return np.asarray(losses)

    return run


def seeds_in_turn(setting: Setting) -> Run:
    """An epoch of the same networks, one network after another."""
    examples = _set_up(setting)
    runs = [_epoch_of_seed(seed, setting, *examples) for seed in range(setting.seeds)]
    return lambda i: np.stack([run(i) for run in runs])
