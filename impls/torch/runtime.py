"""The device and the precision of a run, in PyTorch."""

import contextlib
from collections.abc import Iterator

import torch

from shared.checks import InputError
from shared.config import Config
from shared.records import Machine, processor


@contextlib.contextmanager
def runtime(config: Config) -> Iterator[torch.device]:
    """Compute in the precision of `config`, as long as the context lasts.

    Yields:
        The device of `config`, on which to put tensors and modules.

    Raises:
        InputError: there is no such device.
    """
    device = choose_device(config.device)
    before = torch.get_float32_matmul_precision()
    # DIFF precision: PyTorch has one setting for the whole process.
    torch.set_float32_matmul_precision(config.precision)
    try:
        yield device
    finally:
        torch.set_float32_matmul_precision(before)


def choose_device(name: str) -> torch.device:
    """Return the device of that name, or for `auto` a GPU if there is one.

    Raises:
        InputError: there is no such device.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except Exception as error:  # each kind of device fails in its own way
        raise InputError(f"no device {name!r}: {str(error).splitlines()[0]}") from None
    return device


def describe(name: str) -> Machine:
    """Return what a run on the device of that name computes on, for its log.

    Raises:
        InputError: there is no such device.
    """
    device = choose_device(name)
    model = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    return {"processor": processor(), "device": model, "threads": torch.get_num_threads()}
