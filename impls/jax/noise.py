"""Other noise in the place of dropout, and dropout of weights (DropConnect), in JAX and Flax.

The kinds of noise are explained in impls/torch/noise.py. The difference: noise is drawn not from a
generator with a state but from a key, a value. The same key always gives the same noise.

Source: Srivastava et al. (2014), section 10, for Gaussian noise. Wan et al., "Regularization of
Neural Networks using DropConnect", ICML (2013), for dropout of weights.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from impls.jax.dropout import NO_SOURCE, Units, apply_keep, sample_keep
from shared.checks import (
    Kind,
    check_dropout,
    check_factors,
    check_linear,
    check_noise,
    check_source,
    check_training,
)

Factors = Float[Array, "*shape"]


def sample_noise(
    shape: tuple[int, ...], p: float, *, kind: Kind, masks: int = 1, key: Array | None
) -> Factors:
    """Draw factors with mean 1 and variance p / (1 - p), as float32.

    Args:
        shape: shape of the result.
        p: the rate of the dropout that has this variance, in [0, 1).
        kind: masks, gaussian, uniform or lognormal, see the top of this file.
        masks: K, the number of masks of the kind `masks`.
        key: the source of randomness. Use a key for one draw only.

    Raises:
        TypeError, ValueError: p is not in [0, 1), or kind or masks is not possible.
    """
    p = check_noise(p, kind, masks)
    key = check_source(key, Array, NO_SOURCE)
    v = p / (1 - p)
    if kind == "masks":
        q = masks * v / (1 + masks * v)
        kept = sample_keep((masks, *shape), q, key=key).mean(0, dtype=jnp.float32)
        return kept / (1 - q)
    if kind == "uniform":
        return 1 + math.sqrt(3 * v) * (2 * _uniform(shape, key) - 1)
    # The Box-Muller transform: two uniform numbers make a normal one, the same in every framework.
    u = _uniform((2, *shape), key)
    z = jnp.sqrt(-2 * jnp.log1p(-u[0])) * jnp.cos(2 * math.pi * u[1])
    if kind == "gaussian":
        return 1 + math.sqrt(v) * z
    s = math.sqrt(math.log1p(v))
    return jnp.exp(s * z - s * s / 2)


def _uniform(shape: tuple[int, ...], key: Array) -> Factors:
    # DIFF randomness: a key is a value. The same key always gives the same numbers.
    return jax.random.uniform(key, shape, dtype=jnp.float32)


def noise(
    x: Units,
    p: float,
    *,
    kind: Kind,
    masks: int = 1,
    training: bool,
    key: Array | None = None,
) -> Units:
    """In training, multiply each unit of x by a random factor of mean 1 and variance p / (1 - p).

    Args:
        x: activations of any shape, float16, bfloat16, float32 or float64.
        p: the rate of the dropout that has this variance, in [0, 1).
        kind, masks: as in `sample_noise`.
        training: if False, x is returned as it is and nothing is drawn.
        key: the source of randomness, needed in training for p > 0.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: x is not an array of JAX of these dtypes, or p is not a real number.
        ValueError: p is not in [0, 1), kind or masks is not possible, or there is no key.
    """
    check_dropout(x, p, training, Array)
    p = check_noise(p, kind, masks)
    if not training or p == 0:
        return x
    r = sample_noise(x.shape, p, kind=kind, masks=masks, key=key)
    return x * r.astype(x.dtype)


class Noise(nnx.Module):
    """`noise` as a layer, in the place of `Dropout`. `.train()` switches it on, `.eval()` off."""

    def __init__(self, p: float = 0.5, *, kind: Kind = "gaussian", masks: int = 1) -> None:
        self.p = check_noise(p, kind, masks)
        self.kind = kind
        self.masks = masks
        self.deterministic = False  # DIFF mode: Flax's flag. .eval() sets it to True

    def __call__(self, x: Units, *, key: Array | None = None, keep: Factors | None = None) -> Units:
        """Apply `noise`. In training, use the factors `keep` if there are any."""
        check_training(self.deterministic)
        if not self.deterministic and keep is not None:
            check_factors(x, keep, Array)
            return x * keep.astype(x.dtype)
        return noise(
            x, self.p, kind=self.kind, masks=self.masks, training=not self.deterministic, key=key
        )


def dropconnect(
    x: Float[Array, "batch inputs"],
    weight: Float[Array, "outputs inputs"],
    bias: Float[Array, " outputs"],
    p: float,
    *,
    training: bool,
    key: Array | None = None,
) -> Float[Array, "batch outputs"]:
    """Apply a linear map and, in training, drop each of its weights anew for each example.

    Args:
        x: inputs.
        weight, bias: of the linear map, in the dtype of x.
        p: the probability of dropping a weight, in [0, 1].
        training: if False, no weight is dropped and nothing is drawn.
        key: the source of randomness, needed in training for p > 0.

    Returns:
        x @ weight.T + bias, where each product x_j w_ij has its own mask in each example.
    """
    p = check_linear(x, weight, bias, p, training, Array)
    if not training or p == 0:
        return x @ weight.T + bias
    keep = sample_keep((len(x), *weight.shape), p, key=key)
    dropped = apply_keep(jnp.broadcast_to(weight, keep.shape), keep, p)
    return jnp.einsum("bi,boi->bo", x, dropped) + bias
