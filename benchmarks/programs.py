"""The programs that are measured, under the names that the tables show.

A program is a function of a `Setting`. It prepares whatever is not timed, and returns a function
that does the work: it trains for an epoch, or for the first steps of one, or it calls dropout a
number of times. The argument of that function counts its calls: 0, 1, ... It returns the arrays
that have to be waited for, if there are any.
"""

import dataclasses
import importlib
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from shared.config import Config
from shared.data import load, to_arrays

Run = Callable[[int], Any]

# Module, function and further arguments. Only the module of a program is imported.
PROGRAMS: dict[str, tuple[Any, ...]] = {
    "torch epoch": ("on_torch", "epoch"),
    "torch epoch, threshold_backward": ("on_torch", "epoch", "threshold_backward"),
    "torch epoch, masked_fill": ("on_torch", "epoch", "masked_fill"),
    "torch floor": ("on_torch", "floor"),
    "torch loop, F.dropout": ("on_torch", "framework_loop"),
    "torch dropout": ("on_torch", "dropout"),
    "torch dropout, threshold_backward": ("on_torch", "dropout", "threshold_backward"),
    "torch dropout, masked_fill": ("on_torch", "dropout", "masked_fill"),
    "F.dropout": ("on_torch", "framework_dropout"),
    "article, 0 workers": ("article", "epoch", 0),
    "article, 4 workers": ("article", "epoch", 4),
    "jax epoch": ("on_jax", "epoch"),
    "jax floor": ("on_jax", "floor"),
    "nnx loop": ("on_jax", "framework_loop"),
    "jax dropout": ("on_jax", "dropout"),
    "nnx.Dropout": ("on_jax", "framework_dropout"),
    "keras on torch": ("on_keras", "epoch", "torch"),
    "keras on jax": ("on_keras", "epoch", "jax"),
    "torch, whole process": ("until", "whole_process", "on_torch"),
    "jax, whole process": ("until", "whole_process", "on_jax"),
    "article, whole process": ("until", "whole_process", "article"),
}


@dataclasses.dataclass(frozen=True)
class Setting(Config):
    """What a program is measured at. The defaults are the settings of the article."""

    device: str = "cpu"
    """cpu or cuda. The article's program always uses the CPU."""
    steps: int | None = None
    """Steps in a run. If it is None, a run is a whole epoch."""
    size: int = 256
    """Dropout alone is applied to size x size units."""
    units: str = "float32"
    """Dtype of these units."""
    epochs: int = 60
    """The most epochs that a whole process may take."""
    goal: float = 0.853
    """The test accuracy, dropout off, at which a whole process ends. The article says 85.3 %."""

    @property
    def calls(self) -> int:
        """How often a run applies dropout alone, so that the run is long enough."""
        return max(2, 2**23 // self.size**2)

    def arrays(self) -> tuple[np.ndarray, ...]:
        """Load the inputs and labels that a run trains on, then those for the test."""
        images, labels, *test = to_arrays(load(self.data), "float32")
        n = len(images) if self.steps is None else self.steps * self.batch_size
        return images[:n], labels[:n], *test

    def number_of_steps(self) -> int:
        """Return how many steps a run has."""
        return math.ceil(len(self.arrays()[0]) / self.batch_size)

    def factors(self) -> tuple[np.ndarray, ...]:
        """Return an input of the size of a batch and three weights (in, out), for `products`."""
        sizes = (784, self.hidden_1, self.hidden_2, 10)
        shapes = ((self.batch_size, 784), *itertools.pairwise(sizes))
        rng = np.random.default_rng(0)
        return tuple(rng.standard_normal(shape, np.float32) for shape in shapes)


def products(x: Any, weights: Any) -> list[Any]:
    """Compute the eight matrix products of a step: of the forward pass, and of the gradients.

    Returns:
        The gradients of the weights, or what would be they if the logits were their own gradient.
    """
    w1, w2, w3 = weights
    h1 = x @ w1
    h2 = h1 @ w2
    logits = h2 @ w3
    d2 = logits @ w3.T
    d1 = d2 @ w2.T
    return [x.T @ d1, h1.T @ d2, h2.T @ logits]


def prepare(program: str, setting: Setting) -> Run:
    """Import the module of a program, and let the program prepare its run."""
    module, function, *arguments = PROGRAMS[program]
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)(setting, *arguments)
