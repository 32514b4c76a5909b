"""Statistics of paired runs: the same seeds, with one thing changed."""

import math
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import scipy.stats

CONFIDENCE = 0.95
POWER = 0.8


class Difference(NamedTuple):
    """The mean of paired differences, a 95 % bootstrap interval (BCa), and what could be seen.

    Attributes:
        mean: of the differences, a seed each.
        low, high: ends of the interval.
        seeds: how many differences there are.
        needed: how many seeds would show a difference of this mean and spread in four of five
            studies, with a t-test at 5 %.
        p: of a paired t-test. With few seeds the interval is too narrow to decide alone.
    """

    mean: float
    low: float
    high: float
    seeds: int
    needed: int | None
    p: float = 0.0

    @property
    def sign(self) -> int:
        """1 or -1 if interval and t-test (5 %) both say that it is above or below 0, else 0."""
        return (int(self.low > 0) - int(self.high < 0)) * (self.p < 1 - CONFIDENCE)


def paired(a: np.ndarray, b: np.ndarray) -> Difference:
    """Compare two arrays of results of the same seeds, a - b. Seeds with a NaN are left out."""
    d = np.asarray(a, float) - np.asarray(b, float)
    d = d[np.isfinite(d)]
    mean, low, high = interval(d)
    if len(d) < 2:
        return Difference(mean, low, high, len(d), None, 1.0)
    spread = float(d.std(ddof=1))
    if spread == 0:
        return Difference(mean, low, high, len(d), _needed(mean, spread), float(mean == 0))
    p = float(scipy.stats.ttest_1samp(d, 0).pvalue)
    return Difference(mean, low, high, len(d), _needed(mean, spread), p)


def interval(values: np.ndarray) -> tuple[float, float, float]:
    """Return the mean and the ends of its 95 % bootstrap interval (BCa), without NaN."""
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    mean = float(values.mean()) if len(values) else math.nan
    if len(values) < 2 or np.ptp(values) == 0:  # nothing to draw from
        return mean, mean, mean
    # Always the same draws, so that the same runs give the same text.
    result = scipy.stats.bootstrap(
        (values,), np.mean, confidence_level=CONFIDENCE, rng=np.random.default_rng(0)
    )
    low, high = map(float, result.confidence_interval)
    if math.isnan(low) or math.isnan(high):  # BCa is not defined for some tiny samples
        result = scipy.stats.bootstrap(
            (values,), np.mean, method="percentile", rng=np.random.default_rng(0)
        )
        low, high = map(float, result.confidence_interval)
    return mean, low, high


def _needed(mean: float, spread: float) -> int | None:
    """Return the smallest number of pairs that shows this mean, or None above 10,000."""
    if not spread or math.isnan(spread):
        return 2 if mean else None

    def power(n: int) -> float:
        threshold = scipy.stats.t.isf((1 - CONFIDENCE) / 2, n - 1)
        return float(scipy.stats.nct.sf(threshold, n - 1, abs(mean) / spread * math.sqrt(n)))

    numbers = range(2, 10_001)
    i = bisect_left(numbers, POWER, key=power)  # it grows with n
    return numbers[i] if i < len(numbers) else None


def percent(difference: Any) -> str:
    """Return a difference of accuracies in percentage points, for a table."""
    return _shown(difference, 100, 2)


def plain(difference: Any) -> str:
    """Return a difference, for a table."""
    return _shown(difference, 1, 3)


def errors(difference: Any) -> str:
    """Return a difference of shares of errors as one of errors per 10,000, for a table."""
    return _shown(difference, 10_000, 0)


def _shown(difference: Any, factor: float, digits: int) -> str:
    d = as_difference(difference)
    mean, low, high = (_number(factor * number, digits) for number in d[:3])
    return f"{mean} [{low}, {high}], n = {needed(d)}"


