"""Other noise in the place of dropout, and dropout of weights (DropConnect), in NumPy.

The kinds of noise are explained in impls/torch/noise.py. There is no gradient and no layer.

Source: Srivastava et al. (2014), section 10, for Gaussian noise. Wan et al., "Regularization of
Neural Networks using DropConnect", ICML (2013), for dropout of weights.
"""

import math

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from impls.numpy import prng
from impls.numpy.dropout import NO_SOURCE, Units, apply_keep, sample_keep
from shared.checks import (
    Kind,
    check_dropout,
    check_linear,
    check_noise,
    check_source,
)

Factors = Float[ndarray, "*shape"]


def sample_noise(
    shape: tuple[int, ...], p: float, *, kind: Kind, masks: int = 1, rng: prng.Source | None
) -> Factors:
    """Draw factors with mean 1 and variance p / (1 - p), as float32.

    Args:
        shape: shape of the result.
        p: the rate of the dropout that has this variance, in [0, 1).
        kind: masks, gaussian, uniform or lognormal, see the top of this file.
        masks: K, the number of masks of the kind `masks`.
        rng: the source of randomness: a NumPy generator, or a key or a generator of prng.py.

    Raises:
        TypeError, ValueError: p is not in [0, 1), or kind or masks is not possible.
    """
    p = check_noise(p, kind, masks)
    rng = check_source(rng, prng.SOURCES, NO_SOURCE)
    v = p / (1 - p)
    if kind == "masks":
        q = masks * v / (1 + masks * v)
        kept = sample_keep((masks, *shape), q, rng=rng).mean(0, dtype=np.float32)
        return np.asarray(kept / np.float32(1 - q))  # an array, even without dimensions
    if kind == "uniform":
        return np.asarray(1 + math.sqrt(3 * v) * (2 * prng.random(rng, shape) - 1))
    # The Box-Muller transform: two uniform numbers make a normal one, the same in every framework.
    u = prng.random(rng, (2, *shape))
    z = np.sqrt(-2 * np.log1p(-u[0])) * np.cos(2 * math.pi * u[1])
    if kind == "gaussian":
        return np.asarray(1 + math.sqrt(v) * z)
    s = math.sqrt(math.log1p(v))
    return np.asarray(np.exp(s * z - s * s / 2))


def noise(
    x: Units,
    p: float,
    *,
    kind: Kind,
    masks: int = 1,
    training: bool,
    rng: prng.Source | None = None,
) -> Units:
    """In training, multiply each unit of x by a random factor of mean 1 and variance p / (1 - p).

    Args:
        x: activations of any shape, float16, bfloat16 (from ml_dtypes), float32 or float64.
        p: the rate of the dropout that has this variance, in [0, 1).
        kind, masks: as in `sample_noise`.
        training: if False, x is returned as it is and nothing is drawn.
        rng: the source of randomness, needed in training for p > 0.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: x is not an ordinary NumPy array of these dtypes, or p is not a real number.
        ValueError: p is not in [0, 1), kind or masks is not possible, or there is no rng.
    """
    check_dropout(x, p, training, ndarray)
    p = check_noise(p, kind, masks)
    if not training or p == 0:
        return x
    r = sample_noise(x.shape, p, kind=kind, masks=masks, rng=rng)
    return np.asarray(x * r.astype(x.dtype), x.dtype)  # in the byte order of x


def dropconnect(
    x: Float[ndarray, "batch inputs"],
    weight: Float[ndarray, "outputs inputs"],
    bias: Float[ndarray, " outputs"],
    p: float,
    *,
    training: bool,
    rng: prng.Source | None = None,
) -> Float[ndarray, "batch outputs"]:
    """Apply a linear map and, in training, drop each of its weights anew for each example.

    Args:
        x: inputs.
        weight, bias: of the linear map, in the dtype of x.
        p: the probability of dropping a weight, in [0, 1].
        training: if False, no weight is dropped and nothing is drawn.
        rng: the source of randomness, needed in training for p > 0.

    Returns:
        x @ weight.T + bias, where each product x_j w_ij has its own mask in each example.
    """
    p = check_linear(x, weight, bias, p, training, ndarray)
    if not training or p == 0:
        return x @ weight.T + bias
    keep = sample_keep((len(x), *weight.shape), p, rng=rng)
    dropped = apply_keep(np.broadcast_to(weight, keep.shape), keep, p)
    return np.einsum("bi,boi->bo", x, dropped) + bias
