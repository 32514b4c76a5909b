"""All clauses of the contract, in the order in which they run: exact ones first."""

from dropout_contract import exact, gradients, statistical, transforms  # noqa: F401 - they register
from dropout_contract.run import CLAUSES, TIERS, Clause

VERSION = "1.0"  # of the contract. A clause never changes its meaning; a new one changes this
ORDERED: tuple[Clause, ...] = tuple(
    sorted(CLAUSES.values(), key=lambda clause: (clause.statistical, TIERS.index(clause.tier)))
)
