"""The programs in PyTorch: our implementation, its floor, and PyTorch's own dropout."""

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

import impls.torch.dropout
from benchmarks.programs import Run, Setting, products
from impls.torch.device import use
from impls.torch.mlp import MLP
from impls.torch.train import Data, train, train_epoch
from shared.checks import check_keep
from shared.randomness import epoch_order


def _set_up(setting: Setting) -> tuple[MLP, torch.optim.Optimizer, Data]:
    """Return what `train` and `train_epoch` need: the model, the optimizer and the data."""
    device = use(setting.device, setting.dtype, setting.precision)
    model = MLP.from_config(setting, inputs=784).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=setting.lr)
    return model, optimizer, tuple(torch.as_tensor(a, device=device) for a in setting.arrays())


def _threshold_backward(keep: Tensor, values: Tensor) -> Tensor:
    """The gradient of ReLU: `values` where the mask is above 0. It has no branches."""
    # A mask in the dtype and with the strides of `values`: PyTorch is slow on mixed layouts.
    mask = torch.empty_like(values).copy_(keep)
    return torch.ops.aten.threshold_backward(values, mask, 0)


SELECTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "threshold_backward": _threshold_backward,
    "masked_fill": lambda keep, values: values.masked_fill(~keep, 0),
}


def _select_with(selection: str) -> None:
    """Let our dropout select with something else than `torch.where`, as long as this process is."""

    def apply_keep(x: Tensor, keep: Tensor, p: float) -> Tensor:
        p = check_keep(x, keep, p, Tensor)
        return SELECTIONS[selection](keep, x / (1 - p))

    impls.torch.dropout.apply_keep = apply_keep


# Training


def epoch(setting: Setting, selection: str | None = None) -> Run:
    """An epoch of our implementation, as `train` runs it."""
    if selection:
        _select_with(selection)
    model, optimizer, data = _set_up(setting)
    return lambda i: train_epoch(model, optimizer, data, setting, 1 + i)


def accuracies(setting: Setting) -> Iterator[float]:
    """Train, and yield the test accuracy after each epoch."""
    return (record["test_accuracy"] for record in train(*_set_up(setting), setting))


def floor(setting: Setting) -> Run:
    """Only the eight matrix products of each step."""
    device = use(setting.device, setting.dtype, setting.precision)
    x, *weights = (torch.as_tensor(array, device=device) for array in setting.factors())
    weights = [w.T.contiguous().T for w in weights]  # nn.Linear has (out, in) in memory
    steps = setting.number_of_steps()

    def run(_: int) -> None:
        for _ in range(steps):
            products(x, weights)

    return run


def framework_loop(setting: Setting) -> Run:
    """The same loop as ours, with the dropout and the layers of PyTorch."""
    _, _, (images, labels, *_) = _set_up(setting)
    model = nn.Sequential(
        nn.Linear(784, 256), nn.ReLU(), nn.Dropout(setting.p1),
        nn.Linear(256, 256), nn.ReLU(), nn.Dropout(setting.p2),
        nn.Linear(256, 10),
    ).to(images.device)  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=setting.lr)

    def run(i: int) -> None:
        order = torch.as_tensor(epoch_order(len(images), seed=0, epoch=i), device=images.device)
        for batch in order.split(256):
            logits = model(images.index_select(0, batch))
            loss = F.cross_entropy(logits, labels.index_select(0, batch))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return run


# Dropout alone, forward and backward, with p = 0.5


def dropout(setting: Setting, selection: str | None = None) -> Run:
    """Our dropout."""
    if selection:
        _select_with(selection)
    generator = Generator(setting.device).manual_seed(0)

    def ours(x: Tensor) -> Tensor:
        return impls.torch.dropout.dropout(x, 0.5, training=True, generator=generator)

    return _forward_and_backward(ours, setting)


def framework_dropout(setting: Setting) -> Run:
    """PyTorch's own dropout."""
    return _forward_and_backward(lambda x: F.dropout(x, 0.5, training=True), setting)


def _forward_and_backward(function: Callable[[Tensor], Tensor], setting: Setting) -> Run:
    shape, dtype = (setting.size, setting.size), getattr(torch, setting.units)
    x = torch.randn(shape, device=setting.device, dtype=dtype).requires_grad_()
    gradient = torch.ones_like(x)

    def run(_: int) -> Tensor | None:
        for _ in range(setting.calls):
            x.grad = None
            function(x).backward(gradient)
        return x.grad

    return run
