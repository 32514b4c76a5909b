"""Train the network on Fashion-MNIST, in PyTorch.

python -m impls.torch.train --help
"""

import time
from collections.abc import Callable, Iterable
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from impls.torch.evaluate import choose_device, count_correct, cross_entropy, evaluate
from impls.torch.mlp import MLP
from shared.config import Config
from shared.data import Data, load, to_inputs
from shared.randomness import epoch_order, step_seed
from shared.runs import TrainResult, epoch_record, train_main


class SGD:
    """Plain stochastic gradient descent, to the bit what torch.optim.SGD does."""

    # DIFF: the first use of torch.optim imports PyTorch's compiler, a second before every run.

    def __init__(self, parameters: Iterable[nn.Parameter], lr: float):
        self.parameters = list(parameters)
        self.lr = lr

    def zero_grad(self) -> None:
        """Forget the gradients."""
        for parameter in self.parameters:
            parameter.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Move each parameter against its gradient."""
        for parameter in self.parameters:
            if parameter.grad is not None:
                parameter.add_(parameter.grad, alpha=-self.lr)


def train_step(
    model: MLP,
    optimizer: SGD | torch.optim.Optimizer,
    images: Float[Tensor, "batch inputs"],
    labels: Int[Tensor, " batch"],
    *,
    generator: torch.Generator | None = None,
    keep: tuple[Bool[Tensor, "batch hidden1"], Bool[Tensor, "batch hidden2"]] | None = None,
) -> tuple[Float[Tensor, ""], Int[Tensor, ""]]:
    """Take one step of gradient descent on one batch.

    Args:
        model, optimizer: changed in place.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.
        generator: the source of both masks.
        keep: the two masks ready-made, instead of a generator.

    Returns:
        Mean loss of the batch and number of correct examples, before the step, dropout on.
    """
    logits = model(images, generator=generator, keep=keep)
    loss = cross_entropy(logits, labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), count_correct(logits, labels)


def train_epoch(
    model: MLP,
    optimizer: SGD | torch.optim.Optimizer,
    images: Float[Tensor, "n inputs"],
    labels: Int[Tensor, " n"],
    order: Int[Tensor, " n"],
    *,
    seed: int,
    first_step: int,
    batch_size: int,
) -> tuple[Float[Tensor, " steps"], Int[Tensor, " steps"]]:
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
    generator = torch.Generator(images.device)
    losses, correct = [], []
    for step, batch in enumerate(order.split(batch_size), first_step):
        # DIFF: the generator starts anew at each step, so that no state outlives the step.
        generator.manual_seed(step_seed(seed, step))
        loss, right = train_step(
            model,
            optimizer,
            images.index_select(0, batch),  # DIFF: images[batch] does the same, but slower
            labels.index_select(0, batch),
            generator=generator,
        )
        losses.append(loss)
        correct.append(right)
    return torch.stack(losses), torch.stack(correct)


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
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(config.precision)  # DIFF: one for the whole process
    try:
        return _train(config, data, on_epoch)
    finally:
        torch.set_float32_matmul_precision(before)


def _train(config: Config, data: Data, on_epoch: Callable[[dict[str, Any]], None] | None):
    device, dtype = choose_device(config.device), getattr(torch, config.dtype)
    images = torch.from_numpy(to_inputs(data.train_images)).to(device, dtype)
    labels = torch.tensor(data.train_labels, device=device)
    test_images = torch.from_numpy(to_inputs(data.test_images)).to(device, dtype)
    test_labels = torch.tensor(data.test_labels, device=device)
    n, inputs = images.shape
    sizes, rates = (inputs, config.hidden1, config.hidden2, 10), (config.p1, config.p2)
    model = MLP(*sizes, *rates, seed=config.seed, dtype=config.dtype).to(device)
    optimizer = SGD(model.parameters(), lr=config.lr)
    history = []
    steps = 0
    for epoch in range(1, config.epochs + 1):
        started = time.perf_counter()
        order = torch.from_numpy(epoch_order(n, seed=config.seed, epoch=epoch)).to(device)
        settings: dict[str, Any] = {
            "seed": config.seed,
            "first_step": steps,
            "batch_size": config.batch_size,
        }
        step_losses, step_correct = train_epoch(model, optimizer, images, labels, order, **settings)
        # This waits until the device is done.
        losses, correct = step_losses.cpu().numpy(), step_correct.cpu().numpy()
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


def main() -> None:
    """Read the command line, train, print a line per epoch, write the log and the weights."""
    train_main("torch", ("torch",), train, choose_device)


if __name__ == "__main__":
    main()
