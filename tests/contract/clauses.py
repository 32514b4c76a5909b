"""The contract: what any inverted dropout must do, one function per clause.

A clause takes a Run, passes silently, raises AssertionError (or whatever the subject raises) where
the subject deviates, and raises NotApplicable where the question has no meaning for it. Every
public function of these three modules is a clause. Exact ones come first; statistics only where
nothing else will do.
"""

from collections.abc import Callable

from tests.contract import exact, statistical, transforms
from tests.contract.run import Run

CLAUSES: dict[str, Callable[[Run], None]] = {}
for module in (exact, transforms, statistical):
    for name, function in vars(module).items():
        if not name.startswith("_") and getattr(function, "__module__", "") == module.__name__:
            assert name not in CLAUSES, f"two clauses are called {name}"
            CLAUSES[name] = function
