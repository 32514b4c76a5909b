"""What a clause is, and what it is given: one subject, seeds, and a budget of errors."""

import ast
import dataclasses
import inspect
import zlib
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np

from dropout_contract.backends import Backend
from dropout_contract.budget import Budget, Deviation
from dropout_contract.subjects import Subject

UNITS = 16384  # of a mask, where masks are told apart

WRONG = "wrong"  # the mathematics, the randomness or the gradient is not that of dropout
FRAGILE = "fragile"  # it breaks at an edge: infinities, p = 1, no elements, 16 bits, compilation
CONVENTION = "convention"  # error types, layout in memory, what is refused
TIERS = (WRONG, FRAGILE, CONVENTION)


class NotApplicable(Exception):  # noqa: N818 - no error, an answer
    """This clause says nothing about this subject. The message says why."""


@dataclasses.dataclass(frozen=True)
class Clause:
    """One sentence of the contract, and the function that checks it.

    Attributes:
        name: never changes its meaning.
        tier: wrong, fragile or convention: what a deviation means.
        function: takes a Run. Raises Deviation or NotApplicable, or returns.
        statistical: whether it only counts units that were kept.
    """

    name: str
    tier: str
    function: Callable[["Run"], None]
    statistical: bool = False

    @property
    def sentence(self) -> str:
        """What it says: the first line of the function's docstring."""
        text = self.function.__doc__
        if text is None:  # python -OO removed it, but the source still has it
            (source,) = ast.parse(inspect.getsource(self.function)).body
            text = ast.get_docstring(source)  # type: ignore[arg-type]  # it is a function
        return (text or "").splitlines()[0]


CLAUSES: dict[str, Clause] = {}


def clause(tier: str, *, statistical: bool = False) -> Callable[..., Callable[["Run"], None]]:
    """Make a function a clause of the contract, under its own name."""

    def register(function: Callable[[Run], None]) -> Callable[[Run], None]:
        name = function.__name__
        if name in CLAUSES:
            raise ValueError(f"two clauses are called {name}")
        CLAUSES[name] = Clause(name, tier, function, statistical)
        return function

    return register


