"""What is measured: ours, the floors, and the peers, each made ready by one function.

`PROGRAMS[name](**settings)` imports what it needs, and returns a function of the round's number
that runs the program once: an epoch (or its first `steps` steps), or a number of calls of an
operation. It returns when the device is done.
"""

import math
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from shared.data import Data, load, to_inputs
from shared.randomness import epoch_order

LR = 0.5
RATES = (0.2, 0.5)
Run = Callable[[int], object]
PROGRAMS: dict[str, Callable[..., Run]] = {}


def program(*name: str) -> Callable[[Callable[..., Run]], Callable[..., Run]]:
    """Give the function that makes a program ready a name."""

    def register(make: Callable[..., Run]) -> Callable[..., Run]:
        PROGRAMS[" ".join(name)] = make
        return make

    return register


def first_steps(data: Data, batch: int, steps: int | None) -> tuple[int, int]:
    """Return how many examples and steps a run has: all of them unless `steps` are asked for."""
    n = len(data.train_images)
    n = n if steps is None else min(n, steps * batch)
    return n, math.ceil(n / batch)


# PyTorch


def _torch_device(device: str) -> tuple[Any, Callable[[], None]]:
    import torch

    where = torch.device(device)
    return where, torch.cuda.synchronize if where.type == "cuda" else lambda: None


def _torch_data(data: Data, n: int, device: Any) -> tuple[Any, Any]:
    import torch

    images = torch.from_numpy(to_inputs(data.train_images[:n])).to(device)
    return images, torch.tensor(data.train_labels[:n], device=device)


@program("torch epoch")
def torch_epoch(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Ours: impls/torch, as `train` runs it."""
    import torch

    from impls.torch.mlp import MLP
    from impls.torch.train import SGD, train_epoch

    where, wait = _torch_device(device)
    torch.set_float32_matmul_precision(precision)
    held = load(data)
    n, steps = first_steps(held, batch, steps)
    images, labels = _torch_data(held, n, where)
    model = MLP(images.shape[1], width, width, seed=0).to(where)
    optimizer = SGD(model.parameters(), LR)

    def run(i: int) -> None:
        order = torch.from_numpy(epoch_order(n, seed=0, epoch=i)).to(where)
        train_epoch(
            model, optimizer, images, labels, order,
            seed=0, first_step=i * steps, batch_size=batch,
        )  # fmt: skip
        wait()

    return run


@program("torch floor")
def torch_floor(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Only the eight matrix products of each step."""
    import torch

    where, wait = _torch_device(device)
    torch.set_float32_matmul_precision(precision)
    _, steps = first_steps(load(data), batch, steps)
    x = torch.randn(batch, 784, device=where)
    shapes = ((width, 784), (width, width), (10, width))
    w1, w2, w3 = (torch.randn(shape, device=where) for shape in shapes)

    @torch.no_grad()
    def run(_: int) -> None:
        for _ in range(steps):
            h1 = x @ w1.T
            h2 = h1 @ w2.T
            logits = h2 @ w3.T
            d2 = logits @ w3
            d1 = d2 @ w2
            d1.T @ x, d2.T @ h1, logits.T @ h2
        wait()

    return run


@program("torch loop, F.dropout")
def torch_framework_dropout(data: str = "auto", device: str = "cpu") -> Run:
    """The same loop as ours, with the framework's own dropout and optimizer."""
    import torch
    from torch import nn

    where, wait = _torch_device(device)
    images, labels = _torch_data(load(data), 60_000, where)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Dropout(RATES[0]),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(RATES[1]),
        nn.Linear(256, 10),
    ).to(where)  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def run(i: int) -> None:
        order = torch.from_numpy(epoch_order(len(images), seed=0, epoch=i)).to(where)
        for rows in order.split(256):
            logits = model(images.index_select(0, rows))
            loss = nn.functional.cross_entropy(logits, labels.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        wait()

    return run


class _Images:
    """A dataset as the article's is: each image becomes a picture, then a tensor, when asked."""

    def __init__(self, images: np.ndarray, labels: np.ndarray):
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Any, int]:
        import torch
        from PIL import Image

        picture = Image.fromarray(self.images[i])
        pixels = torch.from_numpy(np.array(picture, np.uint8, copy=True))
        return pixels.unsqueeze(0).to(torch.float32).div(255), int(self.labels[i])


