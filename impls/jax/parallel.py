"""Several devices train one network, each on its part of every batch, in JAX and Flax.

python -m impls.jax.parallel --devices 2 --out runs/jax-2
mpirun -n 2 python -m impls.jax.parallel --out runs/jax-2     # also srun, or by hand: see `join`

This is data parallelism, explained in impls/torch/parallel.py. The difference: here we only say
that the rows of a batch are divided among the devices. The compiler divides the computation, draws
on each device its part of the masks, and adds the communication. The devices may belong to one
process or to several.
"""

import contextlib
import dataclasses
import os
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jax.experimental.multihost_utils import process_allgather
from jax.lax import with_sharding_constraint
from jax.sharding import AxisType, PartitionSpec

from impls.jax.device import use
from impls.jax.mlp import MLP, Inputs, Logits, Masks
from impls.jax.train import train
from shared.checks import InputError
from shared.cli import one_line_errors
from shared.config import RunConfig, check_range
from shared.run import Run, one_line_if_lost

# The first axis of an array is divided among the devices, which lie along the mesh axis "devices".
ROWS = PartitionSpec("devices")


@dataclasses.dataclass(frozen=True)
class ParallelConfig(RunConfig):
    """Train the multilayer perceptron with dropout on Fashion-MNIST, on several devices.

    The defaults are the settings of the article.
    """

    devices: int = 1
    """Devices of each process that share its part. On a CPU they are simulated."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, devices=64)


class ParallelMLP(nnx.Module):
    """The network, for a batch that the devices share."""

    def __init__(self, model: MLP) -> None:
        """Wrap a network. Training what is made changes its weights."""
        self.model = model
        self.deterministic = False

    def __call__(self, x: Inputs, *, key: Array | None = None, keep: Masks | None = None) -> Logits:
        """Compute the logits, one row per example.

        Args:
            x: inputs of the whole batch.
            key: in training, the source of both masks.
            keep: in training, two masks for the whole batch to use instead of drawing them.
        """
        if self.deterministic:
            return self.model(x)
        # Each device gets ceil(rows / devices) rows, the last ones fewer or none.
        x = with_sharding_constraint(x, ROWS)
        # DIFF randomness: a number depends only on the key and its position in the mask, so each
        # device draws the rows of its own.
        logits = self.model(x, key=key, keep=keep)
        return with_sharding_constraint(logits, ROWS)


def gather(value: Any) -> list[Any]:
    """Return what every process passed to this function, in the order of the processes."""
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = process_allgather(np.int32(len(data)))  # arrays of one shape, so the sizes go first
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    return [pickle.loads(row.tobytes()) for row in process_allgather(padded)]


@contextlib.contextmanager
def join(run: Run) -> Iterator[None]:
    """Join the other processes of the run, as long as the context lasts.

    Args:
        run: its flags. Its `gather` and `writes` are set.

    Raises:
        InputError: the others cannot be reached, or there are fewer devices than asked for.
    """
    # DIFF processes: mpirun or srun start them. By hand, set JAX_PROCESS_ID, JAX_NUM_PROCESSES and
    # JAX_COORDINATOR_ADDRESS, the HOST:PORT at which process 0 is reached.
    assert isinstance(run.config, ParallelConfig)
    env = os.environ
    processes = env.get("JAX_NUM_PROCESSES") or env.get("OMPI_COMM_WORLD_SIZE")
    rank = env.get("JAX_PROCESS_ID") or env.get("OMPI_COMM_WORLD_RANK")
    if run.config.devices > 1:
        jax.config.update("jax_num_cpu_devices", run.config.devices)
    if (processes or env.get("SLURM_STEP_NUM_TASKS") or "1") == "1":
        with _mesh(run.config):
            yield
        return
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM
    give_up = threading.Timer(60, _give_up)  # left to itself, JAX aborts with pages of C++
    give_up.daemon = True
    give_up.start()
    try:
        jax.distributed.initialize(
            num_processes=int(processes) if processes else None,
            process_id=int(rank) if rank else None,
        )
    except Exception as error:  # an IndexError for an address without a port, for example
        raise InputError(
            f"cannot join the other processes: {error}. If nothing says where process 0 is, set "
            "JAX_COORDINATOR_ADDRESS=HOST:PORT"
        ) from None
    finally:
        give_up.cancel()
    run.gather, run.writes = gather, jax.process_index() == 0
    try:
        with one_line_if_lost(), _mesh(run.config):
            yield
    except BaseException as error:
        # At once: JAX would first wait for the others, who may be waiting for us. But process 0
        # leaves last, because JAX aborts the processes that lose it.
        if not isinstance(error, SystemExit):
            traceback.print_exception(error)
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(float(run.writes))
        os._exit(error.code if isinstance(error, SystemExit) and isinstance(error.code, int) else 1)
    jax.distributed.shutdown()


def _give_up() -> None:
    print("error: the other processes did not join within 60 seconds", file=sys.stderr, flush=True)
    os._exit(2)


@contextlib.contextmanager
def _mesh(config: ParallelConfig) -> Iterator[None]:
    """Divide the axis of `ROWS` among the devices of all processes."""
    platform = use(config.device).platform
    chosen: list[jax.Device] = []
    for process in range(jax.process_count()):
        devices = [one for one in jax.devices(platform) if one.process_index == process]
        if len(devices) < config.devices:
            raise InputError(
                f"process {process} has {len(devices)} devices ({platform}), not {config.devices}"
            )
        chosen += devices[: config.devices]
    types = (AxisType.Auto,)  # the compiler finds out what else is to be divided
    mesh = jax.make_mesh((len(chosen),), tuple(ROWS), axis_types=types, devices=chosen)
    with jax.set_mesh(mesh):
        yield


def main(args: Sequence[str] | None = None) -> None:
    """Train as `impls.jax.train` does, together with the other devices."""
    run = Run("jax", args, "parallel", ParallelConfig)
    with one_line_errors(), join(run), run:
        config = run.config
        device = use(config.device, config.dtype, config.precision)
        data = tuple(jnp.asarray(array) for array in run.arrays)
        model = MLP.from_config(config, inputs=data[0].shape[1])
        first_epoch = run.restore(model, device)
        network = ParallelMLP(model)
        optimizer = nnx.Optimizer(network, optax.sgd(config.lr), wrt=nnx.Param)
        for record in train(network, optimizer, data, config, first_epoch):
            run.save(record, model)


if __name__ == "__main__":
    main()
