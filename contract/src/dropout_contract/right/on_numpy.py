"""Right dropouts in NumPy. Each is a way in which somebody may write it."""

import math
from typing import Any

import numpy as np
import scipy.special

from dropout_contract.right import off

Array = np.ndarray
Rng = np.random.Generator


def _select(x: Array, keep: Array, p: float) -> Array:
    scale = x.dtype.type(1 - p if p < 1 else 1)
    return np.where(keep, x / scale, x.dtype.type(0))


def plain_where(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """The textbook: u >= p, np.where, in float64."""
    return x if off(training, p) else _select(x, rng.random(x.shape) >= p, p)


def single(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Uniform numbers in float32."""
    return x if off(training, p) else _select(x, rng.random(x.shape, dtype=np.float32) >= p, p)


def spawned(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """A child of the rng for each call."""
    return x if off(training, p) else _select(x, rng.spawn(1)[0].random(x.shape) >= p, p)


def until_it_fits(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Draws again what is exactly 0, for numbers in (0, 1)."""
    if off(training, p):
        return x
    u = np.asarray(rng.random(x.shape))
    while (u == 0).any():
        u = np.where(u == 0, rng.random(x.shape), u)
    return _select(x, u >= p, p)


def below_keep_rate(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Keeps where u < 1 - p."""
    return x if off(training, p) else _select(x, rng.random(x.shape) < 1 - p, p)


def two_sides(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """U >= p for small rates and u < 1 - p for large ones."""
    if off(training, p):
        return x
    u = rng.random(x.shape)
    return _select(x, u >= p if p <= 0.5 else u < 1 - p, p)


def binomial(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """One trial for each unit."""
    return x if off(training, p) else _select(x, rng.binomial(1, 1 - p, x.shape) == 1, p)


def binomial_for_small(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Binomial numbers for small rates, uniform ones for the others."""
    return (binomial if p < 0.1 else plain_where)(x, p, training=training, rng=rng)


def skipping(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Jumps from one dropped unit to the next: distances are geometric."""
    if off(training, p):
        return x
    keep = np.ones(x.size, bool)
    places = np.cumsum(rng.geometric(p, int(x.size * p + 12 * math.sqrt(x.size) + 12))) - 1
    keep[places[places < x.size]] = False
    return _select(x, keep.reshape(x.shape), p)


def whole_numbers(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Whole numbers below 2**32, compared with a whole threshold."""
    if off(training, p):
        return x
    return _select(x, rng.integers(2**32, size=x.shape) >= round(p * 2**32), p)


def exponential(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Exponential waiting times: one that is shorter than -log(p) is kept."""
    if off(training, p):
        return x
    return _select(x, rng.standard_exponential(x.shape) < -math.log(p), p)


def quantile(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Normal numbers above their p-quantile."""
    if off(training, p):
        return x
    return _select(x, rng.standard_normal(x.shape) >= scipy.special.ndtri(p), p)


def by_index(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Copies what is kept into zeros, by boolean indexing."""
    if off(training, p):
        return x
    keep = np.asarray(rng.random(x.shape) >= p)
    out = np.zeros_like(x)
    out[keep] = x[keep] / x.dtype.type(1 - p if p < 1 else 1)
    return out


def fills(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """Writes zeros into a scaled copy."""
    if off(training, p):
        return x.copy()
    out = np.array(x / x.dtype.type(1 - p if p < 1 else 1))
    np.copyto(out, 0, where=rng.random(x.shape) < p)
    return out


def legacy(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """A RandomState, seeded from the generator."""
    if off(training, p):
        return x
    state = np.random.RandomState(rng.integers(2**32, size=4, dtype=np.uint32))
    return _select(x, state.random_sample(x.shape) >= p, p)


def global_generator(x: Array, p: float, training: bool = True) -> Array:
    """Draws from NumPy's global generator."""
    return x if off(training, p) else _select(x, np.random.random(x.shape) >= p, p)


def other_order(rng: Rng, dropout_rate: float, h: Array, is_training: bool) -> Array:
    """The arguments in another order and under other names."""
    return plain_where(h, dropout_rate, training=is_training, rng=rng)


def always_on(x: Array, rate: float) -> Array:
    """A function for training only, on the global generator."""
    return global_generator(x, rate, True)


class Layer:
    """A plain class with a flag, on the global generator."""

    def __init__(self, p: float) -> None:
        off(False, p)
        self.p, self.training = p, True

    def forward(self, x: Array) -> Array:
        return global_generator(x, self.p, self.training)


class LayerWithRng:
    """A plain class with its own generator."""

    def __init__(self, p: float, rng: Any = None) -> None:
        off(False, p)
        self.p = p
        self.rng = np.random.default_rng(0) if rng is None else rng

    def __call__(self, x: Array, training: bool) -> Array:
        return plain_where(x, self.p, training=training, rng=self.rng)


def adapted(x: Array, p: float, *, training: bool, rng: Any = None) -> Array:
    """An adapter of five lines around a function in another style."""

    def theirs(shape: tuple[int, ...], q: float) -> Array:
        return rng.random(shape) < q

    return x if off(training, p) else _select(x, theirs(x.shape, 1 - p), p)


MORE: dict[str, Any] = {"an instance": Layer(0.3)}