@dataclasses.dataclass
class Run:
    """One clause on one subject.

    Attributes:
        subject: what is checked.
        seed: all seeds of the run follow from it.
        name: of the clause. Each has random numbers of its own, alone or in company.
        budget: for the statistical tests of all clauses together.
    """

    subject: Subject
    seed: int = 0
    name: str = ""
    budget: Budget = dataclasses.field(default_factory=Budget)

    def __post_init__(self) -> None:
        words = (self.seed, zlib.crc32(self.name.encode()))
        self._rng = np.random.default_rng(np.random.SeedSequence(words))
        self._used: set[int] = set()

    @property
    def backend(self) -> Backend:
        """The framework of the subject."""
        return self.subject.backend

    def new_seed(self) -> int:
        """Return a seed below 2**32, drawn at random, that this run has not used before."""
        while (seed := int(self._rng.integers(2**32))) in self._used:
            pass
        self._used.add(seed)
        return seed

    def rates(self, *rates: float) -> tuple[float, ...]:
        """Return the rates to try. A layer that was made with one rate has only that one."""
        if self.subject.p is None:
            return rates
        if self.subject.p in (0, 1):
            raise NotApplicable(f"the layer has p = {self.subject.p:g}")
        return (self.subject.p,)

    def needs_rate(self, p: float) -> None:
        """Leave the clause if the subject is a layer of another rate."""
        if self.subject.p is not None and self.subject.p != p:
            raise NotApplicable(f"the layer has p = {self.subject.p:g}, not {p:g}")

    def needs_replay(self) -> None:
        """Leave the clause if the same seed does not give the same mask again."""
        if not self.subject.replays:
            raise NotApplicable("its randomness cannot be set from outside")

    def size(self, rate: float, effect: float, *, most: int = 2**20) -> int:
        """Return how many units to count, as `Budget.size` does, but not more than so many.

        A layer with a rate near 0 or 1 would need more. Then only larger effects are seen.
        """
        return min(self.budget.size(rate, effect), most)

    def calls(self, rate: float, effect: float) -> int:
        """Return how many calls to make, as `Budget.calls` does, but at most 20,000."""
        return min(self.budget.calls(rate, effect), 20_000)

    def units(self, p: float, least: int = UNITS) -> int:
        """Return how many units two masks need, so that they are the same by chance never.

        Never: less than once in 10**17 times.
        """
        n = max(least, round(20 / max(p * (1 - p), 1e-9)))
        if n > 2**24:
            raise NotApplicable(f"at p = {p:g}, too many units are needed to tell masks apart")
        return n

    def needs_gradient(self) -> None:
        """Leave the clause where there are no gradients."""
        if not self.backend.has_gradient:
            raise NotApplicable("NumPy has no gradients")

    def needs_evaluation(self) -> None:
        """Leave the clause if the subject has no way of being switched off."""
        if not self.subject.has_evaluation:
            raise NotApplicable("it cannot be switched to evaluation")

    def needs_state(self) -> None:
        """Leave the clause if no source of randomness has a state that moves on."""
        if not self.backend.has_state:
            raise NotApplicable("a key has no state")

    def numbers(self, *shape: int) -> np.ndarray:
        """Return float32 numbers of both signs, none of them near 0."""
        signs, sizes = self._rng.choice([-1, 1], shape), self._rng.uniform(0.5, 2, shape)
        return (signs * sizes).astype(np.float32)

    def exactly(self, values: Any, dtype: str) -> np.ndarray:
        """Return the values as an array of that dtype holds them, in NumPy."""
        with self.backend.precision(dtype):
            return self.backend.numpy(self.backend.array(values, dtype))

    def __call__(
        self, values: Any, p: Any, *, dtype: str = "float32", **options: Any
    ) -> np.ndarray:
        """Apply the subject, by default in training and with a new seed. Return NumPy."""
        if "seed" in options:
            self.needs_replay()
        options.setdefault("seed", self.new_seed())
        with self.backend.precision(dtype):
            x = self.backend.array(values, dtype)
            return self.backend.numpy(self.subject(x, p, **options))

    def keep(self, shape: tuple[int, ...], p: float, **options: Any) -> np.ndarray:
        """Return the mask that a call used, seen through an input of ones."""
        return self(np.ones(shape, np.float32), p, **options) != 0

    def masks(self, shape: tuple[int, ...], p: float, number: int) -> Iterator[np.ndarray]:
        """Return the masks of many calls, each with a new seed."""
        x = self.backend.array(np.ones(shape, np.float32))
        for _ in range(number):
            yield self.backend.numpy(self.subject(x, p, seed=self.new_seed())) != 0

    def keep_with(self, shape: tuple[int, ...], p: float, source: dict[str, Any]) -> np.ndarray:
        """Return the mask of a call with a source that is there already."""
        x = self.backend.array(np.ones(shape, np.float32))
        return self.backend.numpy(self.subject.call(x, p, **source)) != 0

    def in_a_row(self, shape: tuple[int, ...], rates: Iterable[float]) -> list[np.ndarray]:
        """Return the masks of calls in a row with one source, which moves on."""
        source = self.subject.source(self.new_seed())
        return [self.keep_with(shape, p, source) for p in rates]

    def neighbouring_sources(self) -> dict[str, list[Callable[[], dict[str, Any]]]]:
        """Return ways to make sources whose seeds or keys are neighbours."""
        seed = self.new_seed() & ~7  # 1 or 2 more is the same seed with other last bits
        seeds = [seed, seed + 1, seed + 2, seed ^ 2**16, seed ^ 2**31]
        if self.backend.name != "jax" or not self.subject.takes_source:
            return {"neighbouring seeds": [partial(self.subject.source, s) for s in seeds]}
        from jax import random

        key, of_bits = self.backend.source(seed), self.subject.source_of_bits
        return {
            "neighbouring seeds": [partial(dict, key=random.key(s)) for s in seeds],
            "numbered children of a key": [
                partial(dict, key=random.fold_in(key, n)) for n in range(3)
            ],
            "keys with neighbouring first words": [
                partial(of_bits, (seed + n) << 32 | seed) for n in range(3)
            ],
        }

    def gradient(self, x: Any, weights: Any, p: float, **options: Any) -> np.ndarray:
        """Return the gradient of sum(subject(x) * weights), for arrays of the framework."""
        return self.backend.gradient(lambda x: self.subject(x, p, **options), x, weights)


def same(actual: Any, expected: Any, what: str, *, rtol: float = 0.0) -> None:
    """Raise Deviation unless two arrays are equal, NaN included, or within a relative tolerance."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape:
        raise Deviation(f"{what}: shape {expected.shape} became {actual.shape}")
    with np.errstate(all="ignore"):
        wide = actual.astype(np.float64), expected.astype(np.float64)
        equal = (wide[0] == wide[1]) | (np.isnan(wide[0]) & np.isnan(wide[1]))
        if rtol:
            equal |= np.abs(wide[0] - wide[1]) <= rtol * np.abs(wide[1])
    if not equal.all():
        first = tuple(index[0] for index in np.nonzero(np.atleast_1d(~equal)))
        seen, wanted = (float(np.atleast_1d(array)[first]) for array in wide)
        digits = 7 if f"{seen:.7g}" != f"{wanted:.7g}" else 17
        raise Deviation(
            f"{what}: {seen:.{digits}g} instead of {wanted:.{digits}g}"
            f" ({(~equal).sum()} of {equal.size} units differ)"
        )


def require(condition: Any, what: str) -> None:
    """Raise Deviation unless the condition holds."""
    if not condition:
        raise Deviation(what)
