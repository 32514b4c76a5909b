"""All clauses of the contract, in the order in which they run: exact ones first."""

from dropout_contract import (  # noqa: F401 - they register their clauses
    dependence,
    exact,
    gradients,
    layout,
    modules,
    sources,
    statistical,
    transforms,
)
from dropout_contract.run import CLAUSES, TIERS, Clause

VERSION = "2.0"  # of the contract. A clause never changes its meaning; a new one changes this
ORDERED: tuple[Clause, ...] = tuple(
    sorted(CLAUSES.values(), key=lambda clause: (clause.statistical, TIERS.index(clause.tier)))
)
