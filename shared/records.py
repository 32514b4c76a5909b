"""What a run leaves behind: a record for each epoch, in memory and in log.jsonl.

log.jsonl is a file of JSON lines. The first is a `Header`, each further one an `EpochRecord`.
"""

import dataclasses
import json
import math
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TextIO, TypedDict

import numpy as np

from shared.checks import InputError
from shared.config import Config
from shared.files import printable, read_text
from shared.idx import Data


class Machine(TypedDict):
    """What a run computes on. Another machine, or other threads, may round sums differently."""

    processor: str
    device: str  # cpu, or the name of the GPU
    threads: int  # that the framework computes with on the processor


class Header(TypedDict):
    """The first line of a log."""

    framework: str  # torch or jax
    config: dict[str, Any]  # every setting of the run
    versions: dict[str, str]  # of Python, NumPy and the framework
    data: str  # full, sample or a folder: what auto chose, if the setting was auto
    images: str  # how many for training and for the test
    machine: Machine  # not a part of the settings: a run may go on elsewhere


class EpochRecord(TypedDict):
    """The results of an epoch.

    train_loss and train_accuracy are means over the epoch, with dropout on, while the weights
    change. test_loss and test_accuracy are those of the weights at the end of the epoch, with
    dropout off. seconds is the time of the training pass, without the evaluation.
    """

    epoch: int  # counted from 1
    train_loss: float
    train_accuracy: float
    test_loss: float
    test_accuracy: float
    seconds: float


Weights = dict[str, np.ndarray]  # as in a weight file


class TrainResult(NamedTuple):
    """Where a run stands: one record per epoch, and the weights after the last of them."""

    history: list[EpochRecord]
    weights: Weights


# Called when an epoch ends, with its record and a function that returns the weights. Training stops
# early where it returns True.
OnEpoch = Callable[[EpochRecord, Callable[[], Weights]], bool | None]


LONGEST_LOG = 2**30  # bytes: millions of epochs
LARGEST = 1e300  # of the numbers in a record


class DivergedError(ArithmeticError):
    """The loss is infinite or not a number."""


def check_finite(losses: np.ndarray, epoch: int, first_step: int) -> None:
    """Raise DivergedError if the loss of a step is infinite or not a number.

    Args:
        losses: of the steps of an epoch.
        epoch: counted from 1.
        first_step: the number of the first of these steps, counted from 0 over the run.
    """
    bad = np.flatnonzero(~np.isfinite(losses))
    if len(bad):
        raise DivergedError(
            f"the loss is {losses[bad[0]]} at step {first_step + bad[0]}, in epoch {epoch}. A "
            "lower learning rate may help"
        )


def epoch_record(
    epoch: int,
    losses: np.ndarray,
    correct: np.ndarray,
    test_scores: tuple[float, float],
    examples: int,
    batch_size: int,
    seconds: float,
) -> EpochRecord:
    """Make the record of an epoch.

    Args:
        epoch: counted from 1.
        losses, correct: mean loss and number of correct examples of each step, dropout on,
            shape (steps,).
        test_scores: loss and accuracy on the test images, dropout off.
        examples: number of training examples.
        batch_size: examples in a step. The last step has the examples that are left.
        seconds: time of the training pass.

    Raises:
        DivergedError: the loss on the test images is infinite or not a number.
    """
    if not math.isfinite(test_scores[0]):
        raise DivergedError(
            f"the loss is {test_scores[0]} on the test images, after epoch {epoch}. A lower "
            "learning rate may help"
        )
    sizes = np.minimum(batch_size, examples - batch_size * np.arange(len(losses)))
    return {
        "epoch": epoch,
        "train_loss": float(np.average(losses.astype(np.float64), weights=sizes)),
        "train_accuracy": int(correct.sum()) / examples,
        "test_loss": test_scores[0],
        "test_accuracy": test_scores[1],
        "seconds": seconds,
    }


EPOCH_HEADER = "epoch  train loss  train accuracy  test loss  test accuracy  seconds"


