"""The programs that are measured, under the names that the tables show.

A program is a function of a `Setting`. It prepares whatever is not timed and returns a function.
That function does the work that is timed: it trains for one epoch, or for the first steps of one,
or it calls dropout a number of times. Its argument counts the calls: 0, 1, ... It returns when the
device has finished.
"""

import dataclasses
import importlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from shared.config import Precision
from shared.data import load, to_inputs

LR = 0.5
RATES = (0.2, 0.5)  # the probabilities of dropping a unit of each hidden layer
Run = Callable[[int], Any]

# Every program runs in its own process, which imports only the module of that program.
PROGRAMS = {
    "torch epoch": "on_torch.epoch",
    "torch floor": "on_torch.floor",
    "torch loop, F.dropout": "on_torch.framework_loop",
    "torch seeds at once": "on_torch.seeds_at_once",
    "torch seeds in turn": "on_torch.seeds_in_turn",
    "torch dropout": "on_torch.dropout",
    "F.dropout": "on_torch.framework_dropout",
    "article, 0 workers": "article.without_workers",
    "article, 4 workers": "article.with_workers",
    "jax epoch": "on_jax.epoch",
    "jax floor": "on_jax.floor",
    "nnx loop": "on_jax.framework_loop",
    "jax seeds at once": "on_jax.seeds_at_once",
    "jax seeds in turn": "on_jax.seeds_in_turn",
    "jax dropout": "on_jax.dropout",
    "nnx.Dropout": "on_jax.framework_dropout",
    "keras on torch": "on_keras.epoch",
    "keras on jax": "on_keras.epoch",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """What a program is measured at. The defaults are the settings of the article.

    A program uses the fields that apply to it and ignores the others.
    """

    data: str = "auto"
    """full, sample, auto, or a folder of four IDX files."""
    device: str = "cpu"
    """The device to compute on."""
    precision: Precision = "highest"
    """Precision of float32 matrix products."""
    width: int = 256
    """Units in each of the two hidden layers."""
    batch: int = 256
    """Examples in a step."""
    steps: int | None = None
    """Steps in a run. If it is None, a run is a whole epoch."""
    seeds: int = 1
    """How many networks to train, with the seeds 0, 1, ..."""
    size: int = 256
    """Dropout is applied to size x size units."""
    dtype: str = "float32"
    """Dtype of these units."""


def prepare(program: str, setting: Setting) -> Run:
    """Import the module of a program, and let the program prepare its run."""
    module, function = PROGRAMS[program].split(".")
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)(setting)


def load_examples(setting: Setting) -> tuple[np.ndarray, np.ndarray, int]:
    """Load what a run trains on.

    Returns:
        The inputs, float32 (n, 784), the labels, int64 (n,), and the number of steps they make.
    """
    data = load(setting.data)
    n = len(data.train_images)
    if setting.steps is not None:
        n = min(n, setting.steps * setting.batch)
    steps = math.ceil(n / setting.batch)
    return to_inputs(data.train_images[:n]), data.train_labels[:n], steps


def number_of_calls(size: int) -> int:
    """Return how often a run calls dropout on size x size units, so that a run is long enough."""
    return max(2, 2**23 // size**2)
