"""The exact distributions of the noises of impls/torch/noise.py."""

import math
from typing import Any

import numpy as np
import scipy.stats


def rate_of(masks: int, v: float) -> float:
    """Return the rate of each of K masks whose mean has variance v."""
    return masks * v / (1 + masks * v)


def shape_of(kind: str, v: float) -> dict[str, float]:
    """Return exact skewness, excess kurtosis, P(factor = 0) and P(factor < 0) at variance v."""
    name, _, masks = kind.partition("-")
    k = int(masks or 1)
    noises = {
        "dropout": scipy.stats.binom(k, 1 - rate_of(k, v)),
        "masks": scipy.stats.binom(k, 1 - rate_of(k, v)),
        "gaussian": scipy.stats.norm(1, math.sqrt(v)),
        "uniform": scipy.stats.uniform(1 - math.sqrt(3 * v), 2 * math.sqrt(3 * v)),
        "lognormal": scipy.stats.lognorm(math.sqrt(math.log1p(v)), scale=1 / math.sqrt(1 + v)),
    }
    noise = noises[name]
    skewness, kurtosis = noise.stats(moments="sk")
    return {
        "skewness": float(skewness),
        "kurtosis": float(kurtosis),
        "zero": float(noise.pmf(0)) if name in ("dropout", "masks") else 0.0,
        "negative": 0.0 if name in ("dropout", "masks") else float(noise.cdf(0)),
    }


def distances(masks: int, v: float) -> dict[str, float]:
    """Compare the number of kept masks, exactly, with a Poisson and with a normal number.

    Returns:
        Total variation distance from the Poisson number, skewness, and the largest difference of
        the distribution functions from a normal number: at variance v, and with a rate of 0.2.
    """
    n = np.arange(masks + 1)
    kept = scipy.stats.binom(masks, 1 - rate_of(masks, v))
    poisson = scipy.stats.poisson(1 / v)
    total = 0.5 * (np.abs(kept.pmf(n) - poisson.pmf(n)).sum() + poisson.sf(masks))
    return {
        "poisson": float(total),
        "skewness": float(kept.stats(moments="s")),
        "normal": _from_normal(kept, n),
        "normal_fixed": _from_normal(scipy.stats.binom(masks, 0.8), n),
    }


def _from_normal(kept: Any, n: np.ndarray) -> float:
    """Return the Kolmogorov distance of a number of kept masks from a normal number."""
    normal = scipy.stats.norm(kept.mean(), kept.std()).cdf(n)
    below = kept.cdf(n) - kept.pmf(n)
    return float(max(np.abs(kept.cdf(n) - normal).max(), np.abs(below - normal).max()))
