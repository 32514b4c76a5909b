"""Tests that say how often they are wrong.

Every statistical test of the contract counts independent events whose probability is known, and
compares the count with the binomial distribution, which is exact. A test raises a false alarm with
probability ALPHA = 1e-11 at most. A run makes at most MOST_TESTS of them, and `Budget` counts. So a
whole run raises a false alarm less than once in a million runs, however the tests depend on one
another (the union bound). Sample sizes follow from ALPHA and from the effect that has to be seen:
an effect of that size is missed as rarely.
"""

import dataclasses
import math

import numpy as np
import scipy.stats

RUN_FALSE_ALARM = 1e-6
MOST_TESTS = 100_000
ALPHA = RUN_FALSE_ALARM / MOST_TESTS

# Uniform numbers are multiples of 2**-24 or 2**-23, so a rate may be off by this much.
RESOLUTION = 2.0**-23


class Deviation(AssertionError):  # noqa: N818 - a finding about the subject
    """The subject does not do what a clause says. The message is one line, the measured fact."""


def sample_size(rate: float, effect: float, alpha: float = ALPHA) -> int:
    """Return `smallest_sample`, rounded up to a power of two.

    There are few different sizes then, so that JAX compiles little.
    """
    return 2 ** (smallest_sample(rate, effect, alpha) - 1).bit_length()


def smallest_sample(rate: float, effect: float, alpha: float = ALPHA) -> int:
    """Return how many events to count, so that a rate off by `effect` is missed with alpha.

    The count under the contract and under the effect lie z standard deviations from a line
    between them, each on its side. Ten per cent more make up for the normal approximation.
    """
    z = scipy.stats.norm.isf(alpha / 2)
    spread = math.sqrt(rate * (1 - rate))
    other = min(max(rate + effect, 0), 1), min(max(rate - effect, 0), 1)
    spread_off = max(math.sqrt(r * (1 - r)) for r in other)
    return math.ceil(1.1 * (z * (spread + spread_off) / effect) ** 2)


def p_value(count: np.ndarray | int, n: int, rate: float) -> np.ndarray:
    """Return the two-sided p-value of so many events out of n: exact, twice the smaller tail.

    The rate may lie anywhere within RESOLUTION of the one named.
    """
    low, high = max(rate - RESOLUTION, 0.0), min(rate + RESOLUTION, 1.0)
    below = scipy.stats.binom.cdf(count, n, low)  # too few are likeliest at the lowest rate
    above = scipy.stats.binom.sf(np.asarray(count) - 1, n, high)
    return np.minimum(1.0, 2 * np.minimum(below, above))


@dataclasses.dataclass
class Budget:
    """Makes the statistical tests of a run, and counts them.

    Attributes:
        run_false_alarm: the largest probability of a false alarm in a whole run. A larger one than
            the usual makes false alarms frequent enough to be counted (`selftest --alarms`).
        tests: how many tests were made, each with a probability of at most `alpha`.
    """

    run_false_alarm: float = RUN_FALSE_ALARM
    tests: int = 0

    @property
    def alpha(self) -> float:
        """The largest probability of a false alarm in one test."""
        return self.run_false_alarm / MOST_TESTS

    def size(self, rate: float, effect: float) -> int:
        """Return how many events to count, so that a rate off by `effect` is missed with alpha."""
        return sample_size(rate, effect, self.alpha)

    def calls(self, rate: float, effect: float) -> int:
        """Return the same for events that are expensive: not rounded up to a power of two."""
        return smallest_sample(rate, effect, self.alpha)

    def spend(self, tests: int) -> None:
        """Count tests. A run that makes more than its false-alarm rate allows is a bug of ours."""
        self.tests += tests
        if self.tests > MOST_TESTS:
            raise RuntimeError("more statistical tests than the false-alarm rate allows for")

    def check(self, count: int, n: int, rate: float, what: str) -> None:
        """Raise Deviation if such a count has a p-value of at most alpha.

        Args:
            count: events seen.
            n: events possible, independent of one another.
            rate: the probability of each.
            what: what was counted, for the message.
        """
        self.spend(1)
        p = float(p_value(int(count), n, rate))
        if p <= self.alpha:
            raise Deviation(
                f"{what}: {count / n:.5f} instead of {rate:.5f} ({n} seen, p = {p:.0e})"
            )
