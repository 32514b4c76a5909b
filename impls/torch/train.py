"""Train the network on Fashion-MNIST, in PyTorch.

python -m impls.torch.train --help
"""

import math
import time

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from impls.torch.evaluate import Labels, count_correct, cross_entropy, evaluate
from impls.torch.mlp import MLP, Inputs, Masks
from impls.torch.parallel import distribute, join
from impls.torch.runtime import describe, runtime
from shared.cli import train_main
from shared.config import Config
from shared.data import Data, load, to_arrays
from shared.randomness import epoch_order, step_seed
from shared.records import EpochRecord, OnEpoch, TrainResult, check_finite, epoch_record

Results = tuple[Float[Tensor, "*steps"], Int[Tensor, "*steps"]]


def make_optimizer(model: nn.Module, lr: float) -> torch.optim.SGD:
    """Return stochastic gradient descent, without momentum or weight decay."""
    return torch.optim.SGD(model.parameters(), lr=lr)


def train_step(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Inputs,
    labels: Labels,
    *,
    generator: Generator | None = None,
    keep: Masks | None = None,
) -> Results:
    """Take one step of gradient descent on one batch.

    Args:
        model, optimizer: changed in place.
        images: inputs, in the dtype of the weights.
        labels: whole numbers, 0 to 9.
        generator: the source of both masks.
        keep: two masks to use instead of drawing them.

    Returns:
        Mean loss of the batch and number of correct examples, before the step, dropout on.
    """
    logits = model(images, generator=generator, keep=keep)
    loss = cross_entropy(logits, labels)
    # DIFF gradient: PyTorch recorded the forward pass. backward() adds to the gradients, so they
    # are set to zero first.
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach(), count_correct(logits, labels)


def train_epoch(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    images: Inputs,
    labels: Labels,
    order: Int[Tensor, " examples"],
    seed: int,
    first_step: int,
    batch_size: int,
) -> Results:
    """Visit every example once, in the order given, the short last batch included.

    Args:
        model, optimizer: changed in place.
        images, labels: all of them, on the device.
        order: which examples come first, second, ...
        seed: seed of the run.
        first_step: how many steps the run took before this epoch.
        batch_size: examples in a step.

    Returns:
        Mean loss and number of correct examples of each step.
    """
    generator = Generator(images.device)
    results = []
    # DIFF loop: a Python loop, one step after another.
    for step, batch in enumerate(order.split(batch_size), first_step):
        generator.manual_seed(step_seed(seed, step))  # DIFF randomness: a new state for each step
        # index_select: images[batch] gives the same, but takes longer.
        batch_images, batch_labels = images.index_select(0, batch), labels.index_select(0, batch)
        results.append(
            train_step(model, optimizer, batch_images, batch_labels, generator=generator)
        )
    losses, correct = zip(*results, strict=True)
    return torch.stack(losses), torch.stack(correct)


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
    with runtime(config) as device:
        images, labels, test_images, test_labels = (
            torch.as_tensor(array, device=device) for array in to_arrays(data, config.dtype)
        )
        n, inputs = images.shape
        sizes = (inputs, config.hidden_1, config.hidden_2, 10)
        model = MLP(*sizes, config.p1, config.p2, seed=config.seed, dtype=config.dtype)
        model.to(device)  # DIFF device: given to each tensor and module
        network = distribute(model)  # the model itself, or one whose batches are shared
        optimizer = make_optimizer(network, config.lr)
        history: list[EpochRecord] = []
        if start:
            model.set_weights(start.weights)
            history = list(start.history)
        steps = len(history) * math.ceil(n / config.batch_size)
        for epoch in range(len(history) + 1, config.epochs + 1):
            started = time.perf_counter()
            order = torch.as_tensor(epoch_order(n, seed=config.seed, epoch=epoch), device=device)
            results = train_epoch(
                network, optimizer, images, labels, order, config.seed, steps, config.batch_size
            )
            losses, correct = (result.cpu().numpy() for result in results)  # waits for the device
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
    train_main("torch", train, describe, join)


if __name__ == "__main__":
    main()
