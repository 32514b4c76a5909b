"""Wrong dropouts are found, and right ones pass."""

import pytest
from dropout_contract.backends import FRAMEWORKS, backend
from dropout_contract.checking import check, parametrize_with_clauses
from dropout_contract.clauses import CLAUSES
from dropout_contract.mutants import KILLED_BY, MUTANTS, mutant
from dropout_contract.mutants.correct import Correct
from dropout_contract.right import right_designs
from dropout_contract.selftest import found_by, selftest


@pytest.fixture(scope="module", autouse=True)
def quick_compilation():
    """Let JAX compile quickly, and keep what it compiled until the last test here."""
    with backend("jax").quick_compilation():
        yield


EXACT = [name for name, clause in CLAUSES.items() if not clause.statistical]
# Seconds for each subject, and a matter of the process rather than of the design.
SLOW = ("compiled_gives_the_same", "same_mask_in_another_process", "threads_do_not_mix")
QUICK = [name for name in EXACT if name not in SLOW]
# Mutants that are functions in NumPy, too, are found by the same code there.
ELSEWHERE = [name for name, kind in MUTANTS.items() if "numpy" not in kind.frameworks]
OF_JAX = [name for name in ELSEWHERE if "jax" in MUTANTS[name].frameworks]


@pytest.mark.parametrize(
    "framework", [pytest.param(f, marks=[pytest.mark.slow] * (f == "jax")) for f in FRAMEWORKS]
)
def test_every_wrong_dropout_is_found_by_the_clause_named_for_it(framework: str):
    said: list[str] = []
    # `dropout-contract selftest`, which `.ci/run` starts, tries all of them.
    names = [name for name, clause in KILLED_BY.items() if clause in EXACT]
    names = names if framework == "numpy" else sorted(set(names) & set(ELSEWHERE))
    assert selftest(framework, right=False, say=said.append, names=names), said
    number = sum(framework in MUTANTS[name].frameworks for name in names)
    assert said == [f"{framework}: {number} of {number} wrong dropouts found"]


def test_a_clause_is_named_for_every_mutant():
    assert set(KILLED_BY) == set(MUTANTS)
    assert set(KILLED_BY.values()) == set(CLAUSES)  # a clause that finds nothing is of no use


def test_an_exception_is_not_a_find():
    class Broken(Correct):
        """It raises in training."""

        def in_training(self, x, p, source):
            raise ArithmeticError("broken")

    assert not found_by(Broken, "numpy", "values")


# The dropout that the mutants are made from. Without this, they might be found for another reason.
@parametrize_with_clauses(mutant(Correct, "torch"), strict=True, only=QUICK)
def test_the_correct_one_in_torch(clause):
    clause()


@pytest.mark.slow
def test_the_correct_one_in_jax():
    only = {KILLED_BY[name] for name in OF_JAX}
    report = check(mutant(Correct, "jax"), strict=True, only=only)
    assert report.ok, str(report)


@parametrize_with_clauses(mutant(Correct, "numpy"), strict=True, only=QUICK)
def test_the_correct_one_in_numpy(clause):
    clause()


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["torch", "numpy"])
def test_the_correct_one_has_the_right_rates(framework: str):
    report = check(mutant(Correct, framework), only=set(CLAUSES) - set(QUICK))
    assert report.ok, str(report)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_there_are_many_right_designs(framework: str):
    assert len(right_designs(framework)) >= 15


# `dropout-contract selftest --right` tries every clause on every design, which takes half an hour.
# Here, those that only count units and the slow ones are left out, and in JAX most others, too.
@pytest.mark.parametrize("name", right_designs("numpy"))
def test_right_in_numpy(name: str):
    _passes("numpy", name, [*QUICK, "keep_rate"])


@pytest.mark.parametrize("name", right_designs("torch"))
def test_right_in_torch(name: str):
    _passes("torch", name, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("name", right_designs("jax"))
def test_right_in_jax(name: str):
    _passes("jax", name, ["threshold_is_the_rate", "values", "zero_gradient_at_one"])


def _passes(framework: str, name: str, only: list[str]) -> None:
    report = check(right_designs(framework)[name], only=only)
    assert report.ok, str(report)
    assert not report.count("deviates", "wrong")


def test_there_are_many_mutants_and_each_says_where_it_was_seen():
    assert len(MUTANTS) >= 35
    for kind in MUTANTS.values():
        assert kind.__doc__
        assert kind.__doc__ != Correct.__doc__
