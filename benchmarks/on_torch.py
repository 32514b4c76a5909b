"""The programs in PyTorch: ours, the floor under it, and the framework's own dropout."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

import impls.torch.dropout
from benchmarks.programs import LR, RATES, Run, calls, first_steps
from impls.torch.dropout import sample_keep
from impls.torch.evaluate import cross_entropy
from impls.torch.mlp import MLP
from impls.torch.train import SGD, train_epoch, train_step
from shared.data import Data, load, to_inputs
from shared.randomness import epoch_order, step_seed


def _to_device(data: Data, n: int, device: str) -> tuple[Tensor, Tensor]:
    images = torch.from_numpy(to_inputs(data.train_images[:n])).to(device)
    return images, torch.tensor(data.train_labels[:n], device=device)


def _order(n: int, seed: int, epoch: int, device: str) -> Tensor:
    return torch.from_numpy(epoch_order(n, seed=seed, epoch=epoch)).to(device)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# An epoch


def epoch(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Ours: impls/torch, as `train` runs it."""
    torch.set_float32_matmul_precision(precision)
    held = load(data)
    n, steps = first_steps(held, batch, steps)
    images, labels = _to_device(held, n, device)
    model = MLP(images.shape[1], width, width, seed=0).to(device)
    optimizer = SGD(model.parameters(), LR)

    def run(i: int) -> np.ndarray:
        losses, _ = train_epoch(
            model, optimizer, images, labels, _order(n, 0, i, device),
            seed=0, first_step=i * steps, batch_size=batch,
        )  # fmt: skip
        return losses.cpu().numpy()

    return run


def epoch_as_graph(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Ours, its step recorded once as a CUDA graph and replayed; elsewhere the step is called.

    A graph reads its inputs from fixed places, so a short last batch is a step of the usual kind.
    """
    torch.set_float32_matmul_precision(precision)
    held = load(data)
    n, steps = first_steps(held, batch, steps)
    images, labels = _to_device(held, n, device)
    model = MLP(images.shape[1], width, width, seed=0).to(device)
    optimizer = SGD(model.parameters(), LR)
    generator = torch.Generator(device)
    x, y = images[:batch].clone(), labels[:batch].clone()

    def step() -> Tensor:
        return train_step(model, optimizer, x, y, generator=generator)[0]

    replay = _record(step, model, generator) if device == "cuda" else step

    def run(i: int) -> np.ndarray:
        losses = []
        for k, rows in enumerate(_order(n, 0, i, device).split(batch), i * steps):
            generator.manual_seed(step_seed(0, k))
            if len(rows) == len(x):
                torch.index_select(images, 0, rows, out=x)
                torch.index_select(labels, 0, rows, out=y)
                losses.append(replay().clone())  # the next replay writes to the same place
            else:
                short = (images.index_select(0, rows), labels.index_select(0, rows))
                losses.append(train_step(model, optimizer, *short, generator=generator)[0])
        return torch.stack(losses).cpu().numpy()

    return run


def _record(
    step: Callable[[], Tensor], model: MLP, generator: torch.Generator
) -> Callable[[], Tensor]:
    """Record a step, which moves the weights while it is tried out; put them back."""
    before = {name: weights.clone() for name, weights in model.state_dict().items()}
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # libraries set themselves up in the first few calls
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    graph.register_generator_state(generator)  # a replay draws from the seed set before it
    with torch.cuda.graph(graph):
        loss = step()
    model.load_state_dict(before)

    def replay() -> Tensor:
        graph.replay()
        return loss

    return replay


def floor(
    data: str = "auto", width: int = 256, batch: int = 256, steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """Only the eight matrix products of each step."""
    torch.set_float32_matmul_precision(precision)
    _, steps = first_steps(load(data), batch, steps)
    x = torch.randn(batch, 784, device=device)
    shapes = ((width, 784), (width, width), (10, width))
    w1, w2, w3 = (torch.randn(shape, device=device) for shape in shapes)

    @torch.no_grad()
    def run(_: int) -> None:
        for _ in range(steps):
            h1 = x @ w1.T
            h2 = h1 @ w2.T
            logits = h2 @ w3.T
            d2 = logits @ w3
            d1 = d2 @ w2
            d1.T @ x, d2.T @ h1, logits.T @ h2
        _wait(device)

    return run


def framework_loop(data: str = "auto", device: str = "cpu") -> Run:
    """The same loop as ours, with the framework's own dropout and optimizer."""
    images, labels = _to_device(load(data), 60_000, device)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Dropout(RATES[0]),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(RATES[1]),
        nn.Linear(256, 10),
    ).to(device)  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def run(i: int) -> None:
        for rows in _order(len(images), 0, i, device).split(256):
            logits = model(images.index_select(0, rows))
            loss = F.cross_entropy(logits, labels.index_select(0, rows))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        _wait(device)

    return run


