"""All masks of a small layer, to compute means over masks exactly instead of by sampling."""

from itertools import product

import numpy as np
from scipy.special import expit, softmax

from impls.numpy import dropout as numpy_dropout


def all_masks(n: int, p: float) -> tuple[np.ndarray, np.ndarray]:
    """Return all 2^n masks of n units, and the probability of each."""
    keep = np.array(list(product((False, True), repeat=n)))
    return keep, np.prod(np.where(keep, 1 - p, p), axis=1)


def apply_keep(framework: str, x: np.ndarray, keep: np.ndarray, p: float) -> np.ndarray:
    """Apply masks with the `apply_keep` of a framework, in float64. Shapes are broadcast."""
    x, keep = (np.array(array) for array in np.broadcast_arrays(x, keep))
    if framework == "torch":
        import torch

        from impls.torch.dropout import apply_keep as in_torch

        return in_torch(torch.as_tensor(x), torch.as_tensor(keep), p).numpy()
    if framework == "jax":
        import jax

        from impls.jax.dropout import apply_keep as in_jax

        with jax.enable_x64(True):
            return np.asarray(in_jax(jax.numpy.asarray(x), jax.numpy.asarray(keep), p))
    return numpy_dropout.apply_keep(x, keep, p)


def covariance(values: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """Return the covariances of the columns, where a row has a probability."""
    centred = values - chance @ values
    return np.asarray(centred.T * chance @ centred)


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference, as a part of the largest number of b."""
    return float(np.abs(a - b).max() / np.abs(b).max())


def geometric_mean(framework: str) -> float:
    """Compare a softmax layer's geometric mean over all masks with the layer without masks."""
    rng = np.random.default_rng(0)
    x, w, b = rng.normal(size=10), rng.normal(size=(5, 10)), rng.normal(size=5)
    largest = 0.0
    for p in (0.2, 0.5, 0.8):
        keep, probability = all_masks(10, p)
        outputs = softmax(apply_keep(framework, x, keep, p) @ w.T + b, axis=1)
        mean = np.exp(probability @ np.log(outputs))
        exact = softmax(w @ x + b)
        largest = max(largest, float(np.abs(mean / mean.sum() / exact - 1).max()))
    return largest


def sigmoid_signs(framework: str, p: float, units: int) -> float:
    """Return the share of random units, rescaled output below 1/2, that lie below their mean."""
    rng = np.random.default_rng(1)
    inputs = rng.normal(size=(units, 8)) * rng.lognormal(size=(units, 1))  # already with weights
    inputs *= -np.sign(inputs.sum(1, keepdims=True))  # now the output is below 1/2
    keep, probability = all_masks(8, p)
    sums = apply_keep(framework, inputs[:, None], keep[None], p).sum(2)
    mean = expit(sums) @ probability
    return float((expit(inputs.sum(1)) <= mean).mean())
