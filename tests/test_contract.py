"""Our three dropouts and their layers keep the dropout contract, conventions included."""

import re
from pathlib import Path

from dropout_contract import parametrize_with_clauses
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


@parametrize_with_clauses(impls.jax.dropout.dropout, "jax", strict=True)
def test_jax(clause):
    clause()


# The layer only calls the function, so the clauses that count units are left to that.
@parametrize_with_clauses(
    impls.jax.dropout.Dropout,
    "jax",
    strict=True,
    only=[name for name, clause in CLAUSES.items() if not clause.statistical],
)
def test_jax_layer(clause):
    clause()


@parametrize_with_clauses(impls.numpy.dropout.dropout, "numpy", strict=True)
def test_numpy(clause):
    clause()


def test_the_readme_and_the_table_speak_of_this_contract():
    readme = " ".join((ROOT / "README.md").read_text().split())
    assert f"{len(CLAUSES)} clauses" in readme
    per = [
        sum(framework in kind.frameworks for kind in MUTANTS.values()) + len(NETWORK_MUTANTS)
        for framework in ("torch", "jax", "numpy")
    ]
    total = len(MUTANTS) + len(NETWORK_MUTANTS)
    assert per[0] == total
    assert f"every one of {total} wrong dropouts and networks" in readme
    assert f"{per[1]} of them in JAX, {per[2]} in NumPy" in readme
    table = (ROOT / "docs" / "conformance.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\S+) \| (\S+) \| (\S+) \|", table, re.M)
    assert {row[1]: row[0] for row in rows if row[1] != "clause"} == {
        clause.name: clause.tier for clause in CLAUSES.values()
    }
    for _, clause, *ours in rows:
        assert clause == "clause" or set(ours) <= {"✓", "–"}, clause
