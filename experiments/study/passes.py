"""Ways to use a network that was trained with dropout, and how sure it is of its answers.

Source: Wang and Manning, "Fast dropout training", ICML (2013), for moment matching.
"""

from collections.abc import Iterator, Mapping

import numpy as np
from scipy.special import ndtr, softmax
from scipy.stats import rankdata

from experiments.study.runs import Setting
from impls.numpy.dropout import dropout

Weights = Mapping[str, np.ndarray]


def passes(
    setting: Setting, weights: Weights, images: np.ndarray, number: int
) -> Iterator[np.ndarray]:
    """Yield the probabilities of each class, dropout on, in as many passes."""
    rng = np.random.default_rng(setting.seed)
    h1 = np.maximum(_linear(weights, 1, images), 0)  # the same in every pass
    for _ in range(number):
        dropped = dropout(h1, setting.p1, training=True, rng=rng)
        h2 = np.maximum(_linear(weights, 2, dropped), 0)
        h2 = dropout(h2, setting.p2, training=True, rng=rng)
        yield softmax(_linear(weights, 3, h2).astype(np.float64), axis=1)


def logits(weights: Weights, x: np.ndarray, s1: float = 1, s2: float = 1) -> np.ndarray:
    """Return the logits with dropout off, the hidden layers multiplied by two numbers."""
    h1 = np.maximum(_linear(weights, 1, x), 0) * np.float32(s1)
    h2 = np.maximum(_linear(weights, 2, h1), 0) * np.float32(s2)
    return _linear(weights, 3, h2)


def _linear(weights: Weights, layer: int, x: np.ndarray) -> np.ndarray:
    return x @ weights[f"linear_{layer}.weight"].T + weights[f"linear_{layer}.bias"]


def moment_matching(
    setting: Setting, weights: Weights, images: np.ndarray, samples: int = 400
) -> np.ndarray:
    """Return probabilities from means and variances instead of masks.

    Each pre-activation of the second layer is taken for a normal number, independent of the
    others. The mean and the second moment of its ReLU are then known exactly. The logits are taken
    for normal numbers with the covariances that follow, and the mean of their softmax is sampled.
    """
    h1 = np.maximum(_linear(weights, 1, images), 0)
    mean = _linear(weights, 2, h1)
    variance = setting.p1 / (1 - setting.p1) * h1**2 @ (weights["linear_2.weight"] ** 2).T
    s = np.sqrt(variance + np.float32(1e-12))
    below = ndtr(mean / s)
    density = np.exp(-((mean / s) ** 2) / 2) / np.sqrt(2 * np.pi)
    m = mean * below + s * density
    second = (mean**2 + s**2) * below + mean * s * density
    variance = second / (1 - setting.p2) - m**2
    w = weights["linear_3.weight"].astype(np.float64)
    covariance = np.einsum("bj,ij,kj->bik", variance, w, w, optimize=True)
    root = np.linalg.cholesky(covariance + 1e-9 * np.eye(len(w)))
    z = np.random.default_rng(setting.seed).standard_normal((samples // 2, len(w)))
    center = _linear(weights, 3, m)
    total = np.zeros_like(center)
    for draw in np.concatenate([z, -z]):
        total += softmax(center + root @ draw, axis=1)
    return total / samples


def entropy(p: np.ndarray) -> np.ndarray:
    """Return the entropy of each row of probabilities."""
    return -(p * np.log(np.maximum(p, 1e-300))).sum(1)


def auroc(lower: np.ndarray, higher: np.ndarray) -> float:
    """Return how often a number of the second array is the larger one. A tie counts one half."""
    ranks = rankdata(np.concatenate([lower, higher]))[len(lower) :]
    n = len(higher)
    return float((ranks.sum() - n * (n + 1) / 2) / (n * len(lower)))


def turned(images: np.ndarray) -> np.ndarray:
    """Return images turned by 90 degrees."""
    side = round(images.shape[1] ** 0.5)
    return np.rot90(images.reshape(-1, side, side), axes=(1, 2)).reshape(len(images), -1).copy()
