"""Our three networks keep the contract of the network."""

import pytest

from tests.contract.backends import BACKENDS
from tests.contract.budget import Budget
from tests.contract.network import check_network, ours


@pytest.mark.parametrize("implementation", BACKENDS)
def test_network(implementation: str, contract_seed: int):
    check_network(ours, implementation, contract_seed, Budget())
