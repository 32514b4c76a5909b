"""Every setting of a run, in one frozen dataclass; the command line is made from it."""

import contextlib
import dataclasses
import io
import math
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeVar

import tyro

from shared.checks import check_probability


class InputError(ValueError):
    """What the user gave cannot be used: the commands print it as one line and exit with 2."""


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the multilayer perceptron with dropout on Fashion-MNIST.

    The defaults are those of the article.
    """

    epochs: int = 10
    """Passes over the training data."""
    batch_size: int = 256
    """Examples in a step; the last step of an epoch takes what is left."""
    lr: float = 0.5
    """Learning rate of plain SGD."""
    p1: float = 0.2
    """Probability of dropping a unit of the first hidden layer."""
    p2: float = 0.5
    """Probability of dropping a unit of the second hidden layer."""
    hidden1: int = 256
    """Units in the first hidden layer."""
    hidden2: int = 256
    """Units in the second hidden layer."""
    seed: int = 0
    """Initial weights, batch order and masks are functions of this, 0 to 2**32 - 1."""
    data: str = "auto"
    """full, sample, auto (full if it can be had, else sample), or a folder of four IDX files."""
    resize: int | None = None
    """Side, in pixels, to resize the square images to."""
    out: Path = Path("runs/run")
    """Folder for log.jsonl and weights.safetensors."""
    dtype: Literal["float32", "float64"] = "float32"
    """Precision of weights, activations and gradients."""
    precision: Literal["highest", "high", "medium"] = "highest"
    """Of float32 matrix products, as the framework and the processor understand it."""
    device: str = "auto"
    """auto, cpu, or another device by the framework's own name (cuda, tpu, ...)."""

    def __post_init__(self) -> None:
        # The upper bounds only keep out what no machine can hold.
        for name, most in {
            "epochs": 10**9,
            "batch_size": 10**9,
            "hidden1": 10**6,
            "hidden2": 10**6,
            "resize": 1024,
        }.items():
            value = getattr(self, name)
            if value is not None and not 1 <= value <= most:
                raise InputError(f"{name} must be in 1 ... {most}, got {value}")
        if not (math.isfinite(self.lr) and self.lr >= 0):
            raise InputError(f"lr must be finite and not negative, got {self.lr}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be in 0 ... 2**32 - 1, got {self.seed}")
        if self.dtype not in ("float32", "float64"):
            raise InputError(f"dtype must be float32 or float64, got {self.dtype}")
        if self.precision not in ("highest", "high", "medium"):
            raise InputError(f"precision must be highest, high or medium, got {self.precision}")
        for name in ("p1", "p2"):
            try:
                check_probability(getattr(self, name), name)
            except (TypeError, ValueError) as error:
                raise InputError(str(error)) from None


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Score a weight file, written by any of the implementations, on the test images."""

    weights: Path
    """A weights.safetensors file."""
    data: str = "auto"
    """full, sample, auto (full if it can be had, else sample), or a folder of four IDX files."""
    device: str = "auto"
    """auto, cpu, or another device by the framework's own name (cuda, tpu, ...)."""


Settings = TypeVar("Settings")


def parse(settings: type[Settings], *, args: Sequence[str] | None = None, **defaults) -> Settings:
    """Read the command line into a dataclass.

    Args:
        settings: the dataclass whose fields are the flags.
        args: the words of the command line; those of this process unless given.
        defaults: fields whose default differs for this command.

    Raises:
        InputError: an unknown flag, or a value of the wrong kind, in one line.
    """
    options: dict[str, Any] = {"args": args}
    if defaults:
        fields = dataclasses.fields(settings)  # type: ignore[arg-type]  # any dataclass, unsayable
        named = {field.name: field.default for field in fields}
        options["default"] = settings(**named | defaults)
    complaint = io.StringIO()
    try:
        with contextlib.redirect_stderr(complaint):
            return tyro.cli(settings, **options)
    except SystemExit as stop:
        if not stop.code:  # --help
            raise
        # tyro draws a box, in colours on a terminal: title, message, rule, where to find help.
        plain = re.sub(r"\x1b\[[0-9;]*m", "", complaint.getvalue()).replace("|", "│")
        body = plain.partition("\n")[2].lstrip("-+\n ")  # a rule may stand under the title, too
        message = re.split(r"\n│? *[─-]{8,}", body)[0]
        words = " ".join(line.strip("╭╮╰╯│─ ") for line in message.splitlines()).split()
        text = " ".join(words).removeprefix(f"Error parsing {settings.__name__}: ")
        raise InputError(f"{text} (see --help)") from None


@contextlib.contextmanager
def one_line_errors():
    """End the process with one line on stderr and exit status 2 on an InputError."""
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None
