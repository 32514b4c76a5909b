"""What a run leaves behind: log.jsonl, a file of JSON lines.

The first line is a `Header`, each further one an `EpochRecord`. Where a run went on elsewhere, in
another framework for example, there is another `Header` before the epochs that were made there.
"""

import dataclasses
import json
import math
import os
import platform
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from shared.checks import InputError
from shared.config import Config
from shared.data import Data

# The packages whose versions go into the log of a run.
PACKAGES = {"torch": ("torch",), "jax": ("jax", "jaxlib", "flax", "optax")}
# Variables of the environment that change how sums are rounded.
ROUNDING = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "ATEN_CPU_CAPABILITY", "XLA_FLAGS",
            "JAX_DISABLE_JIT", "NVIDIA_TF32_OVERRIDE")  # fmt: skip


class Header(TypedDict):
    """Everything that the epochs behind it depend on."""

    framework: str  # torch or jax
    config: dict[str, Any]  # every setting of the run
    data: str  # full, sample or a folder: what auto chose, if the setting was auto
    images: str  # how many for training and for the test
    sha256: str  # of the images and labels
    versions: dict[str, str]  # of Python, NumPy and the framework
    machine: dict[str, Any]  # processor, cores, device, and variables of the environment


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


class DivergedError(ArithmeticError):
    """The loss is infinite or not a number."""


def epoch_record(
    epoch: int,
    losses: np.ndarray,
    correct: np.ndarray,
    scores: tuple[float, float],
    examples: int,
    batch_size: int,
    seconds: float,
) -> EpochRecord:
    """Make the record of an epoch.

    Args:
        epoch: counted from 1.
        losses, correct: mean loss and number of correct examples of each step, dropout on,
            shape (steps,).
        scores: loss and accuracy on the test images, dropout off.
        examples: number of training examples.
        batch_size: examples in a step. The last step has the examples that are left.
        seconds: time of the training pass.

    Raises:
        DivergedError: a loss is infinite or not a number.
    """
    for i in np.flatnonzero(~np.isfinite(losses)):
        step = (epoch - 1) * len(losses) + i
        raise DivergedError(
            f"the loss is {losses[i]} at step {step}, in epoch {epoch}. A lower learning rate may "
            "help"
        )
    if not math.isfinite(scores[0]):
        raise DivergedError(
            f"the loss is {scores[0]} on the test images, after epoch {epoch}. A lower learning "
            "rate may help"
        )
    sizes = np.minimum(batch_size, examples - batch_size * np.arange(len(losses)))
    return {
        "epoch": epoch,
        "train_loss": float(np.average(losses.astype(np.float64), weights=sizes)),
        "train_accuracy": int(correct.sum()) / examples,
        "test_loss": scores[0],
        "test_accuracy": scores[1],
        "seconds": seconds,
    }


EPOCH_HEADER = "epoch  train loss  train accuracy  test loss  test accuracy  seconds"


def epoch_line(record: EpochRecord) -> str:
    """Return the line that a command prints for an epoch, below `EPOCH_HEADER`."""
    return (
        f"{record['epoch']:5}  {record['train_loss']:10.4f}  {record['train_accuracy']:14.4f}"
        f"  {record['test_loss']:9.4f}  {record['test_accuracy']:13.4f}  {record['seconds']:7.2f}"
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
    threads = ". OMP_NUM_THREADS=1 usually makes PyTorch quicker then"
    return (
        f"note: the quickest epoch took {min(seconds):.2f} s, the mean {np.mean(seconds):.2f} s. "
        "Perhaps other programs were using the processor"
        + (threads if framework == "torch" and "OMP_NUM_THREADS" not in os.environ else "")
    )


def make_header(framework: str, config: Config, data: Data, device: str) -> Header:
    """Return the first line of a log.

    Args:
        framework: its name, torch or jax.
        config: the settings of the run.
        data: what it trains on.
        device: what it computes on.
    """
    settings = {field.name: getattr(config, field.name) for field in dataclasses.fields(Config)}
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "framework": framework,
        "config": settings | {"out": str(config.out)},
        "data": data.name,
        "images": data.images,
        "sha256": data.sha256,
        "versions": {package: version(package) for package in ("numpy", *PACKAGES[framework])}
        | {"python": platform.python_version()},
        "machine": {"processor": _processor(), "cores": cores, "device": device}
        | {name: os.environ[name] for name in ROUNDING if name in os.environ},
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def changes(before: Header, after: Header) -> dict[str, tuple[Any, Any]]:
    """Return the settings and circumstances in which two headers differ, but for the folder."""
    # `data` is what auto chose. Versions of what only one of the frameworks uses say nothing.
    a, b = ({**h["config"], **h, **h["machine"], **h["versions"], "out": "",
             "config": "", "versions": "", "machine": ""} for h in (before, after))  # fmt: skip
    versions = before["versions"].keys() ^ after["versions"].keys()
    names = [name for name in dict.fromkeys([*a, *b]) if name not in versions]
    return {name: (a.get(name), b.get(name)) for name in names if a.get(name) != b.get(name)}


def read_log(path: Path) -> tuple[list[Header], list[EpochRecord]]:
    """Return the headers of a log.jsonl and the records of its epochs.

    Raises:
        InputError: the file cannot be read, or it is not the log of a run.
    """
    try:
        return split_lines([json.loads(line) for line in path.read_text().splitlines()])
    except FileNotFoundError:
        raise InputError(f"there is no {path}. Name a folder that a train command wrote") from None
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not the log of a run: {error!r}") from None


def split_lines(lines: list[Any]) -> tuple[list[Header], list[EpochRecord]]:
    """Return the headers and the records among the lines of a log.

    Raises:
        ValueError, KeyError, TypeError: these are not the lines of a log.
    """
    headers = [line for line in lines if "epoch" not in line]
    records = [line for line in lines if "epoch" in line]
    if not headers or lines[0] is not headers[0]:
        raise ValueError("it does not start with a header")
    for header in headers:
        for name, kind in {**Header.__annotations__, "config": dict, "versions": dict,
                           "machine": dict}.items():  # fmt: skip
            if type(header[name]) is not kind:
                raise ValueError(f"{name} is {header[name]!r:.100}")
    for epoch, record in enumerate(records, 1):
        for name in EpochRecord.__annotations__:
            if type(record[name]) not in (int, float) or not abs(record[name]) < 1e300:
                raise ValueError(f"{name} is {record[name]!r:.100}")
        if record["epoch"] != epoch or not 0 <= record["test_accuracy"] <= 1:
            raise ValueError(f"epoch {epoch} is missing or impossible")
    return headers, records