def epoch_line(record: EpochRecord) -> str:
    """Return the line that a command prints for an epoch, below `EPOCH_HEADER`."""
    return (
        f"{record['epoch']:5}  {record['train_loss']:10.4f}  {record['train_accuracy']:14.4f}"
        f"  {record['test_loss']:9.4f}  {record['test_accuracy']:13.4f}  {record['seconds']:7.2f}"
    )


OMP_NOTE = (
    " If so, the environment variable OMP_NUM_THREADS=1 usually makes PyTorch quicker (and rounds "
    "sums differently)."
)


def slow_epochs_note(history: list[EpochRecord], framework: str) -> str | None:
    """Return a sentence to print if the mean epoch took twice as long as the quickest, else None.

    The first epoch is left out because it may include compilation.

    Args:
        history: a record for each epoch.
        framework: what trained, torch or jax.
    """
    seconds = [record["seconds"] for record in history[1:]]
    if len(seconds) < 2 or sum(seconds) < 2 * len(seconds) * min(seconds):
        return None
    return (
        f"note: the quickest epoch took {min(seconds):.2f} s, the mean {np.mean(seconds):.2f} s. "
        "Perhaps other programs were using the processor."
        + (OMP_NOTE if framework == "torch" and "OMP_NUM_THREADS" not in os.environ else "")
    )


def processor() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def make_header(
    framework: str, packages: tuple[str, ...], config: Config, data: Data, machine: Machine
) -> Header:
    """Return the first line of a log.

    Args:
        framework: its name.
        packages: whose versions to record.
        config: the settings of the run.
        data: what it trains on.
        machine: what it computes on.
    """
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}
    return {
        "framework": framework,
        "config": settings | {"out": str(config.out)},
        "versions": {package: version(package) for package in ("numpy", *packages)}
        | {"python": platform.python_version()},
        "data": data.name,
        "images": data.images,
        "machine": machine,
    }


def write_line(log: TextIO, line: Header | EpochRecord) -> None:
    """Append a line to an open log, so that it is in the file at once."""
    log.write(json.dumps(line, allow_nan=False) + "\n")
    log.flush()


def read_log(path: Path) -> tuple[Header, list[EpochRecord]]:
    """Return the header of a log.jsonl and the records of its epochs.

    Raises:
        InputError: the file cannot be read, or it is not the log of a run.
    """
    try:
        text = read_text(path, LONGEST_LOG)
    except FileNotFoundError:
        raise InputError(
            f"there is no {printable(path)}. Name a folder that a train command wrote"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {printable(path)}: {printable(error)}") from None
    try:
        header, *history = [json.loads(line) for line in text.splitlines()]
        check_header(header)
        check_history(history)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        words = printable(repr(error))
        raise InputError(f"{printable(path)} is not the log of a run: {words}") from None
    return header, history


def check_header(header: Any) -> None:
    """Raise ValueError, KeyError or TypeError unless this is a `Header`, as far as we need it."""
    for key in ("framework", "data", "images"):
        if type(header[key]) is not str:
            raise ValueError(f"{key} is not text")
    for key in ("config", "versions"):
        if type(header[key]) is not dict:
            raise ValueError(f"{key} is not an object")


def check_history(history: Any) -> None:
    """Raise ValueError, KeyError or TypeError unless these are records of epochs that count up."""
    if type(history) is not list:
        raise ValueError("the history is not a list")
    for before, record in zip([None, *history], history, strict=False):
        for name in EpochRecord.__annotations__:
            value = record[name]
            if type(value) not in (int, float) or not abs(value) <= LARGEST:
                raise ValueError(f"{name} is {value}")
        if not 0 <= record["test_accuracy"] <= 1:
            raise ValueError(f"a test accuracy of {record['test_accuracy']}")
        if before and record["epoch"] <= before["epoch"]:
            raise ValueError(f"epoch {record['epoch']} is behind epoch {before['epoch']}")
