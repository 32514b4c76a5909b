"""Several processes train one network, each on its part of every batch, in PyTorch.

torchrun --nproc-per-node 2 -m impls.torch.train

This is data parallelism. Every process has all weights, and computes its own rows of each batch.
The masks are drawn for the whole batch, the loss is the mean over the whole batch, and the
gradients are summed over all processes. So `train_step` is that of one process, and so are its
loss, its gradients and the new weights, up to rounding.
"""

import contextlib
import datetime
import os
from collections.abc import Iterator
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from impls.torch.dropout import Dropout, sample_keep
from impls.torch.mlp import MLP, Inputs, Logits, Masks
from shared.checks import InputError
from shared.config import Config
from shared.group import ALONE, WAIT_TIMEOUT, Group, deadline, joining
from shared.launch import end_with_launcher


class ParallelMLP(nn.Module):
    """The network, for a batch that the processes share. Each gets all logits of the batch."""

    def __init__(self, model: MLP) -> None:
        super().__init__()
        self.model = model
        self.replica = DistributedDataParallel(model)
        self.replica.register_comm_hook(None, _sum_gradients)

    def forward(
        self, x: Inputs, *, generator: Generator | None = None, keep: Masks | None = None
    ) -> Logits:
        """Compute the logits, one row per example. Gradients are those of our own rows.

        Args:
            x: inputs of the whole batch, the same in every process.
            generator: in training, the source of both masks, in the same state in every process.
            keep: in training, two masks for the whole batch to use instead of drawing them.
        """
        rank, size = dist.get_rank(), dist.get_world_size()
        # Our rows. Parts differ by at most one row. Some are empty if there are too few rows.
        first, last = len(x) * rank // size, len(x) * (rank + 1) // size
        # DIFF randomness: a generator has to draw all numbers before ours, so each process draws
        # the masks of the whole batch.
        masks = keep or (
            _draw(self.model.dropout_1, len(x), self.model.linear_1, generator),
            _draw(self.model.dropout_2, len(x), self.model.linear_2, generator),
        )
        ours = [None if mask is None else mask[first:last] for mask in masks]
        logits = self.replica(x[first:last], keep=ours)
        # train_step returns the loss of the whole batch, so every process needs all logits. Each
        # fills in its rows of zeros, and the sum has all rows. Gradients flow through ours only.
        rows = logits.new_zeros(len(x), logits.shape[1])
        rows[first:last] = logits.detach()
        dist.all_reduce(rows)
        return torch.cat((rows[:first], logits, rows[last:]))


def _draw(
    dropout: nn.Module, rows: int, linear: nn.Linear, generator: Generator | None
) -> Tensor | None:
    """Draw the mask of a layer for the whole batch, if `dropout` would draw one."""
    assert isinstance(dropout, Dropout)  # other kinds of noise would be drawn in another way
    if generator is None or not dropout.training or dropout.p in (0, 1):
        return None
    return sample_keep((rows, linear.out_features), dropout.p, generator=generator)


def _sum_gradients(state: Any, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Sum gradients over all processes. DistributedDataParallel alone would take their mean."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def distribute(model: MLP) -> nn.Module:
    """Return the network to train: `model` itself, unless several processes share each batch.

    Args:
        model: the network. Training what is returned changes its weights.
    """
    return ParallelMLP(model) if dist.is_initialized() else model


def gather(value: Any) -> list[Any]:
    """Return what every process passed to this function, in the order of the processes."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def join(config: Config) -> Iterator[Group]:
    """Join the other processes of the run, if there are any, as long as the context lasts.

    Args:
        config: settings, for the device.

    Yields:
        The group of processes.

    Raises:
        InputError: the others cannot be reached, or there is no device for this process.
    """
    # DIFF device: torchrun starts the processes, and tells each by these variables which it is.
    if "RANK" not in os.environ or "WORLD_SIZE" not in os.environ:
        yield ALONE
        return
    end_with_launcher()
    rank, size = os.environ["RANK"], os.environ["WORLD_SIZE"]
    with joining():
        if not 0 <= int(rank) < int(size):
            raise InputError(f"RANK must be in 0 ... WORLD_SIZE - 1, got {rank} of {size}")
        if config.device in ("auto", "cuda") and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        with deadline(f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"):
            dist.init_process_group(timeout=datetime.timedelta(seconds=WAIT_TIMEOUT))
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), gather)
    finally:
        dist.destroy_process_group()
