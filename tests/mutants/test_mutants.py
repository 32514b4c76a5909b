"""Every mutant is killed by the contract, in every framework where it exists."""

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


def first_failure(kind: type[Correct], framework: str) -> str | None:
    """Run the contract on a mutant until a clause fails, and return its name."""
    its = subject(kind, framework)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a wrong dropout divides by zero, and so on
        for name, clause in CLAUSES.items():
            try:
                clause(Run(its, seed=1))
            except NotApplicable:
                continue
            except Exception:
                return name
    return None


@pytest.mark.parametrize(("mutant", "implementation"), PAIRS)
def test_killed(mutant: str, implementation: str):
    assert first_failure(MUTANTS[mutant], implementation), "the contract holds for a mutant"


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
