"""Odd inputs: files, flags, arguments and environments that a program meets only by accident."""

import importlib
import sys
import time
from pathlib import Path

from tests.reliability.inputs.attempts import outcomes

KINDS = (
    "weights", "checkpoints", "data", "logs", "flags", "functions", "places", "environment",
)  # fmt: skip

# Imported before anything is tried: a process that forks has them already.
MODULES = (
    "impls.numpy.evaluate", "impls.numpy.noise", "impls.torch.train", "impls.torch.noise",
    "impls.jax.train", "impls.jax.noise", "experiments.compare", "torch._dynamo",
    "experiments.lockstep", "experiments.train_both", "experiments.article", "experiments.__main__",
    "benchmarks.__main__",
)  # fmt: skip


def measure(folder: Path, kinds: tuple[str, ...] = KINDS) -> dict:
    """Try all of them. Each kind is a module, whose `attempts` says what to try."""
    folder.chmod(0o755)
    for name in MODULES:
        importlib.import_module(name)
    results = {}
    for kind in kinds:
        started = time.monotonic()
        place = folder / kind
        place.mkdir()
        module = importlib.import_module(f"tests.reliability.inputs.{kind}")
        results[kind] = outcomes(module.attempts(place), folder / "attempt")
        print(f"{kind}: {time.monotonic() - started:.0f} s", file=sys.stderr)
    return results
