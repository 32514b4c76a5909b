"""Our three dropouts and their layers keep the dropout contract, conventions included."""

import re
from pathlib import Path

import pytest
from dropout_contract import check, parametrize_with_clauses
from dropout_contract.backends import backend
from dropout_contract.clauses import CLAUSES
from dropout_contract.mutants import MUTANTS

import impls.jax.dropout
import impls.numpy.dropout
import impls.torch.dropout
from tests.network_mutants import NETWORK_MUTANTS

ROOT = Path(__file__).parents[1]


@parametrize_with_clauses(impls.torch.dropout.dropout, "torch", strict=True)
def test_torch(clause):
    clause()


@parametrize_with_clauses(impls.torch.dropout.Dropout, "torch", strict=True)
def test_torch_layer(clause):
    clause()


def test_jax():
    # In one test, because each of several would compile anew. Where rounding plays no part, JAX may
    # compile quickly.
    # Those that only count, and take seconds to compile, are left to `.ci/run`, which checks all.
    counting = {name for name, clause in CLAUSES.items() if clause.statistical}
    rounded = {"values", "gradient_is_that_of_the_mask", "compiled_gives_the_same"}
    elsewhere = rounded | counting - {"keep_rate", "calls_are_independent"}
    report = check(impls.jax.dropout.dropout, "jax", strict=True, only=rounded)
    assert report.ok, str(report)
    with backend("jax").quick_compilation():
        report = check(impls.jax.dropout.dropout, "jax", strict=True, only=set(CLAUSES) - elsewhere)
    assert report.ok, str(report)


@pytest.mark.parametrize("path", ["impls.torch.dropout:dropout", "impls.jax.dropout:dropout"])
def test_what_is_not_applicable_to_ours_is_known(path: str):
    # "Not applicable" must not hide a clause that could not be tried by mistake.
    doubtful = ("threshold_is_the_rate", "vmapped_is_dropout", "every_derivative_agrees")
    with backend(path.split(".")[1]).quick_compilation():
        report = check(path, only=doubtful)
    assert [result.outcome for result in report.results] == ["passed"] * 3


# The layer only calls the function, so the clauses that count units are left to that.
LAYER = (
    "identity_at_zero", "identity_in_evaluation", "values", "gradient_is_that_of_the_mask",
    "gradient_where_it_is_off", "zeros_at_one", "global_random_state_is_left_alone",
    "compiled_gives_the_same", "bad_rate_is_refused", "missing_source_is_refused",
)  # fmt: skip


def test_jax_layer():
    with backend("jax").quick_compilation():
        report = check(impls.jax.dropout.Dropout, "jax", strict=True, only=LAYER)
    assert report.ok, str(report)


@parametrize_with_clauses(impls.numpy.dropout.dropout, "numpy", strict=True)
def test_numpy(clause):
    clause()


def test_the_readme_and_the_table_speak_of_this_contract():
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{len(CLAUSES)} clauses" in readme
    total = len(MUTANTS) + len(NETWORK_MUTANTS)
    assert f"every one of {total} wrong dropouts and networks" in readme
    package = " ".join((ROOT / "contract" / "README.md").read_text().split())
    wrong = [
        sum(framework in kind.frameworks for kind in MUTANTS.values())
        for framework in ("torch", "jax", "numpy")
    ]
    assert (
        f"{wrong[0]} wrong dropouts in PyTorch, {wrong[1]} in JAX and {wrong[2]} in NumPy"
        in package
    )
    assert f"checks {len(CLAUSES)} statements" in package
    table = (ROOT / "docs" / "conformance.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\S+) \| (\S+) \| (\S+) \|", table, re.M)
    assert {row[1]: row[0] for row in rows if row[1] != "clause"} == {
        clause.name: clause.tier for clause in CLAUSES.values()
    }
    for said in CLAUSES.values():
        assert f"- **{said.name}**: {said.sentence}\n" in table
    for _, clause, *ours in rows:
        assert clause == "clause" or set(ours) <= {"✓", "–"}, clause
