"""`check`: one subject against every clause. `parametrize_with_clauses`: the same as tests."""

import contextlib
import operator
import secrets
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from dropout_contract.budget import Budget, Deviation
from dropout_contract.clauses import CLAUSES, ORDERED, VERSION
from dropout_contract.layers import left_as_it_was
from dropout_contract.report import Report, Result
from dropout_contract.run import CONVENTION, Clause, NotApplicable, Run
from dropout_contract.signatures import CannotCheck
from dropout_contract.subjects import Subject, raised
from dropout_contract.subjects import subject as make_subject


def check(
    what: Any,
    framework: str | None = None,
    *,
    p: float | None = None,
    expected: Mapping[str, str] | None = None,
    only: str | Iterable[str] | None = None,
    seed: int | None = 0,
    strict: bool = False,
    name: str | None = None,
    started: Callable[[Report], None] | None = None,
    progress: Callable[[Result], None] | None = None,
) -> Report:
    """Put a dropout to the contract.

    Args:
        what: a function, a class of layers, a layer, a path such as "package.module:name", or a
            Subject.
        framework: torch, jax or numpy. Guessed if None.
        p: the rate of a layer whose rate cannot be read from it.
        expected: clauses that are known to deviate, each with the reason. If one of them passes,
            that is a failure, too.
        only: the name of a clause, or several.
        seed: of all random numbers. None draws a new one. The report has it.
        strict: whether deviations of the tier "convention" count.
        name: for the report.
        started: called with the empty report before the first clause.
        progress: called with each result as it comes.

    Returns:
        The report. `report.ok` says whether everything that counts is in order.

    Raises:
        CannotCheck: it cannot be called, or a clause is not known. The message says what to do.
    """
    expected = _reasons(expected)
    wanted = _wanted(only, expected)
    seed = secrets.randbits(32) if seed is None else _whole(seed)
    subject = make_subject(what, framework, p=p, name=name)
    start = time.perf_counter()
    report = Report(subject, VERSION, seed, strict)
    with _surroundings(subject):
        subject.probe()
        if started:
            started(report)
        budget = Budget()
        with contextlib.ExitStack() as stack:
            quick = False
            for clause in wanted:
                if clause.statistical and not quick:  # these come last
                    stack.enter_context(subject.backend.quick_compilation())
                    quick = True
                result = run_clause(subject, clause, seed, budget, expected.get(clause.name))
                report.results.append(result)
                if progress:
                    progress(result)
    report.seconds = time.perf_counter() - start
    return report


def run_clause(
    subject: Subject, clause: Clause, seed: int, budget: Budget, reason: str | None = None
) -> Result:
    """Run one clause. Whatever the subject does, the result says it in one line.

    Args:
        subject: the dropout.
        clause: what to check.
        seed: of the whole run. Each clause has random numbers of its own.
        budget: of the whole run.
        reason: why a deviation is expected, if it is.
    """
    started = time.perf_counter()
    outcome, fact, error = "passed", "", None
    try:
        with warnings.catch_warnings(), raised():
            warnings.simplefilter("ignore")  # a warning breaks no clause
            try:
                clause.function(Run(subject, seed, clause.name, budget))
            except NotApplicable as answer:
                outcome, fact = "not applicable", str(answer)
    except Deviation as deviation:
        outcome, fact, error = "deviates", str(deviation), deviation
    if reason is not None:
        if outcome == "deviates":
            outcome, fact = "expected", f"{reason} ({fact})"
        else:
            fact = f"a deviation was expected ({reason}), but the clause is {outcome}"
            outcome = "unexpected"
    return Result(clause, outcome, fact, time.perf_counter() - started, error)


def parametrize_with_clauses(
    what: Any,
    framework: str | None = None,
    *,
    p: float | None = None,
    expected: Mapping[str, str] | None = None,
    only: str | Iterable[str] | None = None,
    seed: int = 0,
    strict: bool = False,
) -> Callable[..., Any]:
    """Make a pytest test of each clause, for a test function with one argument, `clause`.

        @parametrize_with_clauses(my_dropout, framework="torch")
        def test_dropout(clause):
            clause()

    The arguments are those of `check`. A deviation that does not count is an expected failure for
    pytest, and a clause that is not applicable is skipped.
    """
    import pytest

    expected = _reasons(expected)
    seed = _whole(seed)
    subject = make_subject(what, framework, p=p)
    with _surroundings(subject):
        subject.probe()
    budget = Budget()

    def test_of(clause: Clause) -> Callable[[], None]:
        def run() -> None:
            quick = subject.backend.quick_compilation if clause.statistical else None
            with _surroundings(subject), quick() if quick else contextlib.nullcontext():
                result = run_clause(subject, clause, seed, budget, expected.get(clause.name))
            if result.outcome == "not applicable":
                pytest.skip(result.fact)
            elif result.outcome == "expected":
                pytest.xfail(result.fact)
            elif result.outcome == "deviates" and clause.tier == CONVENTION and not strict:
                pytest.xfail(f"a convention: {result.fact}")
            elif result.fails(strict):
                pytest.fail(f"{clause.sentence} {result.fact}", pytrace=False)

        return run

    clauses = _wanted(only, expected)
    return pytest.mark.parametrize(
        "clause", [pytest.param(test_of(clause), id=clause.name) for clause in clauses]
    )


def _wanted(only: str | Iterable[str] | None, expected: Mapping[str, str]) -> tuple[Clause, ...]:
    if only is not None and not isinstance(only, Iterable):
        raise CannotCheck(f"only must be names of clauses, got {only!r}")
    names = [only] if isinstance(only, str) else list(CLAUSES if only is None else only)
    for name in (*names, *expected):
        if name not in CLAUSES:
            raise CannotCheck(
                f"there is no clause {name!r}; `dropout-contract list` prints all of them"
            )
    return tuple(clause for clause in ORDERED if clause.name in names)


def _reasons(expected: Mapping[str, str] | None) -> dict[str, str]:
    if expected is not None and not (
        isinstance(expected, Mapping) and all(isinstance(r, str) for r in expected.values())
    ):
        raise CannotCheck("expected must be a dict from names of clauses to reasons")
    return dict(expected or {})


def _whole(seed: Any) -> int:
    try:
        number = operator.index(seed)
    except TypeError:
        raise CannotCheck(f"the seed must be a whole number, got {seed!r}") from None
    if number < 0:
        raise CannotCheck(f"the seed must not be negative, got {number}")
    return number


@contextlib.contextmanager
def _surroundings(subject: Subject) -> Any:
    """Leave the user's process as it was: random state, and the mode of a layer."""
    with subject.backend.global_state_restored(), left_as_it_was(subject):
        yield
