"""The statistical helpers keep what they promise: both error rates, measured by simulation."""

import numpy as np
import pytest
import scipy.stats
from dropout_contract import subject
from dropout_contract.budget import (
    ALPHA,
    MOST_TESTS,
    RUN_FALSE_ALARM,
    Budget,
    Deviation,
    p_value,
    sample_size,
)
from dropout_contract.checking import run_clause
from dropout_contract.clauses import ORDERED
from dropout_contract.right.on_numpy import plain_where
from dropout_contract.selftest import alarms

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
    assert ALPHA * MOST_TESTS <= RUN_FALSE_ALARM * (1 + 1e-12)
    budget = Budget(tests=MOST_TESTS)
    with pytest.raises(RuntimeError, match="more statistical tests"):
        budget.check(50, 100, 0.5, "anything")
    with pytest.raises(Deviation, match=r"too many: 0\.60000 instead of 0\.50000"):
        Budget().check(6_000, 10_000, 0.5, "too many")


def test_a_run_stays_within_its_budget():
    # The fastest framework: the others make as many tests.
    budget = Budget()
    for clause in ORDERED:
        run_clause(subject(plain_where, "numpy"), clause, 7, budget)
    assert 50 < budget.tests < MOST_TESTS / 10


def test_whole_runs_raise_no_more_false_alarms_than_promised():
    # `dropout-contract selftest --alarms 100` does the same with more runs.
    slow = ("no_part_comes_again", "triples_are_independent", "calls_share_no_part",
            "large_inputs_are_no_exception")  # fmt: skip
    clauses = tuple(c for c in ORDERED if c.statistical and c.name not in slow)
    runs = 4
    found, bound = alarms(runs, expected=0.01, clauses=clauses)
    assert 0.005 < bound < 0.02
    assert found <= scipy.stats.binom.isf(1e-6, runs, bound)
