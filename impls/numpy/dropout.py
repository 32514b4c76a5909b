"""Inverted dropout from scratch, in NumPy: the forward pass, as a check on the other two.

The mathematics is told in impls/torch/dropout.py. What differs here: no gradient, no layer.

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
JMLR 15 (2014); scaled in training ("inverted") as in its section 10.
"""

import numpy as np
from jaxtyping import Bool, Float
from numpy import ndarray

from impls.numpy import prng
from shared.checks import check_floating, check_probability, check_source


def sample_keep(
    shape: tuple[int, ...],
    p: float,
    *,
    rng: prng.Source | None,
) -> Bool[ndarray, "*shape"]:
    """Draw a mask: True, with probability 1 - p, where a unit is kept.

    Args:
        shape: of the mask.
        p: the probability of dropping a unit, in [0, 1].
        rng: the source of randomness, NumPy's own or one of prng.py; the global one is never used.

    Returns:
        A boolean mask of that shape.

    Raises:
        TypeError, ValueError: p is not a probability, or there is no rng.
    """
    p = check_probability(p)
    rng = check_source(rng, "rng", "numpy.random.default_rng(0)")
    # float32 whatever x is: bfloat16 has so few numbers that 0 would come once in some hundreds.
    u = prng.random(rng, shape)  # DIFF: NumPy takes its own rng, or replays that of a twin
    return u >= np.float32(p)  # not u > p: u can be 0, and p = 0 must keep it


def apply_keep(
    x: Float[ndarray, "*shape"], keep: Bool[ndarray, "*shape"], p: float
) -> Float[ndarray, "*shape"]:
    """Return x / (1 - p) where `keep` is True, exactly 0 elsewhere.

    Args:
        x: activations.
        keep: the mask; at p = 1 it has to be all False.
        p: the probability with which units were dropped.

    Returns:
        An array of the shape and dtype of x.
    """
    # At p = 1 nothing is kept, and x / 0 would only raise a warning.
    keep_rate = 1 - p if p < 1 else 1.0
    # Select, not multiply: 0 * inf is NaN.
    scalar = x.dtype.type  # DIFF: bfloat16, an extension of NumPy's, does not keep to itself
    return np.where(keep, x / scalar(keep_rate), scalar(0))


def dropout(
    x: Float[ndarray, "*shape"],
    p: float,
    *,
    training: bool,
    rng: prng.Source | None = None,
) -> Float[ndarray, "*shape"]:
    """Drop each unit of x with probability p and divide the others by 1 - p, in training.

    Args:
        x: activations of any shape, float16, bfloat16 (of ml_dtypes), float32 or float64.
        p: the probability of dropping a unit, in [0, 1].
        training: if False, x is returned as it is and no randomness is consumed.
        rng: the source of randomness, needed in training for 0 < p < 1.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: x is not floating-point, or p is not a real number.
        ValueError: p is NaN or outside [0, 1], or there is no rng where one is needed.
    """
    p = check_probability(p)
    check_floating(x.dtype.kind == "f" or x.dtype.name == "bfloat16", x.dtype)
    if not training or p == 0:
        return x
    if p == 1:
        return apply_keep(x, np.zeros_like(x, dtype=np.bool), p)
    keep = sample_keep(x.shape, p, rng=rng)
    return apply_keep(x, keep, p)


def main() -> None:
    """Show dropout of the numbers 0 to 15 at p = 0, 0.5 and 1."""
    x = np.arange(16, dtype=np.float32).reshape(2, 8)
    rng = np.random.default_rng(0)
    print(f"x =\n{x}")
    for p in (0.0, 0.5, 1.0):
        print(f"\ndropout(x, {p}) =\n{dropout(x, p, training=True, rng=rng)}")


if __name__ == "__main__":
    main()
