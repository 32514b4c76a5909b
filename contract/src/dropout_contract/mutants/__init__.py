"""Wrong dropouts, called mutants. Each is a real kind of bug, written once for all frameworks.

The docstring of a mutant says where the bug has been seen, or why it is plausible.
"""

import json
from importlib.resources import files

from dropout_contract.mutants import arguments, gradients, masks, modes, rates, scaling
from dropout_contract.mutants.correct import Correct
from dropout_contract.subjects import Subject

MUTANTS: dict[str, type[Correct]] = {}
for module in (scaling, rates, masks, modes, gradients, arguments):
    for name, kind in vars(module).items():
        if isinstance(kind, type) and issubclass(kind, Correct) and kind is not Correct:
            if name in MUTANTS:
                raise ValueError(f"two mutants are called {name}")
            MUTANTS[name] = kind

# A clause that kills each mutant, in every framework. Trying all clauses takes minutes.
KILLED_BY: dict[str, str] = json.loads(
    files("dropout_contract.mutants").joinpath("killed_by.json").read_text()
)


def mutant(kind: type[Correct], framework: str) -> Subject:
    """Put a mutant, or the correct one, into the form of a subject."""
    return Subject(f"{kind.__name__} in {framework}", framework, kind(framework))
