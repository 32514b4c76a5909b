"""What a clause of the contract is given: one subject, seeds, and a budget of error."""

import dataclasses
from typing import Any

import numpy as np

from tests.contract.backends import Backend
from tests.contract.budget import Budget
from tests.contract.subjects import Subject


class NotApplicable(Exception):  # noqa: N818 - no error, an answer
    """This clause says nothing about this subject."""


@dataclasses.dataclass
class Run:
    """One subject, a seed that all others are drawn from, and the budget of statistical tests."""

    subject: Subject
    seed: int = 0
    budget: Budget = dataclasses.field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.backend: Backend = self.subject.backend
        self._first = int(np.random.SeedSequence(self.seed).generate_state(1)[0])
        self._seeds = 0

    def new_seed(self) -> int:
        """Return a seed not used before: steps of an odd width go round all of 2**31 numbers."""
        self._seeds += 1
        return (self._first + 0x9E3779B1 * self._seeds) % 2**31

    def numbers(self, *shape: int) -> np.ndarray:
        """Return float32 numbers of both signs, none of them near 0."""
        rng = np.random.default_rng(self.new_seed())
        return (rng.choice([-1, 1], shape) * rng.uniform(0.5, 2, shape)).astype(np.float32)

    def __call__(self, values: Any, p: Any, *, dtype: str = "float32", **options: Any) -> Any:
        """Apply the subject, by default in training and with a new seed; return NumPy."""
        options.setdefault("seed", self.new_seed())
        with self.backend.precision(dtype):
            x = self.backend.array(values, dtype)
            return self.backend.numpy(self.subject(x, p, **options))

    def keep(self, shape: tuple[int, ...], p: float, **options: Any) -> np.ndarray:
        """Return the mask that a call used, seen through an input of ones."""
        return self(np.ones(shape), p, **options) != 0


def needs_gradient(run: Run) -> None:
    """Leave the clause where there are no gradients."""
    if not run.backend.has_gradient:
        raise NotApplicable("no gradients in this framework")
