"""The statistical helpers keep what they promise: both error rates, measured by simulation."""

import re
from importlib.resources import files

import numpy as np
import pytest
import scipy.stats
from dropout_contract import subject
from dropout_contract.budget import (
    ALPHA,
    MOST_TESTS,
    Budget,
    Deviation,
    p_value,
    sample_size,
)
from dropout_contract.checking import run_clause
from dropout_contract.clauses import CLAUSES, ORDERED
from dropout_contract.right.on_numpy import plain_where
from dropout_contract.selftest import alarms
from dropout_contract.subjects import Raised

REPEATS = 20_000
# A simulated rate is compared with a bound at this many standard errors: 1e-9 false alarms.
Z = scipy.stats.norm.isf(1e-9)


@pytest.mark.parametrize("rate", [0.001, 0.02, 0.3, 0.5, 0.95])
@pytest.mark.parametrize("alpha", [0.05, 0.001])
def test_false_alarm_rate_is_at_most_alpha(rate: float, alpha: float):
    rng = np.random.default_rng(1)
    for n in (50, 5_000):
        alarms = np.mean(p_value(rng.binomial(n, rate, REPEATS), n, rate) <= alpha)
        assert alarms <= alpha + Z * np.sqrt(alpha * (1 - alpha) / REPEATS)


@pytest.mark.parametrize(
    ("rate", "effect"), [(0.001, 0.00025), (0.02, 0.004), (0.5, 0.01), (0.95, 0.004), (0.42, 0.04)]
)
def test_power_is_at_least_one_minus_alpha(rate: float, effect: float):
    rng, alpha = np.random.default_rng(2), 0.01
    n = sample_size(rate, effect, alpha)
    for wrong in (rate - effect, rate + effect):
        missed = np.mean(p_value(rng.binomial(n, wrong, REPEATS), n, rate) > alpha)
        assert missed <= alpha + Z * np.sqrt(alpha / REPEATS)


def test_the_p_value_is_exact():
    # Twice the smaller tail, by counting all 2**10 outcomes at rate 1/2.
    outcomes = np.array([bin(word).count("1") for word in range(2**10)])
    for count in range(11):
        tail = min(np.mean(outcomes <= count), np.mean(outcomes >= count))
        assert p_value(count, 10, 0.5) == pytest.approx(min(1, 2 * tail), rel=1e-4)


def test_the_budget_bounds_a_whole_run():
    budget = Budget(tests=MOST_TESTS)
    with pytest.raises(RuntimeError, match="more statistical tests"):
        budget.check(50, 100, 0.5, "anything")
    with pytest.raises(Deviation, match=r"too many: 0\.60000 instead of 0\.50000"):
        Budget().check(6_000, 10_000, 0.5, "too many")


# Power. A subject that is wrong by exactly what limits.md states is found ten of ten times. A miss
# has a probability of 1e-11, so that a test here fails without a reason less than once in 1e9.


LIMITS = files("dropout_contract").joinpath("limits.md").read_text()


def stated_rates() -> list[tuple[float, float]]:
    """Return the rates of limits.md, each with the error that is seen."""
    rows = re.findall(r"^  \| (?:p|error) \| (.*) \|$", LIMITS, re.M)
    rates, errors = ([float(cell) for cell in row.split(" | ")] for row in rows)
    return list(zip(rates, errors, strict=True))


class Layer:
    """A layer whose rate is off."""

    def __init__(self, p: float, off: float) -> None:
        self.p, self.off = p, off

    def __call__(self, x: np.ndarray) -> np.ndarray:
        keep = np.random.random(x.shape) >= self.p + self.off
        return np.where(keep, x / x.dtype.type(1 - self.p), x.dtype.type(0))


