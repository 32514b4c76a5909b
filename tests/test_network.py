"""The contract of the network: ours keep it, and every wrong one is found."""

import pytest
from dropout_contract.backends import FRAMEWORKS
from dropout_contract.budget import Budget

from tests.network import check_network, ours
from tests.network_mutants import NETWORK_MUTANTS, CorrectNetwork


@pytest.mark.parametrize("implementation", FRAMEWORKS)
def test_ours(implementation: str):
    check_network(ours, implementation, 0, Budget())


@pytest.mark.parametrize("implementation", FRAMEWORKS)
@pytest.mark.parametrize("mutant", NETWORK_MUTANTS)
def test_a_wrong_one_is_found(mutant: str, implementation: str):
    with pytest.raises(AssertionError):
        check_network(NETWORK_MUTANTS[mutant], implementation, 1, Budget())


@pytest.mark.parametrize("implementation", FRAMEWORKS)
def test_the_correct_one_passes_the_same_run(implementation: str):
    check_network(CorrectNetwork, implementation, 1, Budget())
