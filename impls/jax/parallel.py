"""Several devices train one network, each on its part of every batch, in JAX and Flax.

python -m impls.jax.train --processes 2

This is data parallelism, explained in impls/torch/parallel.py. The difference: here we only say
that the rows of a batch are divided among the devices. The compiler divides the computation, draws
on each device its part of the masks, and adds the communication. The devices may belong to one
process or to several.
"""

import contextlib
import os
import pickle
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array
from jax.experimental.multihost_utils import process_allgather
from jax.lax import with_sharding_constraint
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from impls.jax.mlp import MLP, Inputs, Logits, Masks
from impls.jax.runtime import choose_device
from shared.checks import InputError
from shared.cli import one_line_errors
from shared.config import ParallelConfig
from shared.group import ALONE, JOIN_TIMEOUT, Group, deadline, joining
from shared.launch import (
    check_address,
    check_free,
    end_with_launcher,
    free_address,
    launch,
    leave,
    quiet,
)
from shared.memory import check_room

# The first axis of an array is divided among the devices, which lie along the mesh axis "devices".
ROWS = PartitionSpec("devices")


class ParallelMLP(nnx.Module):
    """The network, for a batch that the devices share."""

    def __init__(self, model: MLP) -> None:
        self.model = model

    def __call__(self, x: Inputs, *, key: Array | None = None, keep: Masks | None = None) -> Logits:
        """Compute the logits, one row per example.

        Args:
            x: inputs of the whole batch.
            key: in training, the source of both masks.
            keep: in training, two masks for the whole batch to use instead of drawing them.
        """
        # Each device gets ceil(rows / devices) rows, the last ones fewer or none.
        x = with_sharding_constraint(x, ROWS)
        # DIFF randomness: a number depends only on the key and its position in the mask, so each
        # device draws the rows of its own.
        logits = self.model(x, key=key, keep=keep)
        return with_sharding_constraint(logits, ROWS)


def distribute(model: MLP) -> nnx.Module:
    """Return the network to train: `model` itself, unless several devices share each batch.

    Args:
        model: the network. Training what is returned changes its weights.
    """
    return model if jax.sharding.get_abstract_mesh().empty else ParallelMLP(model)


def gather(value: Any) -> list[Any]:
    """Return what every process passed to this function, in the order of the processes."""
    data = np.frombuffer(pickle.dumps(value), np.uint8)
    sizes = process_allgather(np.int32(len(data)))  # arrays of one shape, so the sizes go first
    padded = np.zeros(sizes.max(), np.uint8)
    padded[: len(data)] = data
    return [pickle.loads(row.tobytes()) for row in process_allgather(padded)]


@contextlib.contextmanager
def join(config: ParallelConfig) -> Iterator[Group]:
    """Join the other processes of the run, if there are any, as long as the context lasts.

    Args:
        config: settings, for the device.

    Yields:
        The group of processes.

    Raises:
        InputError: the others cannot be reached, or there is no device for this process.
    """
    # DIFF device: JAX has no torchrun, so this process starts the others. On several machines,
    # start every process by hand with all flags and these two variables.
    rank, address = os.environ.get("JAX_PROCESS_ID"), os.environ.get("JAX_COORDINATOR_ADDRESS", "")
    if config.processes > 1 and rank is None:
        raise SystemExit(_launch(config, address or free_address()))
    if config.devices > 1:
        jax.config.update("jax_num_cpu_devices", config.devices)
    if config.processes == 1:
        if rank is not None:
            raise InputError("JAX_PROCESS_ID is set, so --processes must say how many there are")
        with _mesh(config):
            yield ALONE
        return
    end_with_launcher()
    jax.config.update("jax_enable_preemption_service", False)  # it would catch SIGTERM
    with joining():
        (check_free if rank == "0" else check_address)(address)
        with deadline(address):
            jax.distributed.initialize(
                address,
                config.processes,
                int(os.environ["JAX_PROCESS_ID"]),
                initialization_timeout=2 * JOIN_TIMEOUT,
                shutdown_timeout_seconds=JOIN_TIMEOUT,
            )
    try:
        with one_line_errors(), _mesh(config):
            with joining(), quiet():  # gloo prints that it connects all processes, then all devices
                gather(None)
                rows = NamedSharding(jax.sharding.get_mesh(), ROWS)
                jnp.zeros(rows.num_devices, device=rows).sum().block_until_ready()
            yield Group(jax.process_index(), jax.process_count(), gather)
    except BaseException as error:
        # At once: JAX would first wait for the others, who may be waiting for us. But process 0
        # leaves last, because JAX aborts the processes that lose it.
        leave(error, after=1 if rank == "0" else 0)
    jax.distributed.shutdown()


def _launch(config: ParallelConfig, address: str) -> int:
    """Start all processes on this machine, wait for them, and return the exit status."""
    check_address(address)
    check_room(config.processes * 2**29, f"{config.processes} processes")
    devices = np.arange(config.processes * config.devices).reshape(config.processes, -1)
    return launch(
        [
            {
                "JAX_PROCESS_ID": str(rank),
                "JAX_COORDINATOR_ADDRESS": address,
                "JAX_COORDINATOR_BIND_ADDRESS": address,
                "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, ours)),
                "TF_CPP_MIN_LOG_LEVEL": "3",  # do not log that a process is lost
            }
            for rank, ours in enumerate(devices)
        ]
    )


@contextlib.contextmanager
def _mesh(config: ParallelConfig) -> Iterator[None]:
    """Divide the axis of `ROWS` among the devices of all processes, if there are several."""
    platform = choose_device(config.device).platform
    if config.processes * config.devices == 1:
        yield
        return
    chosen = []
    for process in range(config.processes):
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
