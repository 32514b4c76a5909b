"""The programs in PyTorch: our implementation, its floor, and PyTorch's own dropout."""

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, stack_module_state, vmap

import impls.torch.dropout
from benchmarks.programs import LR, RATES, Run, Setting, load_examples, number_of_calls
from impls.torch.dropout import sample_keep
from impls.torch.evaluate import cross_entropy
from impls.torch.mlp import MLP
from impls.torch.train import make_optimizer, train_epoch
from shared.randomness import epoch_order, step_seed


def _set_up(setting: Setting) -> tuple[Tensor, Tensor, int]:
    """Set the precision. Return the inputs and labels on the device, and the number of steps."""
    torch.set_float32_matmul_precision(setting.precision)
    images, labels, steps = load_examples(setting)
    device = setting.device
    return torch.as_tensor(images, device=device), torch.as_tensor(labels, device=device), steps


def _model(setting: Setting, seed: int) -> MLP:
    return MLP(784, setting.width, setting.width, seed=seed).to(setting.device)


def _order(n: int, seed: int, epoch: int, device: str) -> Tensor:
    return torch.tensor(epoch_order(n, seed=seed, epoch=epoch), device=device)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


# One epoch


def epoch(setting: Setting) -> Run:
    """An epoch of our implementation, as `train` runs it."""
    return _epoch_of_seed(0, setting, *_set_up(setting))


def _epoch_of_seed(seed: int, setting: Setting, images: Tensor, labels: Tensor, steps: int) -> Run:
    model = _model(setting, seed)
    optimizer = make_optimizer(model, LR)

    def run(i: int) -> np.ndarray:
        order = _order(len(images), seed, i, setting.device)
        losses, _ = train_epoch(
            model, optimizer, images, labels, order, seed, i * steps, setting.batch
        )
        return losses.cpu().numpy()

    return run


def floor(setting: Setting) -> Run:
    """Only the eight matrix products of each step."""
    *_, steps = _set_up(setting)
    width, device = setting.width, setting.device
    x = torch.randn(setting.batch, 784, device=device)
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
            d1.T @ x, d2.T @ h1, logits.T @ h2  # the gradients of the weights
        _wait(device)

    return run


def framework_loop(setting: Setting) -> Run:
    """The same loop as ours, with the dropout and the layers of PyTorch."""
    images, labels, _ = _set_up(setting)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Dropout(RATES[0]),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(RATES[1]),
        nn.Linear(256, 10),
    ).to(setting.device)  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=LR)

    def run(i: int) -> None:
        for batch in _order(len(images), 0, i, setting.device).split(256):
            logits = model(images.index_select(0, batch))
            loss = F.cross_entropy(logits, labels.index_select(0, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        _wait(setting.device)

    return run


# Dropout alone, forward and backward, with p = 0.5


def dropout(setting: Setting) -> Run:
    """Our dropout."""
    generator = torch.Generator(setting.device).manual_seed(0)

    def ours(x: Tensor) -> Tensor:
        return impls.torch.dropout.dropout(x, 0.5, training=True, generator=generator)

    return _forward_and_backward(ours, setting)


def framework_dropout(setting: Setting) -> Run:
    """PyTorch's own dropout."""
    return _forward_and_backward(lambda x: F.dropout(x, 0.5, training=True), setting)


def _forward_and_backward(function: Callable[[Tensor], Tensor], setting: Setting) -> Run:
    shape, dtype = (setting.size, setting.size), getattr(torch, setting.dtype)
    x = torch.randn(shape, device=setting.device, dtype=dtype).requires_grad_()
    gradient = torch.ones_like(x)

    def run(_: int) -> None:
        for _ in range(number_of_calls(setting.size)):
            x.grad = None
            function(x).backward(gradient)
        _wait(setting.device)

    return run


# Several seeds, each with its own weights, order and masks


def seeds_at_once(setting: Setting) -> Run:
    """An epoch of one network per seed. Under vmap, each step is one step of all networks."""
    images, labels, steps = _set_up(setting)
    models = [_model(setting, seed) for seed in range(setting.seeds)]
    stacked, _ = stack_module_state(models)
    weights = {name: tensor.detach() for name, tensor in stacked.items()}
    generators = [torch.Generator(setting.device) for _ in models]

    def loss_of(
        weights: dict[str, Tensor], x: Tensor, y: Tensor, keep: tuple[Tensor, ...]
    ) -> Tensor:
        return cross_entropy(functional_call(models[0], weights, (x,), {"keep": keep}), y)

    gradients_and_losses = vmap(grad_and_value(loss_of))

    def draw_masks(step: int, batch_size: int) -> tuple[Tensor, ...]:
        """Return the masks of each hidden layer, of shape (seeds, batch_size, width)."""
        shape = (batch_size, setting.width)
        masks = []
        for seed, generator in enumerate(generators):
            generator.manual_seed(step_seed(seed, step))
            masks.append([sample_keep(shape, p, generator=generator) for p in RATES])
        return tuple(torch.stack(layer) for layer in zip(*masks, strict=True))

    def run(i: int) -> np.ndarray:
        orders = torch.stack(
            [_order(len(images), seed, i, setting.device) for seed in range(setting.seeds)]
        )
        losses = []
        for step, batches in enumerate(orders.split(setting.batch, dim=1), i * steps):
            keep = draw_masks(step, batches.shape[1])
            gradients, loss = gradients_and_losses(weights, images[batches], labels[batches], keep)
            for name, gradient in gradients.items():
                weights[name].add_(gradient, alpha=-LR)
            losses.append(loss)
        return torch.stack(losses, dim=1).cpu().numpy()

    return run


def seeds_in_turn(setting: Setting) -> Run:
    """An epoch of the same networks, one network after another."""
    examples = _set_up(setting)
    runs = [_epoch_of_seed(seed, setting, *examples) for seed in range(setting.seeds)]
    return lambda i: np.stack([run(i) for run in runs])
