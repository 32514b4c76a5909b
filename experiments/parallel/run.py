"""Run the train command of a framework as it is, and keep the loss of every step.

python -m experiments.parallel.run torch LOSSES --data sample

Each process of the run writes the losses that it saw, as float64: LOSSES-0.npy, LOSSES-1.npy, ...
With the word `nudged` behind LOSSES, each initial weight is the next larger or smaller number.
"""

import importlib
import os
import sys
from typing import Any

import numpy as np


def main() -> None:
    """Take the framework and the name of the files off the command line, and train."""
    framework, name = sys.argv[1:3]
    del sys.argv[1:3]
    module: Any = importlib.import_module(f"impls.{framework}.train")
    train_epoch = module.train_epoch
    losses: list[np.ndarray] = []

    def kept(*args: Any) -> Any:
        results = train_epoch(*args)
        losses.append(np.asarray(results[0], np.float64))
        return results

    module.train_epoch = kept
    if sys.argv[1:2] == ["nudged"]:
        del sys.argv[1]
        _nudge(importlib.import_module(f"impls.{framework}.mlp"))
    module.main()
    rank = os.environ.get({"torch": "RANK", "jax": "JAX_PROCESS_ID"}[framework], "0")
    np.save(f"{name}-{rank}.npy", np.concatenate(losses))


def _nudge(module: Any) -> None:
    """Move each initial weight of a network to a number next to it."""
    initial_weights = module.initial_weights
    rng = np.random.default_rng(0)

    def nudged(*args: Any, **settings: Any) -> dict[str, np.ndarray]:
        weights = initial_weights(*args, **settings)
        return {
            name: np.nextafter(array, rng.choice([-np.inf, np.inf], array.shape))
            for name, array in weights.items()
        }

    module.initial_weights = nudged


if __name__ == "__main__":
    main()
