"""The programs in JAX: ours, the floor under it, and flax.nnx's own dropout and loop."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import impls.jax.dropout
from benchmarks.programs import LR, RATES, Run, calls, first_steps
from impls.jax.mlp import MLP
from impls.jax.train import PRECISION, sgd, train_epoch
from shared.data import load, to_inputs
from shared.randomness import epoch_order


def _settings(device: str, precision: str = "highest") -> None:
    jax.config.update("jax_default_device", jax.devices(device)[0])
    jax.config.update("jax_default_matmul_precision", PRECISION[precision])


# An epoch


def epoch(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Ours: impls/jax, as `train` runs it."""
    _settings(device, precision)
    held = load(data)
    n, steps = first_steps(held, batch, steps)
    images = jnp.asarray(to_inputs(held.train_images[:n]))
    labels = jnp.asarray(held.train_labels[:n])
    model = MLP(images.shape[1], width, width, seed=0)
    optimizer = nnx.Optimizer(model, sgd(LR), wrt=nnx.Param)

    def run(i: int) -> np.ndarray:
        losses, _ = train_epoch(
            model, optimizer, images, labels, jnp.asarray(epoch_order(n, seed=0, epoch=i)),
            seed=np.uint32(0), first_step=np.uint32(i * steps), batch_size=batch,
        )  # fmt: skip
        return np.asarray(losses)

    return run


def floor(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Only the eight matrix products of each step, in one compiled loop: XLA's limit."""
    _settings(device, precision)
    _, steps = first_steps(load(data), batch, steps)

    # Each step's weights are the last one's gradients, so that no product can be left out.
    @jax.jit
    def products(x: Any, weights: Any) -> Any:
        def step(weights: Any, _: None) -> Any:
            w1, w2, w3 = weights
            h1 = x @ w1
            h2 = h1 @ w2
            logits = h2 @ w3
            d2 = logits @ w3.T
            d1 = d2 @ w2.T
            return (x.T @ d1, h1.T @ d2, h2.T @ logits), None

        return jax.lax.scan(step, weights, None, length=steps)[0]

    shapes = ((batch, 784), (784, width), (width, width), (width, 10))
    keys = jax.random.split(jax.random.key(0), 4)
    x, *weights = (jax.random.normal(*pair) for pair in zip(keys, shapes, strict=True))
    return lambda _: jax.block_until_ready(products(x, tuple(weights)))


class Net(nnx.Module):
    """The network of an idiomatic flax.nnx program."""

    def __init__(self, rngs: nnx.Rngs):
        self.first = nnx.Linear(784, 256, rngs=rngs)
        self.second = nnx.Linear(256, 256, rngs=rngs)
        self.last = nnx.Linear(256, 10, rngs=rngs)
        self.drops = nnx.List([nnx.Dropout(p, rngs=rngs) for p in RATES])

    def __call__(self, x: jax.Array) -> jax.Array:
        """Compute the logits."""
        h = self.drops[0](nnx.relu(self.first(x)))
        return self.last(self.drops[1](nnx.relu(self.second(h))))


def framework_loop(data: str = "auto", device: str = "cpu") -> Run:
    """An idiomatic flax.nnx program: a jitted step, nnx.Dropout, metrics, a Python loop."""
    _settings(device)

    @nnx.jit
    def step(model: Any, optimizer: Any, metrics: Any, x: Any, y: Any) -> None:
        def loss_of(model: Any) -> Any:
            logits = model(x)
            loss = optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()
            return loss, logits

        (loss, logits), gradients = nnx.value_and_grad(loss_of, has_aux=True)(model)
        metrics.update(loss=loss, logits=logits, labels=y)
        optimizer.update(model, gradients)

    held = load(data)
    images, labels = to_inputs(held.train_images), held.train_labels.astype(np.int32)
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.sgd(LR), wrt=nnx.Param)
    metrics = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))

    def run(i: int) -> None:
        order = epoch_order(len(images), seed=0, epoch=i)
        for start in range(0, len(order), 256):
            rows = order[start : start + 256]
            step(model, optimizer, metrics, images[rows], labels[rows])
        jax.block_until_ready(metrics.compute())
        metrics.reset()

    return run


