"""Tests that say how often they are wrong.

Every statistical test of the contract is exact: it counts independent events whose probability
is known under the contract, and compares the count with the binomial distribution. A test is
allowed ALPHA = 1e-11 false alarms; a run of the contract makes at most MOST_TESTS of them, and
`Budget` counts; so a whole run raises a false alarm less than once in a million, whatever the
dependence between the tests (the union bound). Sample sizes follow from ALPHA and from the effect
to be seen, such that an effect of that size is missed just as rarely.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

RUN_FALSE_ALARM = 1e-6
MOST_TESTS = 100_000
ALPHA = RUN_FALSE_ALARM / MOST_TESTS

# Uniforms are multiples of 2**-24 or 2**-23, so a rate may be off by this much, by design.
RESOLUTION = 2.0**-23


def sample_size(rate: float, effect: float, alpha: float = ALPHA) -> int:
    """Return how many events to count, so that a rate off by `effect` is missed with alpha.

    The count under the contract and under the effect lie z standard deviations from a line
    between them, each on its side; the normal approximation is helped by 10 % more.
    """
    z = scipy.stats.norm.isf(alpha / 2)
    spread = math.sqrt(rate * (1 - rate))
    other = min(max(rate + effect, 0), 1), min(max(rate - effect, 0), 1)
    spread_off = max(math.sqrt(r * (1 - r)) for r in other)
    n = math.ceil(1.1 * (z * (spread + spread_off) / effect) ** 2)
    return 2 ** (n - 1).bit_length()  # few different sizes, so that JAX compiles little


def p_value(count: np.ndarray | int, n: int, rate: float) -> np.ndarray:
    """Return the two-sided p-value of so many events out of n, exact, twice the smaller tail.

    The rate may lie anywhere within RESOLUTION of the one named.
    """
    low, high = max(rate - RESOLUTION, 0.0), min(rate + RESOLUTION, 1.0)
    below = scipy.stats.binom.cdf(count, n, low)  # too few: likeliest at the lowest rate
    above = scipy.stats.binom.sf(np.asarray(count) - 1, n, high)
    return np.minimum(1.0, 2 * np.minimum(below, above))


@dataclasses.dataclass
class Budget:
    """Counts the tests of a run, and makes them."""

    tests: int = 0

    def spend(self, tests: int) -> None:
        """Count tests, and fail if a run makes more of them than its false-alarm rate allows."""
        self.tests += tests
        assert self.tests <= MOST_TESTS, "more tests than the false-alarm rate allows for"

    def check(self, count: int, n: int, rate: float, what: str) -> None:
        """Fail if such a count has a p-value of at most ALPHA.

        Args:
            count: events seen.
            n: events possible, independent of one another.
            rate: the probability of each.
            what: for the message.
        """
        self.spend(1)
        p = float(p_value(int(count), n, rate))
        assert p > ALPHA, f"{what}: {count / n:.5f} instead of {rate:.5f} ({n} units, p = {p:.1e})"
