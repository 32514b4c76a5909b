"""Several processes train one network, each on its part of every batch, in PyTorch.

torchrun --nproc-per-node 2 -m impls.torch.parallel --out runs/torch-2

This is data parallelism. Every process has all weights, and computes its own rows of each batch.
The masks are drawn for the whole batch, the loss is the mean over the whole batch, and the
gradients are summed over all processes. So `train` is that of one process, and so are its losses
and its weights, up to rounding.
"""

import contextlib
import ctypes
import datetime
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from torch import Generator, Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from impls.torch.device import use
from impls.torch.dropout import Mask, sample_keep
from impls.torch.mlp import MLP, Inputs, Logits, Masks
from impls.torch.train import train
from shared.checks import InputError
from shared.cli import one_line_errors
from shared.run import Run, one_line_if_lost

PR_SET_PDEATHSIG = 1  # of Linux: which signal a process gets when its parent dies


class ParallelMLP(nn.Module):
    """The network, for a batch that the processes share. Each gets all logits of the batch."""

    def __init__(self, model: MLP) -> None:
        """Wrap a network. Training what is made changes its weights."""
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
        if not self.training:
            return self.model(x)
        rank, size = dist.get_rank(), dist.get_world_size()
        # Our rows. Parts differ by at most one row. Some are empty if there are too few rows.
        first, last = len(x) * rank // size, len(x) * (rank + 1) // size
        # DIFF randomness: a generator has to draw all numbers before ours, so each process draws
        # the masks of the whole batch.
        keep_1, keep_2 = keep or (
            self._draw(self.model.dropout_1.p, x, self.model.sizes[1], generator),
            self._draw(self.model.dropout_2.p, x, self.model.sizes[2], generator),
        )
        ours = slice(first, last)
        logits = self.replica(x[ours], keep=(keep_1[ours], keep_2[ours]))
        # train_step returns the loss of the whole batch, so every process needs all logits. Each
        # fills in its rows of zeros, and the sum has all rows. Gradients flow through ours only.
        rows = logits.new_zeros(len(x), logits.shape[1])
        rows[ours] = logits.detach()
        dist.all_reduce(rows)
        return torch.cat((rows[:first], logits, rows[last:]))

    @staticmethod
    def _draw(p: Any, x: Tensor, units: int, generator: Generator | None) -> Mask:
        """Draw a mask for the whole batch. As in `dropout`, nothing is drawn at p = 0 and p = 1."""
        if p in (0, 1):
            return torch.full((len(x), units), p == 0, device=x.device)
        return sample_keep((len(x), units), p, generator=generator)


def _sum_gradients(state: Any, bucket: dist.GradBucket):  # PyTorch allows one annotation only
    """Sum gradients over all processes. DistributedDataParallel alone would take their mean."""
    future = dist.all_reduce(bucket.buffer(), async_op=True).get_future()
    return future.then(lambda done: done.value()[0])


def gather(value: Any) -> list[Any]:
    """Return what every process passed to this function, in the order of the processes."""
    values = [None] * dist.get_world_size()
    dist.all_gather_object(values, value)
    return values


@contextlib.contextmanager
def join(run: Run) -> Iterator[None]:
    """Join the other processes of the run, as long as the context lasts.

    Args:
        run: its flags. Its `gather` and `writes` are set.

    Raises:
        InputError: the others cannot be reached, or torchrun has not started this process.
    """
    # DIFF processes: torchrun starts them, and tells each by these variables which it is.
    if "RANK" not in os.environ:
        raise InputError("start it with: torchrun --nproc-per-node 2 -m impls.torch.parallel")
    if sys.platform == "linux":  # SIGTERM as soon as torchrun is gone: it leaves its workers behind
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    try:
        if run.config.device in ("auto", "cuda") and torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
        dist.init_process_group(timeout=datetime.timedelta(minutes=10))
    except (RuntimeError, ValueError) as error:
        raise InputError(f"cannot join the other processes: {error}") from None
    run.gather, run.writes = gather, dist.get_rank() == 0
    with one_line_if_lost():
        yield


def main(args: Sequence[str] | None = None) -> None:
    """Train as `impls.torch.train` does, together with the other processes."""
    run = Run("torch", args, "parallel")
    with one_line_errors(), join(run), run:
        config = run.config
        device = use(config.device, config.dtype, config.precision)
        data = tuple(torch.asarray(array, device=device) for array in run.arrays)
        model = MLP.from_config(config, inputs=data[0].shape[1]).to(device)
        first_epoch = run.restore(model, device)
        network = ParallelMLP(model)
        optimizer = torch.optim.SGD(network.parameters(), lr=config.lr)
        for record in train(network, optimizer, data, config, first_epoch):
            run.save(record, model)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # cleaning up, PyTorch's threads sometimes abort a process whose peers have ended
