"""Wrong dropouts, called mutants. Each is a real kind of bug, written once for all frameworks.

The docstring of a mutant says where the bug has been seen, or why it is plausible.
"""

import dataclasses
import json
from importlib.resources import files

from dropout_contract.mutants import (
    arguments,
    dependence,
    gradients,
    layers,
    masks,
    modes,
    rates,
    scaling,
    sources,
)
from dropout_contract.mutants.correct import Correct
from dropout_contract.subjects import Subject, subject

# Classes that others are built from, and that are right themselves.
BASES = ("Correct", "Arranged", "WithOwnBackward", "LayerMutant")
MUTANTS: dict[str, type[Correct]] = {}
KINDS: dict[str, str] = {}  # the module of each: what is wrong
for module in (
    scaling, rates, masks, dependence, sources, modes, gradients, arguments, layers,
):  # fmt: skip
    for name, kind in vars(module).items():
        if not (isinstance(kind, type) and issubclass(kind, Correct)) or name in BASES:
            continue
        if kind.__module__ != module.__name__:
            continue
        if name in MUTANTS:
            raise ValueError(f"two mutants are called {name}")
        MUTANTS[name] = kind
        KINDS[name] = module.__name__.rpartition(".")[2]

# A clause that kills each mutant, in every framework. Trying all clauses takes minutes.
KILLED_BY: dict[str, str] = json.loads(
    files("dropout_contract.mutants").joinpath("killed_by.json").read_text()
)


def mutant(kind: type[Correct], framework: str) -> Subject:
    """Put a mutant, or the correct one, into the form of a subject."""
    if issubclass(kind, layers.LayerMutant):
        return subject(layers.layer(kind.__name__), framework, name=kind.__name__)
    made = Subject(f"{kind.__name__} in {framework}", framework, kind(framework))
    return dataclasses.replace(made, origin=made)