def article(data: str, workers: int) -> tuple[Any, Callable[[], None], Callable[[], float]]:
    """Return the article's network, an epoch of training, and test accuracy with dropout off."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader

    def drop(x: Any, p: float) -> Any:
        return (torch.rand(x.shape) > p).float() * x / (1 - p)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(784, 256), nn.Linear(256, 256)
            self.last, self.relu = nn.Linear(256, 10), nn.ReLU()
            self.is_training = True

        def forward(self, x: Any) -> Any:
            h = self.relu(self.first(x.reshape(-1, 784)))
            h = drop(h, RATES[0]) if self.is_training else h
            h = self.relu(self.second(h))
            h = drop(h, RATES[1]) if self.is_training else h
            return self.last(h)

    held = load(data)
    training: Any = DataLoader(
        _Images(held.train_images, held.train_labels),  # type: ignore[arg-type]
        batch_size=256, shuffle=True, num_workers=workers,
    )  # fmt: skip
    test: Any = DataLoader(
        _Images(held.test_images, held.test_labels),  # type: ignore[arg-type]
        batch_size=256, num_workers=workers,
    )  # fmt: skip
    net, loss_of = Net(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)

    def epoch() -> None:
        total = right = 0.0
        for x, y in training:
            logits = net(x)
            loss = loss_of(logits, y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item()
            right += float((logits.argmax(1) == y).sum())

    def accuracy() -> float:
        net.is_training = False
        with torch.no_grad():
            right = sum(int((net(x).argmax(1) == y).sum()) for x, y in test)
        net.is_training = True
        return right / len(held.test_labels)

    return net, epoch, accuracy


@program("article, 0 workers")
def article_alone(data: str = "auto") -> Run:
    """The article's program as a reader would run it, images loaded in the training process."""
    _, epoch, _ = article(data, 0)
    return lambda _: epoch()


@program("article, 4 workers")
def article_with_workers(data: str = "auto") -> Run:
    """The article's program, images loaded by four more processes."""
    warnings.filterwarnings("ignore", "This DataLoader will create")  # on fewer processors
    _, epoch, _ = article(data, 4)
    return lambda _: epoch()


# JAX


@program("jax epoch")
def jax_epoch(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Ours: impls/jax, as `train` runs it."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from impls.jax.mlp import MLP
    from impls.jax.train import PRECISION, sgd, train_epoch

    jax.config.update("jax_default_device", jax.devices(device)[0])
    jax.config.update("jax_default_matmul_precision", PRECISION[precision])
    held = load(data)
    n, steps = first_steps(held, batch, steps)
    images = jnp.asarray(to_inputs(held.train_images[:n]))
    labels = jnp.asarray(held.train_labels[:n])
    model = MLP(images.shape[1], width, width, seed=0)
    optimizer = nnx.Optimizer(model, sgd(LR), wrt=nnx.Param)

    def run(i: int) -> None:
        losses, _ = train_epoch(
            model, optimizer, images, labels, jnp.asarray(epoch_order(n, seed=0, epoch=i)),
            seed=np.uint32(0), first_step=np.uint32(i * steps), batch_size=batch,
        )  # fmt: skip
        losses.block_until_ready()

    return run


@program("jax floor")
def jax_floor(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Only the eight matrix products of each step, in one compiled loop: XLA's limit."""
    import jax

    from impls.jax.train import PRECISION

    jax.config.update("jax_default_device", jax.devices(device)[0])
    jax.config.update("jax_default_matmul_precision", PRECISION[precision])
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


@program("nnx loop")
def nnx_loop(data: str = "auto", device: str = "cpu") -> Run:
    """An idiomatic flax.nnx program: a jitted step, nnx.Dropout, metrics, a Python loop."""
    import jax
    import optax
    from flax import nnx

    jax.config.update("jax_default_device", jax.devices(device)[0])

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs):
            self.first = nnx.Linear(784, 256, rngs=rngs)
            self.second = nnx.Linear(256, 256, rngs=rngs)
            self.last = nnx.Linear(256, 10, rngs=rngs)
            self.drops = nnx.List([nnx.Dropout(p, rngs=rngs) for p in RATES])

        def __call__(self, x: Any) -> Any:
            h = self.drops[0](nnx.relu(self.first(x)))
            return self.last(self.drops[1](nnx.relu(self.second(h))))

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


# Keras, on the framework that KERAS_BACKEND names


def _keras(data: str = "auto") -> Run:
    """Keras 3 as its documentation shows it: Sequential, compile, fit."""
    import keras

    assert keras.backend.backend() == os.environ["KERAS_BACKEND"]
    held = load(data)
    images, labels = to_inputs(held.train_images), held.train_labels
    layers = keras.layers
    model = keras.Sequential(
        [
            layers.Input((784,)),
            layers.Dense(256, activation="relu"), layers.Dropout(RATES[0]),
            layers.Dense(256, activation="relu"), layers.Dropout(RATES[1]),
            layers.Dense(10),
        ]
    )  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LR), loss, metrics=["accuracy"])
    return lambda _: model.fit(images, labels, batch_size=256, epochs=1, verbose=0)