class Wrong:
    """A function that changes some masks of a right one, and that keeps the last of them."""

    def __init__(self) -> None:
        self.masks: dict[tuple, np.ndarray] = {}
        self.p = 0.5

    def dropout(self, x, p, *, training, rng):
        keep = self.mask(rng, x.shape, p)
        self.masks[x.shape], self.p = keep, p
        return np.where(keep, x / x.dtype.type(1 - p), x.dtype.type(0)) if training else x

    def mask(self, rng, shape, p):
        return rng.random(shape) >= p


class LastRateMixedIn(Wrong):
    """The rate is off by 0.05 after another one."""

    def mask(self, rng, shape, p):
        return rng.random(shape) >= p + 0.05 * np.sign(self.p - p)


class OnePosition(Wrong):
    """The unit 7 is kept less often, by 0.1."""

    def mask(self, rng, shape, p):
        u = rng.random(shape)
        u.flat[7:8] -= 0.1
        return u >= p


class SmallInputs(Wrong):
    """A single unit is kept less often, by 0.4."""

    def mask(self, rng, shape, p):
        return rng.random(shape) >= (p + 0.4 if shape == () and p == 0.5 else p)


class Neighbours(Wrong):
    """A tenth of the units are as their left neighbour: the correlation is 0.1."""

    def mask(self, rng, shape, p):
        keep = rng.random(shape) >= p
        keep.flat[1::2] = np.where(rng.random(keep.size // 2) < 0.1, *(
            keep.ravel()[start : keep.size // 2 * 2 : 2] for start in (0, 1)))  # fmt: skip
        return keep


class Calls(Wrong):
    """A tenth of the units are as in the call before: the correlation is 0.1."""

    def mask(self, rng, shape, p):
        keep = rng.random(shape) >= p
        before = self.masks.get(shape, keep)
        return np.where(rng.random(shape) < 0.1, before, keep)


class Balanced(Wrong):
    """In half of the rows of 16, and of the calls on 300, the number kept is the usual one."""

    def mask(self, rng, shape, p):
        u = rng.random(shape)
        rows = np.atleast_2d(u)
        if rows.shape[1] not in (16, 300):
            return u >= p
        order = rows.argsort(axis=1).argsort(axis=1)
        fixed = rng.random((len(rows), 1)) < 0.5
        usual = order >= round(rows.shape[1] * p)
        return np.where(fixed, usual, rows >= p).reshape(shape)


class HalfPrecision(Layer):
    """The rate is off for 16-bit numbers only."""

    def __call__(self, x: np.ndarray) -> np.ndarray:
        return super().__call__(x) if x.dtype == np.float16 else Layer(self.p, 0)(x)


class ExclusiveOr(Wrong):
    """In a long mask, half of the units are the exclusive or of two others that are 4 apart."""

    def mask(self, rng, shape, p):
        keep = rng.random(shape) >= p
        if keep.size >= 2**19 and keep.ndim == 1 and p == 0.5:
            blocks = keep[: keep.size // 4096 * 4096].reshape(-1, 4096)
            blocks[:, 2048:4000] = blocks[:, :1952] ^ blocks[:, 4:1956]
        return keep


def times_found(what, clause: str) -> int:
    found = subject(what, "numpy")
    results = [run_clause(found, CLAUSES[clause], seed, Budget()) for seed in range(10)]
    assert not any(isinstance(result.error, Raised) for result in results)
    return sum(result.outcome == "deviates" for result in results)


@pytest.mark.parametrize(("p", "error"), stated_rates())
@pytest.mark.parametrize("sign", [-1, 1])
def test_a_rate_that_is_off_by_what_is_stated_is_found(p: float, error: float, sign: int):
    assert times_found(Layer(p, sign * error), "keep_rate") == 10
    if p == 0.5:
        assert times_found(HalfPrecision(p, sign * error), "keep_rate_in_every_dtype") == 10


@pytest.mark.parametrize(
    ("wrong", "clause"),
    [(LastRateMixedIn, "rate_follows_each_call"),
     (OnePosition, "every_position_and_every_call_counts"),
     (SmallInputs, "small_inputs_are_no_exception"), (Neighbours, "neighbours_are_independent"),
     (Calls, "calls_are_independent"), (Balanced, "number_kept_is_free"),
     pytest.param(ExclusiveOr, "triples_are_independent", marks=pytest.mark.slow)],
)  # fmt: skip
def test_an_effect_of_the_size_that_is_stated_is_found(wrong: type[Wrong], clause: str):
    assert "A correlation of 0.1 is seen" in LIMITS
    assert "in a row of 251 units if it is off by 0.1" in LIMITS
    assert times_found(wrong().dropout, clause) == 10


# False alarms.


class Recorder(Budget):
    """A budget that raises nothing, and remembers every p-value."""

    def __init__(self) -> None:
        super().__init__()
        self.p_values: list[float] = []

    def check(self, count, n, rate, what) -> None:
        self.spend(1)
        self.p_values.append(float(p_value(int(count), n, rate)))


@pytest.fixture(scope="module")
def p_values() -> np.ndarray:
    """The p-values of a run on a right dropout, without the clauses that take seconds."""
    slow = ("no_part_comes_again", "calls_share_no_part", "large_inputs_are_no_exception")
    recorder = Recorder()
    for clause in (c for c in ORDERED if c.statistical and c.name not in slow):
        run_clause(subject(plain_where, "numpy"), clause, 7, recorder)
    return np.array(recorder.p_values)


def test_a_run_stays_within_its_budget(p_values):
    # NumPy is the fastest framework: the others make as many tests.
    assert 1_000 < len(p_values) < MOST_TESTS / 10


@pytest.mark.parametrize("alpha", [0.1, 0.01, 0.001])
def test_a_right_dropout_alarms_as_often_as_is_stated(p_values, alpha: float):
    # The tests of a run share masks, so that the number of alarms varies more than a binomial
    # does. Three times as many as promised, and ten more, leave room for that.
    assert np.sum(p_values <= alpha) <= 3 * alpha * len(p_values) + 10
    if alpha * len(p_values) > 30:  # and no test is so careful that it sees nothing
        assert np.sum(p_values <= alpha) > 0.3 * alpha * len(p_values)


def test_the_rates_of_error_are_those_that_are_stated():
    alpha = Budget().alpha
    assert alpha == ALPHA == pytest.approx(1e-11)
    assert alpha * MOST_TESTS == pytest.approx(1e-6)
    assert "at most 1e-11" in LIMITS
    assert "less than once in a million runs" in LIMITS
    # A count whose p-value is just above ALPHA is no deviation, one just below is.
    counts = np.arange(5_000)
    p = p_value(counts, 10_000, 0.5)
    first = int(counts[p > ALPHA][0])
    assert ALPHA / 2 < p[first - 1] <= ALPHA < p[first] < 2 * ALPHA
    Budget().check(first, 10_000, 0.5, "fine")
    with pytest.raises(Deviation):
        Budget().check(first - 1, 10_000, 0.5, "too few")


def test_a_budget_with_more_false_alarms_has_them():
    count = int(scipy.stats.binom.isf(1e-6, 10_000, 0.5))  # a p-value of about 2e-6
    Budget().check(count, 10_000, 0.5, "fine")
    with pytest.raises(Deviation):
        Budget(1e-5 * MOST_TESTS).check(count, 10_000, 0.5, "too many")


@pytest.mark.slow
def test_whole_runs_raise_no_more_false_alarms_than_promised():
    # `dropout-contract selftest --alarms 100` does the same with more runs. Of 20 runs with at most
    # 0.01 alarms each, 6 have one with a probability of 4e-8, and with fifty times as many alarms
    # with one of 0.98.
    runs = 20
    found, bound = alarms(runs, expected=0.01)
    assert 0.005 < bound < 0.02
    assert found <= scipy.stats.binom.isf(1e-6, runs, bound)
