"""Inverted dropout from scratch, in NumPy: the forward pass, as a check on the other two.

The mathematics is explained in impls/torch/dropout.py. There is no gradient and no layer.

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
JMLR 15 (2014). Its section 10 scales in training, as is done here ("inverted" dropout). Its p is
the probability of keeping a unit.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from impls.numpy import prng
from shared.checks import check_dropout, check_keep, check_probability, check_source

Units = Float[ndarray, "*shape"]
Mask = Bool[ndarray, "*shape"]
NO_SOURCE = "pass rng=, made once before the loop: dropout in training needs randomness"


def sample_keep(shape: tuple[int, ...], p: float, *, rng: prng.Source | None) -> Mask:
    """Draw a mask: True, with probability 1 - p, where a unit is kept.

    Args:
        shape: shape of the mask.
        p: the probability of dropping a unit, in [0, 1].
        rng: the source of randomness: a NumPy generator, or a key or a generator of prng.py.

    Raises:
        TypeError, ValueError: p or the rng cannot be used, or there is no rng.
    """
    p = check_probability(p)
    rng = check_source(rng, prng.SOURCES, NO_SOURCE)
    # float32 for every x: bfloat16 has too few values between 0 and 1 to give the rate p.
    # DIFF randomness: NumPy's own generator, or a replay of PyTorch's generator or of JAX's keys.
    u = prng.random(rng, shape)
    return np.asarray(u >= p)  # not u > p: u can be 0, and at p = 0 every unit is kept


def apply_keep(x: Units, keep: Mask, p: float) -> Units:
    """Return x / (1 - p) where `keep` is True, exactly 0 elsewhere, in the dtype of x.

    Args:
        x: activations.
        keep: the mask, of the shape of x.
        p: the probability with which units were dropped, in [0, 1]. At 1, everything becomes 0.

    Raises:
        TypeError, ValueError: x or the mask is no array that can be used, p is not a probability,
            the mask has another shape than x, or float16 cannot hold 1 / (1 - p).
    """
    p = check_keep(x, keep, p, ndarray)
    divisor = 1 - p
    if p == 1:  # nothing is kept, and x / 0 must not be computed
        keep, divisor = np.zeros_like(keep), 1.0
    # Select, do not multiply by the mask: 0 * inf is NaN.
    # DIFF dtype: NumPy makes bfloat16 / float a float32, so the dtype of x is set again.
    return np.where(keep, x / divisor, 0).astype(x.dtype, copy=False)


def dropout(x: Units, p: float, *, training: bool, rng: prng.Source | None = None) -> Units:
    """In training, drop each unit of x with probability p and divide the others by 1 - p.

    Args:
        x: activations of any shape, float16, bfloat16 (from ml_dtypes), float32 or float64.
        p: the probability of dropping a unit, in [0, 1].
        training: if False, x is returned as it is and nothing is drawn.
        rng: the source of randomness, needed in training for 0 < p < 1.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: x is not an ordinary NumPy array of these dtypes, p is not a real number, or
            `training` is not a bool.
        ValueError: p is NaN or outside [0, 1], float16 cannot hold 1 / (1 - p) (for p between
            0.99998 and 1), or there is no rng where one is needed.
    """
    p = check_dropout(x, p, training, ndarray)
    if not training or p == 0:
        return x
    if p == 1:  # nothing to draw
        return apply_keep(x, np.zeros_like(x, dtype=np.bool), p)
    return apply_keep(x, sample_keep(x.shape, p, rng=rng), p)


def main() -> None:
    """Show dropout of the numbers 0 to 15 at p = 0, 0.5 and 1."""
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    rng = np.random.default_rng(0)
    print(f"x =\n{x}")
    for p in (0.0, 0.5, 1.0):
        print(f"\ndropout(x, {p}) =\n{dropout(x, p, training=True, rng=rng)}")


if __name__ == "__main__":
    main()
