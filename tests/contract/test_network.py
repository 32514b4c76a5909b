"""Our three networks keep the contract of the network."""

import pytest

from tests.contract.backends import BACKENDS
from tests.contract.network import check_network, ours
from tests.contract.statistics import Budget


@pytest.mark.parametrize("implementation", BACKENDS)
def test_network(implementation: str, request: pytest.FixtureRequest):
    check_network(ours, implementation, request.config.contract_seed, Budget())
