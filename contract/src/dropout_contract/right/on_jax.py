"""Right dropouts in JAX. Each is a way in which somebody may write it."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from dropout_contract.right import off


def _select(x: Array, keep: Array, p: float) -> Array:
    return jnp.where(keep, x / (1 - p if p < 1 else 1.0), jnp.zeros((), x.dtype))


def plain_where(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """The textbook: u >= p, jnp.where."""
    if off(training, p):
        return x
    return _select(x, jax.random.uniform(key, x.shape) >= p, p)


def centred(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Uniform numbers in [-1, 1)."""
    if off(training, p):
        return x
    u = jax.random.uniform(key, x.shape, minval=-1.0, maxval=1.0)
    return _select(x, u >= 2 * p - 1, p)


def below_keep_rate(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Keeps where u < 1 - p."""
    if off(training, p):
        return x
    return _select(x, jax.random.uniform(key, x.shape) < 1 - p, p)


def two_sides(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """U >= p for small rates and u < 1 - p for large ones, as it is more exact."""
    if off(training, p):
        return x
    u = jax.random.uniform(key, x.shape)
    return _select(x, u >= p if p <= 0.5 else u < 1 - p, p)


def bernoulli(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """The framework's own Bernoulli numbers."""
    if off(training, p):
        return x
    return _select(x, jax.random.bernoulli(key, 1.0 - p, x.shape), p)


def bernoulli_for_small(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Bernoulli numbers for small rates, uniform ones for the others."""
    if p < 0.1:
        return bernoulli(x, p, training=training, key=key)
    return plain_where(x, p, training=training, key=key)


def whole_numbers(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """32 random bits, compared with a whole threshold."""
    if off(training, p):
        return x
    bits = jax.random.bits(key, x.shape, "uint32")
    keep = bits >= jnp.uint32(min(round(p * 2**32), 2**32 - 1))
    return _select(x, keep & (p < 1), p)


def exponential(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Exponential waiting times: one that is at most -log(p) is kept."""
    if off(training, p):
        return x
    waiting = jax.random.exponential(key, x.shape, jnp.float32)
    return _select(x, (waiting <= -math.log(p)) & (p < 1), p)


def split_first(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Splits the key and uses one half."""
    if off(training, p):
        return x
    _, mine = jax.random.split(key)
    return _select(x, jax.random.uniform(mine, x.shape) >= p, p)


def fold_in_first(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Derives a key of its own."""
    if off(training, p):
        return x
    return _select(x, jax.random.uniform(jax.random.fold_in(key, 7), x.shape) >= p, p)


def lax_select(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """The primitive below jnp.where."""
    if off(training, p):
        return x
    keep = jax.random.uniform(key, x.shape) >= p
    return jax.lax.select(keep, x / (1 - p if p < 1 else 1.0), jnp.zeros_like(x))


def multiplies_scale(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Multiplies by 1 / (1 - p) instead of dividing, and selects first."""
    if off(training, p):
        return x
    keep = jax.random.uniform(key, x.shape) >= p
    return jnp.where(keep, x, jnp.zeros((), x.dtype)) * (1 / (1 - p) if p < 1 else 1.0)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _custom(x: Array, keep: Array, p: float) -> Array:
    return _select(x, keep, p)


def _forward(x: Array, keep: Array, p: float) -> tuple[Array, Array]:
    return _select(x, keep, p), keep


def _backward(p: float, keep: Array, gradient: Array) -> tuple[Array, None]:
    return _select(gradient, keep, p), None


_custom.defvjp(_forward, _backward)


def custom_vjp(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """A gradient of its own, which forward mode cannot take."""
    if off(training, p):
        return x
    return _custom(x, jax.random.uniform(key, x.shape) >= p, p)


def rbg(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Keys of the kind "rbg". Under vmap they give other masks than in plain calls."""
    if off(training, p):
        return x
    words = jnp.concatenate([jax.random.key_data(key), jax.random.key_data(key) ^ 1])
    own = jax.random.wrap_key_data(words, impl="rbg")
    return _select(x, jax.random.uniform(own, x.shape) >= p, p)


def checkpointed(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Computed again in the backward pass."""
    if off(training, p):
        return x
    return jax.checkpoint(lambda x, key: plain_where(x, p, training=True, key=key))(x, key)


@functools.partial(jax.jit, static_argnames=("p", "training"))
def compiled(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """Compiled by its author."""
    return plain_where(x, p, training=training, key=key)


def other_names(rng: Array, rate: float, inputs: Array, deterministic: bool) -> Array:
    """The arguments in another order and under other names, with the opposite flag."""
    return plain_where(inputs, rate, training=not deterministic, key=rng)


def seeded_row_by_row(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """A key for each unit of the first axis."""
    if off(training, p):
        return x
    if x.ndim < 2 or 0 in x.shape:
        return plain_where(x, p, training=True, key=key)
    keys = jax.random.split(key, x.shape[0])
    u = jax.vmap(lambda key: jax.random.uniform(key, x.shape[1:]))(keys)
    return _select(x, u >= p, p)


def adapted(x: Array, p: float, *, training: bool, key: Any = None) -> Array:
    """An adapter of five lines around a function in another style."""

    def theirs(key: Array, shape: tuple[int, ...], q: float) -> Array:
        return jax.random.uniform(key, shape) < q

    return x if off(training, p) else _select(x, theirs(key, x.shape, 1 - p), p)


def _layers() -> dict[str, Any]:
    """Layers of Flax, if it is installed."""
    try:
        from flax import linen, nnx
    except ImportError:
        return {}

    class NnxLayer(nnx.Module):
        """A layer of Flax nnx whose key is passed at the call."""

        def __init__(self, p: float) -> None:
            off(False, p)
            self.p, self.deterministic = p, False

        def __call__(self, x: Array, *, key: Any = None) -> Array:
            return plain_where(x, self.p, training=not self.deterministic, key=key)

    class NnxLayerWithRngs(nnx.Module):
        """A layer of Flax nnx with a stream of keys of its own."""

        def __init__(self, rate: float, *, rngs: nnx.Rngs) -> None:
            off(False, rate)
            self.rate, self.rngs = rate, rngs

        def __call__(self, x: Array, *, deterministic: bool = False) -> Array:
            if deterministic or self.rate == 0:
                return x
            return plain_where(x, self.rate, training=True, key=self.rngs.dropout())

    class LinenLayer(linen.Module):
        """A layer of Flax Linen."""

        rate: float

        @linen.compact
        def __call__(self, x: Array, deterministic: bool = False) -> Array:
            if off(not deterministic, self.rate):
                return x
            if self.rate == 1:
                return x * 0 if False else _select(x, jnp.zeros(x.shape, bool), 1.0)
            return plain_where(x, self.rate, training=True, key=self.make_rng("dropout"))

    return {kind.__name__: kind for kind in (NnxLayer, NnxLayerWithRngs, LinenLayer)}


MORE: dict[str, Any] = _layers()