program("keras on torch")(_keras)
program("keras on jax")(_keras)


# The operation alone, forward and backward


def _calls(size: int) -> int:
    return max(2, 2**23 // size**2)


def _torch_operation(dropout: Callable[..., Any], size: int, dtype: str, device: str) -> Run:
    import torch

    where, wait = _torch_device(device)
    x = torch.randn(size, size, device=where, dtype=getattr(torch, dtype)).requires_grad_()
    incoming = torch.ones_like(x)

    def run(_: int) -> None:
        for _ in range(_calls(size)):
            x.grad = None
            dropout(x).backward(incoming)
        wait()

    return run


@program("torch dropout")
def torch_dropout(size: int, dtype: str = "float32", device: str = "cpu") -> Run:
    """Ours, p = 0.5, forward and backward."""
    import torch

    from impls.torch.dropout import dropout

    generator = torch.Generator(device).manual_seed(0)
    return _torch_operation(
        lambda x: dropout(x, 0.5, training=True, generator=generator), size, dtype, device
    )


@program("F.dropout")
def f_dropout(size: int, dtype: str = "float32", device: str = "cpu") -> Run:
    """PyTorch's own."""
    import torch

    return _torch_operation(
        lambda x: torch.nn.functional.dropout(x, 0.5, training=True), size, dtype, device
    )


def _jax_operation(dropout: Callable[..., Any], size: int, dtype: str, device: str) -> Run:
    import jax

    jax.config.update("jax_default_device", jax.devices(device)[0])
    x = jax.random.normal(jax.random.key(1), (size, size), dtype)

    @jax.jit
    def forward_and_backward(x: Any, key: Any) -> Any:
        out, back = jax.vjp(lambda x: dropout(x, key), x)
        return out, back(jax.numpy.ones_like(x))[0]

    keys = jax.random.split(jax.random.key(0), _calls(size))

    def run(_: int) -> None:
        for key in keys:
            result = forward_and_backward(x, key)
        jax.block_until_ready(result)

    return run


@program("jax dropout")
def jax_dropout(size: int, dtype: str = "float32", device: str = "cpu") -> Run:
    """Ours, p = 0.5, forward and backward, jitted."""
    from impls.jax.dropout import dropout

    return _jax_operation(lambda x, k: dropout(x, 0.5, training=True, key=k), size, dtype, device)


@program("nnx.Dropout")
def nnx_dropout(size: int, dtype: str = "float32", device: str = "cpu") -> Run:
    """Flax's own, jitted."""
    from flax import nnx

    layer = nnx.Dropout(0.5, deterministic=False)
    return _jax_operation(lambda x, k: layer(x, rngs=k), size, dtype, device)


# Several seeds: at once, and one after another


def _jax_networks(
    seeds: int, data: str, steps: int | None, device: str
) -> tuple[list[tuple[Any, Any]], Any, Any, int]:
    """Return a network and its optimizer for each seed, the data on the device, and the steps."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from impls.jax.mlp import MLP
    from impls.jax.train import sgd

    jax.config.update("jax_default_device", jax.devices(device)[0])
    held = load(data)
    n, steps = first_steps(held, 256, steps)
    models = [MLP(seed=seed) for seed in range(seeds)]
    networks = [(model, nnx.Optimizer(model, sgd(LR), wrt=nnx.Param)) for model in models]
    images = jnp.asarray(to_inputs(held.train_images[:n]))
    return networks, images, jnp.asarray(held.train_labels[:n]), steps


@program("jax seeds at once")
def jax_seeds_at_once(
    seeds: int, data: str = "auto", steps: int | None = None, device: str = "cpu"
) -> Run:
    """An epoch of as many networks, each with its own weights, order and masks, under vmap."""
    import jax
    import jax.numpy as jnp
    from flax import nnx

    from impls.jax.train import train_epoch

    networks, images, labels, steps = _jax_networks(seeds, data, steps, device)
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

    def run(i: int) -> Any:
        nonlocal states
        orders = np.stack([epoch_order(len(images), seed=seed, epoch=i) for seed in range(seeds)])
        states, losses = epoch(states, images, labels, orders, np.uint32(i * steps))
        return np.asarray(losses)

    return run


@program("jax seeds in turn")
def jax_seeds_in_turn(
    seeds: int, data: str = "auto", steps: int | None = None, device: str = "cpu"
) -> Run:
    """The same networks, one epoch each, one after another."""
    import jax.numpy as jnp

    from impls.jax.train import train_epoch

    networks, images, labels, steps = _jax_networks(seeds, data, steps, device)

    def run(i: int) -> Any:
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
