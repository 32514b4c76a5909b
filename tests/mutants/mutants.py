"""Wrong dropouts, each a real kind of bug, written once for every framework where it makes sense.

The docstring of a mutant says where the bug has been seen, or why it is plausible.
"""

from tests.contract.subjects import Subject
from tests.mutants import arguments, gradients, masks, modes, rates, scaling
from tests.mutants.correct import Correct

MUTANTS: dict[str, type[Correct]] = {}
for module in (scaling, rates, masks, modes, gradients, arguments):
    for name, kind in vars(module).items():
        if isinstance(kind, type) and issubclass(kind, Correct) and kind is not Correct:
            assert name not in MUTANTS, f"two mutants are called {name}"
            MUTANTS[name] = kind


def subject(kind: type[Correct], framework: str) -> Subject:
    """Put a mutant, or the correct one, into the form that the contract takes."""
    return Subject(f"{kind.__name__} in {framework}", framework, kind(framework))
