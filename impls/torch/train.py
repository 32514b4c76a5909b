"""Train the network on Fashion-MNIST, in PyTorch.

python -m impls.torch.train                       # the article's settings, into runs/torch
python -m impls.torch.train --p1 0 --p2 0 --out runs/no-dropout
python -m impls.torch.train --resume              # go on with a run that was stopped
python -m impls.torch.train --help
"""

import math
import time
from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor, nn

from impls.torch.device import use
from impls.torch.evaluate import Labels, count_correct, cross_entropy, evaluate
from impls.torch.mlp import MLP, Inputs, Masks
from shared.config import Config
from shared.randomness import epoch_order, step_seed
from shared.records import EpochRecord, epoch_record
from shared.run import Run

Data = tuple[Tensor, ...]  # images and labels for training, then those for the test
Results = tuple[Float[Tensor, "*steps"], Int[Tensor, "*steps"]]


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
    model: nn.Module, optimizer: torch.optim.Optimizer, data: Data, config: Config, epoch: int
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
    order = torch.asarray(epoch_order(len(images), seed=config.seed, epoch=epoch))
    # Steps are counted over the run: each has masks of its own.
    first_step = (epoch - 1) * math.ceil(len(order) / config.batch_size)
    generator = Generator(images.device)
    results = []
    # DIFF loop: a Python loop, one step after another.
    for step, batch in enumerate(order.to(images.device).split(config.batch_size), first_step):
        # DIFF randomness: seeded for each step, so that a run that goes on draws the same masks.
        generator.manual_seed(step_seed(config.seed, step))
        # index_select does what images[batch] does, but is quicker.
        step_images, step_labels = images.index_select(0, batch), labels.index_select(0, batch)
        result = train_step(model, optimizer, step_images, step_labels, generator=generator)
        results.append(result)
    losses, correct = zip(*results, strict=True)
    return torch.stack(losses), torch.stack(correct)


def train(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
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
        losses, correct = (result.cpu().numpy() for result in results)  # waits for the device
        seconds = time.perf_counter() - started
        scores = evaluate(model, test_images, test_labels)
        n = len(images)
        yield epoch_record(epoch, losses, correct, scores, n, config.batch_size, seconds)


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, train, print a line per epoch, write the log and the weights."""
    with Run("torch", args) as run:
        config = run.config
        device = use(config.device, config.dtype, config.precision)
        data = tuple(torch.asarray(array, device=device) for array in run.arrays)
        model = MLP.from_config(config, inputs=data[0].shape[1]).to(device)
        optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
        first_epoch = run.restore(model, device)
        for record in train(model, optimizer, data, config, first_epoch):
            run.save(record, model)


if __name__ == "__main__":
    main()
