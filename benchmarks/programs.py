"""What is measured: ours, the floors, and the peers, by the names that the tables show.

Each is made ready by a function, which returns a function of the round's number that runs the
program once: an epoch (or its first `steps` steps), or a number of calls of an operation. It
returns when the device is done.
"""

import importlib
import math
from collections.abc import Callable
from typing import Any

from shared.data import Data

LR = 0.5
RATES = (0.2, 0.5)
Run = Callable[[int], Any]

# Every program runs in a process of its own, which imports the module of that program alone.
PROGRAMS = {
    "torch epoch": "on_torch.epoch",
    "torch epoch, graph": "on_torch.epoch_as_graph",
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


def make_ready(program: str, **settings: Any) -> Run:
    """Import what a program needs, give it its settings, and return what runs it once."""
    module, function = PROGRAMS[program].split(".")
    return getattr(importlib.import_module(f"benchmarks.{module}"), function)(**settings)


def first_steps(data: Data, batch: int, steps: int | None) -> tuple[int, int]:
    """Return how many examples and steps a run has: all of them unless `steps` are asked for."""
    n = len(data.train_images)
    n = n if steps is None else min(n, steps * batch)
    return n, math.ceil(n / batch)


def calls(size: int) -> int:
    """Return how often to call an operation on size x size units in a run."""
    return max(2, 2**23 // size**2)