def _number(number: float, digits: int) -> str:
    """Return a number with its sign, which 0 has not."""
    if abs(number) >= 1e6:
        return f"{number:+.0e}"
    return f"{number:+.{digits}f}" if abs(number) >= 0.5 / 10**digits else f"{0:.{digits}f}"


def level(mean_and_ends: Any) -> str:
    """Return what `interval` returned, for a table."""
    mean, low, high = mean_and_ends
    return f"{mean:.3f} [{low:.3f}, {high:.3f}]"


def share(mean_and_ends: Any) -> str:
    """Return what `interval` returned as a share in percent, for a table."""
    mean, low, high = mean_and_ends
    return f"{mean:.1%} [{low:.1%}, {high:.1%}]"


def points(difference: Any) -> str:
    """Return the mean difference of accuracies in percentage points, for a sentence."""
    return _number(100 * as_difference(difference).mean, 1)


def change(difference: Any) -> str:
    """Return the mean difference, for a sentence."""
    return _number(as_difference(difference).mean, 3)


def as_difference(value: Any) -> Difference:
    """Return a difference as it was before it went into JSON."""
    return value if isinstance(value, Difference) else Difference(*value)


def needed(difference: Any) -> str:
    """Return how many seeds would show a difference."""
    number = as_difference(difference).needed
    return "> 10,000" if number is None else f"{number:,}"


TITLES = {"torch": "PyTorch", "jax": "JAX"}


def each(values: Mapping[str, Any], show: Callable[[Any], str] = percent) -> str:
    """Return what was measured in each framework, for a table: `PyTorch ..., JAX ...`."""
    return "; ".join(f"{TITLES[framework]} {show(value)}" for framework, value in values.items())


def words(values: Mapping[str, Any], show: Callable[[Any], str] = percent) -> str:
    """Return the same for a sentence, without names: `... and ...`."""
    return " and ".join(show(value) for value in values.values())


def signs(values: Mapping[str, Any]) -> set[int]:
    """Return the signs that the frameworks found: 1, -1, or 0 where the interval contains 0."""
    return {as_difference(value).sign for value in values.values()}


def where(labels: Iterable[Any], values: Iterable[Mapping[str, Any]], sign: int) -> str:
    """Return the labels where every framework found this sign, for a sentence."""
    found = [
        label if isinstance(label, str) else f"{label:,}"
        for label, of in zip(labels, values, strict=True)
        if signs(of) == {sign}
    ]
    return ", ".join(found) or "none"


def effect(what: str, labels: Iterable[Any], values: Iterable[Any], unit: str) -> str:
    """Return what dropout does clearly, and where: `clearly raises the loss with 64, 128 units`."""
    labels, values = list(labels), list(values)
    found = {verb: where(labels, values, sign) for verb, sign in (("raises", 1), ("lowers", -1))}
    parts = [f"clearly {verb} {what} with {at}{unit}" for verb, at in found.items() if at != "none"]
    return " and ".join(parts) or f"does not clearly change {what} anywhere"


def spread(values: Iterable[Mapping[str, Any]], show: Callable[[Any], str]) -> str:
    """Return the least and the largest mean difference, for a sentence."""
    every = sorted((as_difference(d) for of in values for d in of.values()), key=lambda d: d.mean)
    return f"{show(every[0])} to {show(every[-1])}"


def contrast(labels: Iterable[str], values: Iterable[Any]) -> str:
    """Return which are clearly better or worse than what they are compared with."""
    labels, values = list(labels), list(values)
    found = {word: where(labels, values, sign) for word, sign in (("better", 1), ("worse", -1))}
    parts = [f"clearly {word}: {names}" for word, names in found.items() if names != "none"]
    return ", and ".join(parts) or "no clear difference"


def verdict(
    values: Mapping[str, Any], positive: str, negative: str, neither: str = "no clear difference"
) -> str:
    """Return the phrase that the intervals of all frameworks support, or else `neither`."""
    found = signs(values)
    return positive if found == {1} else negative if found == {-1} else neither
