"""Our three dropouts and their layers keep the dropout contract, conventions included."""

import re
from pathlib import Path

import pytest
from dropout_contract import check, parametrize_with_clauses
from dropout_contract.backends import backend
from dropout_contract.clauses import CLAUSES

import impls.jax.dropout
import impls.numpy.dropout
import impls.torch.dropout

# beartype would draw from Python's global generator, and speak of wrong types before we do.
pytestmark = pytest.mark.usefixtures("unannotated")
ROOT = Path(__file__).parents[1]


# A convention that ours in PyTorch does not keep: torch.where lays its result out like the mask.
LAYOUT = {"strides_are_kept"}


@parametrize_with_clauses(
    impls.torch.dropout.dropout, "torch", strict=True, only=CLAUSES.keys() - LAYOUT
)
def test_torch(clause):
    clause()


# A layer only calls the function, so what counts units is left to that.
OF_LAYERS = {name for name, clause in CLAUSES.items() if not clause.statistical}


@parametrize_with_clauses(
    impls.torch.dropout.Dropout, "torch", strict=True,
    only=OF_LAYERS - LAYOUT - {"same_mask_in_another_process", "threads_do_not_mix"},
)  # fmt: skip
def test_torch_layer(clause):
    clause()


# Few, because each is compiled. `.ci/run` checks all of them.
FEW = (
    "identity_at_zero", "identity_in_evaluation", "values", "gradient_is_that_of_the_mask",
    "gradient_where_it_is_off", "zeros_at_one", "global_random_state_is_left_alone",
    "compiled_gives_the_same", "bad_rate_is_refused", "missing_source_is_refused",
)  # fmt: skip


def test_jax():
    # In one test, because each of several would compile anew.
    with backend("jax").quick_compilation():
        report = check(impls.jax.dropout.dropout, "jax", strict=True, only=(*FEW, "keep_rate"))
    assert report.ok, str(report)


@pytest.mark.parametrize("path", ["impls.torch.dropout:dropout", "impls.jax.dropout:dropout"])
def test_what_is_not_applicable_to_ours_is_known(path: str):
    # "Not applicable" must not hide a clause that could not be tried by mistake.
    doubtful = ("threshold_is_the_rate", "vmapped_is_dropout", "every_derivative_agrees")
    with backend(path.split(".")[1]).quick_compilation():
        report = check(path, only=doubtful)
    assert [result.outcome for result in report.results] == ["passed"] * 3


def test_jax_layer():
    with backend("jax").quick_compilation():
        report = check(impls.jax.dropout.Dropout, "jax", strict=True, only=FEW)
    assert report.ok, str(report)


@parametrize_with_clauses(impls.numpy.dropout.dropout, "numpy", strict=True)
def test_numpy(clause):
    clause()


def test_the_table_of_the_documentation_is_of_this_contract():
    table = (ROOT / "docs" / "conformance.md").read_text()
    rows = re.findall(r"^\| (\w+) \| (\w+) \| (\S+) \| (\S+) \| (\S+) \|", table, re.M)
    assert {row[1]: row[0] for row in rows if row[1] != "clause"} == {
        clause.name: clause.tier for clause in CLAUSES.values()
    }
    for said in CLAUSES.values():
        assert f"- **{said.name}**: {said.sentence}\n" in table
    for _, clause, *ours in rows:
        if clause != "clause":
            deviates = {i for i, cell in enumerate(ours) if cell not in "✓–"}
            assert deviates == ({0} if clause in LAYOUT else set()), clause
