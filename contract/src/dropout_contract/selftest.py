"""The contract tested on itself: wrong dropouts are found, and right ones pass."""

from collections.abc import Callable, Iterable

from dropout_contract.backends import backend
from dropout_contract.budget import MOST_TESTS, Budget
from dropout_contract.checking import check, run_clause
from dropout_contract.clauses import CLAUSES, ORDERED
from dropout_contract.mutants import KILLED_BY, MUTANTS, mutant
from dropout_contract.mutants.correct import Correct
from dropout_contract.report import Result
from dropout_contract.right import right_designs
from dropout_contract.run import CONVENTION, Clause
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


def alarms(
    runs: int, expected: float = 0.3, clauses: tuple[Clause, ...] = ORDERED
) -> tuple[int, float]:
    """Count the false alarms of whole runs, with a false-alarm rate that is large enough to count.

    Every clause is run on a right dropout in NumPy, the fastest framework, with a new seed each
    time. A run is promised to raise a false alarm with a probability of at most the number of its
    tests times the rate of each. That rate is set so that the bound is about `expected`.

    Args:
        runs: how many runs to make. Each takes seconds.
        expected: the bound for one run.
        clauses: what a run consists of.

    Returns:
        In how many of the runs a clause deviated, and the mean of the bounds.
    """
    design = right_designs("numpy")["plain_where"]
    counted = Budget()
    for clause in clauses:
        run_clause(design, clause, 0, counted)
    rate = expected / counted.tests * MOST_TESTS
    found, bounds = 0, 0.0
    for seed in range(runs):
        budget = Budget(rate)
        outcomes = {run_clause(design, clause, seed, budget).outcome for clause in clauses
                    if clause.tier != CONVENTION}  # fmt: skip
        found += "deviates" in outcomes
        bounds += budget.tests * budget.alpha / runs
    return found, bounds


def selftest(
    framework: str,
    *,
    right: bool,
    say: Callable[[str], None],
    names: Iterable[str] = tuple(MUTANTS),
) -> bool:
    """Try the mutants of a framework, and if asked every right design. Say what came out."""
    kinds = {name: MUTANTS[name] for name in names if framework in MUTANTS[name].frameworks}
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
