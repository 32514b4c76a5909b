"""Right dropouts that are written in many ways. The contract must let all of them pass.

A contract that rejects right programs is as useless as one that accepts wrong ones. These are its
controls: no clause of the tiers "wrong" and "fragile" may deviate.
"""

import importlib
from typing import Any

from dropout_contract.subjects import Subject, subject


def right_designs(framework: str) -> dict[str, Subject]:
    """Return the right designs of a framework, by name."""
    module = importlib.import_module(f"dropout_contract.right.on_{framework}")
    written_there = {
        name: design
        for name, design in vars(module).items()
        if not name.startswith("_") and getattr(design, "__module__", "") == module.__name__
    }
    found: dict[str, Any] = written_there | module.MORE
    return {name: subject(what, framework, name=name) for name, what in found.items()}


def off(training: bool, p: float) -> bool:
    """Return whether dropout does nothing. A bad rate is an error."""
    if not 0 <= p <= 1:
        raise ValueError(f"p must be in [0, 1], got {p}")
    return not training or p == 0