# The operation alone, forward and backward, jitted, p = 0.5


def dropout(size: int, dtype: str = "float32", device: str = "cpu") -> Run:
    """Ours."""

    def ours(x: jax.Array, key: jax.Array) -> jax.Array:
        return impls.jax.dropout.dropout(x, 0.5, training=True, key=key)

    return _operation(ours, size, dtype, device)


def framework_dropout(size: int, dtype: str = "float32", device: str = "cpu") -> Run:
    """Flax's own."""
    layer = nnx.Dropout(0.5, deterministic=False)
    return _operation(lambda x, key: layer(x, rngs=key), size, dtype, device)


def _operation(function: Callable[..., Any], size: int, dtype: str, device: str) -> Run:
    _settings(device)
    x = jax.random.normal(jax.random.key(1), (size, size), dtype)

    @jax.jit
    def forward_and_backward(x: Any, key: Any) -> Any:
        out, back = jax.vjp(lambda x: function(x, key), x)
        return out, back(jnp.ones_like(x))[0]

    keys = jax.random.split(jax.random.key(0), calls(size))

    def run(_: int) -> None:
        for key in keys:
            result = forward_and_backward(x, key)
        jax.block_until_ready(result)

    return run


# Several seeds, each with its own weights, order and masks


def _networks(
    seeds: int, data: str, steps: int | None, device: str, precision: str
) -> tuple[list[tuple[Any, Any]], Any, Any, int]:
    """Return a network and its optimizer for each seed, the data on the device, and the steps."""
    _settings(device, precision)
    held = load(data)
    n, steps = first_steps(held, 256, steps)
    models = [MLP(seed=seed) for seed in range(seeds)]
    networks = [(model, nnx.Optimizer(model, sgd(LR), wrt=nnx.Param)) for model in models]
    images = jnp.asarray(to_inputs(held.train_images[:n]))
    return networks, images, jnp.asarray(held.train_labels[:n]), steps


def seeds_at_once(
    seeds: int, data: str = "auto", steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """An epoch of as many networks, one compiled loop for all of them, under vmap."""
    networks, images, labels, steps = _networks(seeds, data, steps, device, precision)
    graph = nnx.graphdef(networks[0])
    states = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(nnx.state, networks))

    @jax.jit
    def epoch(states: Any, images: Any, labels: Any, orders: Any, first_step: Any) -> Any:
        def one(state: Any, order: Any, seed: Any) -> Any:
            model, optimizer = nnx.merge(graph, state)
            losses, _ = train_epoch(
                model, optimizer, images, labels, order,
                seed=seed, first_step=first_step, batch_size=256,
            )  # fmt: skip
            return nnx.state((model, optimizer)), losses

        return jax.vmap(one)(states, orders, jnp.arange(seeds, dtype=np.uint32))

    def run(i: int) -> np.ndarray:
        nonlocal states
        orders = np.stack([epoch_order(len(images), seed=seed, epoch=i) for seed in range(seeds)])
        states, losses = epoch(states, images, labels, orders, np.uint32(i * steps))
        return np.asarray(losses)

    return run


def seeds_in_turn(
    seeds: int, data: str = "auto", steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """The same networks, one epoch each, one after another."""
    networks, images, labels, steps = _networks(seeds, data, steps, device, precision)

    def run(i: int) -> np.ndarray:
        rows = []
        for seed, (model, optimizer) in enumerate(networks):
            order = jnp.asarray(epoch_order(len(images), seed=seed, epoch=i))
            losses, _ = train_epoch(
                model, optimizer, images, labels, order,
                seed=np.uint32(seed), first_step=np.uint32(i * steps), batch_size=256,
            )  # fmt: skip
            rows.append(np.asarray(losses))
        return np.stack(rows)

    return run
