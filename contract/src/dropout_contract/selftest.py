"""The contract tested on itself: wrong dropouts are found, and right ones pass."""

from collections.abc import Callable

from dropout_contract.backends import backend
from dropout_contract.budget import Budget
from dropout_contract.checking import check, run_clause
from dropout_contract.clauses import CLAUSES, ORDERED
from dropout_contract.mutants import KILLED_BY, MUTANTS, mutant
from dropout_contract.mutants.correct import Correct
from dropout_contract.report import Result
from dropout_contract.right import right_designs
from dropout_contract.subjects import Raised


def found_by(kind: type[Correct], framework: str, clause: str) -> bool:
    """Return whether a clause sees that a dropout is wrong.

    An exception does not count as seeing it, because a clause with a bug of its own would raise
    one, too. The clause itself has to say what deviates.
    """
    result = _result(kind, framework, clause)
    return result.outcome == "deviates" and not isinstance(result.error, Raised)


def finders(kind: type[Correct], framework: str) -> list[str]:
    """Return all clauses that see that a dropout is wrong. This takes seconds, in JAX a minute."""
    return [clause.name for clause in ORDERED if found_by(kind, framework, clause.name)]


def _result(kind: type[Correct], framework: str, clause: str) -> Result:
    subject = mutant(kind, framework)
    with subject.backend.global_state_restored():
        return run_clause(subject, CLAUSES[clause], 1, Budget())


def selftest(framework: str, *, right: bool, say: Callable[[str], None]) -> bool:
    """Try every mutant of a framework, and if asked every right design. Say what came out."""
    kinds = {name: kind for name, kind in MUTANTS.items() if framework in kind.frameworks}
    with backend(framework).quick_compilation():
        missed = [
            name for name, kind in kinds.items() if not found_by(kind, framework, KILLED_BY[name])
        ]
    say(f"{framework}: {len(kinds) - len(missed)} of {len(kinds)} wrong dropouts found")
    for name in missed:
        say(f"  missed: {name}, which {KILLED_BY[name]} should find")
    rejected = []
    if right:
        designs = right_designs(framework)
        for name, subject in designs.items():
            report = check(subject)
            if not report.ok:
                rejected.append(name)
                say(f"  rejected: {name}: {report.failures[0].fact}")
        say(f"{framework}: {len(designs) - len(rejected)} of {len(designs)} right dropouts pass")
    return not missed and not rejected
