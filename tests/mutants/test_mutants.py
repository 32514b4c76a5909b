"""Every mutant is killed by the contract, in every framework where it exists."""

import json
import re
import warnings
from pathlib import Path

import pytest

from tests.contract.budget import Budget
from tests.contract.clauses import CLAUSES
from tests.contract.network import check_network
from tests.contract.run import NotApplicable, Run
from tests.mutants.correct import EVERYWHERE, Correct
from tests.mutants.mutants import MUTANTS, subject
from tests.mutants.networks import NETWORK_MUTANTS, CorrectNetwork

pytestmark = pytest.mark.usefixtures("quick_compilation")  # most mutants die within a second
PAIRS = [(name, f) for name, kind in MUTANTS.items() for f in EVERYWHERE if f in kind.frameworks]


# A clause that kills each mutant, in every framework. Trying all clauses takes minutes.
KILLED_BY: dict[str, str] = json.loads(Path(__file__).with_name("killed_by.json").read_text())


def fails(kind: type[Correct], framework: str, clause: str) -> bool:
    """Return whether a dropout fails a clause of the contract."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a wrong dropout may divide by zero, for example
        try:
            CLAUSES[clause](Run(subject(kind, framework), seed=1))
        except NotApplicable:
            return False
        except Exception:
            return True
    return False


def first_failure(kind: type[Correct], framework: str) -> str | None:
    """Return the first clause of the contract that a dropout fails, or None."""
    return next((clause for clause in CLAUSES if fails(kind, framework, clause)), None)


@pytest.mark.parametrize(("mutant", "implementation"), PAIRS)
def test_killed(mutant: str, implementation: str):
    clause = KILLED_BY.get(mutant)
    if clause is None or not fails(MUTANTS[mutant], implementation, clause):
        other = first_failure(MUTANTS[mutant], implementation)
        pytest.fail(f"{mutant} is not killed by {clause}, but by {other}: see killed_by.json")


def test_no_killer_is_named_for_a_mutant_that_does_not_exist():
    assert set(KILLED_BY) == set(MUTANTS)


@pytest.mark.parametrize("implementation", EVERYWHERE)
def test_the_correct_one_passes_the_same_run(implementation: str):
    assert first_failure(Correct, implementation) is None


@pytest.mark.parametrize("implementation", EVERYWHERE)
@pytest.mark.parametrize("mutant", NETWORK_MUTANTS)
def test_network_killed(mutant: str, implementation: str):
    with pytest.raises(AssertionError):
        check_network(NETWORK_MUTANTS[mutant], implementation, 1, Budget())


@pytest.mark.parametrize("implementation", EVERYWHERE)
def test_the_correct_network_passes_the_same_run(implementation: str):
    check_network(CorrectNetwork, implementation, 1, Budget())


def test_the_readme_and_the_table_speak_of_this_contract():
    root = Path(__file__).parents[2]
    readme = " ".join((root / "README.md").read_text().split())
    assert f"A contract of {len(CLAUSES)} clauses" in readme
    per = [
        sum(f in kind.frameworks for kind in MUTANTS.values()) + len(NETWORK_MUTANTS)
        for f in EVERYWHERE
    ]
    total = len(MUTANTS) + len(NETWORK_MUTANTS)
    assert (
        f"kills all of {total} wrong ones"
        f" ({per[0]} in PyTorch, {per[1]} in JAX, {per[2]} in NumPy)" in readme
    )
    table = (root / "docs" / "conformance.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\S+) \| (\S+) \| (\S+) \|", table, re.M)
    assert [row[0] for row in rows if row[0] != "clause"] == list(CLAUSES)
    for clause, *ours in rows:
        assert clause == "clause" or set(ours) <= {"✓", "–"}, clause


def test_there_are_many_and_each_says_where_it_was_seen():
    assert len(MUTANTS) >= 35
    for kind in MUTANTS.values():
        assert kind.__doc__, kind
        assert kind.__doc__ != Correct.__doc__
