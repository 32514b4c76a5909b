"""The contract, clause by clause, on our three or on the subject that --subject names.

pytest tests/contract/test_contract.py --subject my_package.my_module:my_dropout --framework torch
"""

import warnings

import pytest

from tests.contract import statistical
from tests.contract.budget import Budget
from tests.contract.clauses import CLAUSES
from tests.contract.run import NotApplicable, Run
from tests.contract.subjects import Subject, from_path, ours


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    path, framework = (metafunc.config.getoption(name) for name in ("subject", "framework"))
    try:
        subjects = [from_path(path, framework)] if path else ours()
    except ValueError as error:
        raise pytest.UsageError(str(error)) from None
    if "subject" in metafunc.fixturenames:
        metafunc.parametrize("subject", subjects, ids=lambda subject: subject.name)
        metafunc.parametrize("clause", CLAUSES)


@pytest.fixture(scope="module")
def budget() -> Budget:
    """One for the whole run: together its tests keep the promised false-alarm rate."""
    return Budget()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # NumPy speaks up at inf * 0
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch.compile, of its own parts
def test_contract(
    subject: Subject,
    clause: str,
    budget: Budget,
    contract_seed: int,
    pytestconfig: pytest.Config,
    request: pytest.FixtureRequest,
):
    if subject.framework == "jax" and CLAUSES[clause].__module__ == statistical.__name__:
        # These clauses only count units, and draw them in many shapes. They are the last ones.
        request.getfixturevalue("quick_compilation")
    # A clause has a seed of its own, so that it gives the same alone and in company.
    seed = contract_seed + list(CLAUSES).index(clause)
    if pytestconfig.getoption("subject"):
        warnings.simplefilter("ignore")  # ours give none; somebody else's warning breaks no clause
    try:
        CLAUSES[clause](Run(subject, seed, budget))
    except NotApplicable as reason:
        # Said by the clause, about a framework without gradients, say; not a test left out.
        print(f"not applicable: {reason}")