# The operation alone, forward and backward, p = 0.5


def dropout(size: int, dtype: str = "float32", device: str = "cpu") -> Run:
    """Ours."""
    generator = torch.Generator(device).manual_seed(0)

    def ours(x: Tensor) -> Tensor:
        return impls.torch.dropout.dropout(x, 0.5, training=True, generator=generator)

    return _operation(ours, size, dtype, device)


def framework_dropout(size: int, dtype: str = "float32", device: str = "cpu") -> Run:
    """PyTorch's own."""
    return _operation(lambda x: F.dropout(x, 0.5, training=True), size, dtype, device)


def _operation(function: Callable[[Tensor], Tensor], size: int, dtype: str, device: str) -> Run:
    x = torch.randn(size, size, device=device, dtype=getattr(torch, dtype)).requires_grad_()
    incoming = torch.ones_like(x)

    def run(_: int) -> None:
        for _ in range(calls(size)):
            x.grad = None
            function(x).backward(incoming)
        _wait(device)

    return run


# Several seeds, each with its own weights, order and masks


def _networks(
    seeds: int, data: str, steps: int | None, device: str, precision: str
) -> tuple[list[MLP], Tensor, Tensor, int]:
    """Return a network for each seed, the data on the device, and the number of steps."""
    torch.set_float32_matmul_precision(precision)
    held = load(data)
    n, steps = first_steps(held, 256, steps)
    return [MLP(seed=seed).to(device) for seed in range(seeds)], *_to_device(held, n, device), steps


def seeds_at_once(
    seeds: int, data: str = "auto", steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """An epoch of as many networks, every step taken by all of them together, under vmap."""
    models, images, labels, steps = _networks(seeds, data, steps, device, precision)
    stacked, _ = stack_module_state(models)
    weights = {name: tensor.detach() for name, tensor in stacked.items()}
    sizes = (models[0].linear_1.out_features, models[0].linear_2.out_features)
    generators = [torch.Generator(device) for _ in models]

    def loss_of(
        weights: dict[str, Tensor], x: Tensor, y: Tensor, keep: tuple[Tensor, ...]
    ) -> Tensor:
        return cross_entropy(functional_call(models[0], weights, (x,), {"keep": keep}), y)

    gradients_and_losses = vmap(grad_and_value(loss_of))

    def masks(k: int, batch: int) -> list[Tensor]:
        drawn = []
        for seed, generator in enumerate(generators):
            generator.manual_seed(step_seed(seed, k))
            drawn.append(
                [
                    sample_keep((batch, size), p, generator=generator, device=device)
                    for size, p in zip(sizes, RATES, strict=True)
                ]
            )
        return [torch.stack(layer) for layer in zip(*drawn, strict=True)]

    def run(i: int) -> np.ndarray:
        orders = torch.stack([_order(len(images), seed, i, device) for seed in range(seeds)])
        losses = []
        for k, rows in enumerate(orders.split(256, dim=1), i * steps):
            keep = tuple(masks(k, rows.shape[1]))
            gradients, loss = gradients_and_losses(weights, images[rows], labels[rows], keep)
            for name, gradient in gradients.items():
                weights[name].add_(gradient, alpha=-LR)
            losses.append(loss)
        return torch.stack(losses, dim=1).cpu().numpy()

    return run


def seeds_in_turn(
    seeds: int, data: str = "auto", steps: int | None = None,
    device: str = "cpu", precision: str = "highest",
) -> Run:  # fmt: skip
    """The same networks, one epoch each, one after another."""
    models, images, labels, steps = _networks(seeds, data, steps, device, precision)
    optimizers = [SGD(model.parameters(), LR) for model in models]

    def run(i: int) -> np.ndarray:
        losses = [
            train_epoch(
                model, optimizer, images, labels, _order(len(images), seed, i, device),
                seed=seed, first_step=i * steps, batch_size=256,
            )[0]
            for seed, (model, optimizer) in enumerate(zip(models, optimizers, strict=True))
        ]  # fmt: skip
        return torch.stack(losses).cpu().numpy()

    return run
