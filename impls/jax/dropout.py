"""Inverted dropout from scratch, in JAX and Flax.

The mathematics is explained in impls/torch/dropout.py. The difference: a mask is drawn not from a
generator with a state but from a key, a value. The same key always gives the same mask.

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
JMLR 15 (2014). Its section 10 scales in training, as is done here ("inverted" dropout). Its p is
the probability of keeping a unit.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from shared.checks import check_dropout, check_keep, check_probability, check_source, check_training

Units = Float[Array, "*shape"]
Mask = Bool[Array, "*shape"]
NO_SOURCE = "pass key=, a new one at each call: dropout in training needs randomness"


def sample_keep(shape: tuple[int, ...], p: float, *, key: Array | None) -> Mask:
    """Draw a mask: True, with probability 1 - p, where a unit is kept.

    Args:
        shape: shape of the mask.
        p: the probability of dropping a unit, in [0, 1].
        key: the source of randomness. Use a key for one mask only.

    Raises:
        TypeError, ValueError: p or the key cannot be used, or there is no key.
    """
    p = check_probability(p)
    key = check_source(key, Array, NO_SOURCE)
    # float32 for every x: bfloat16 has too few values between 0 and 1 to give the rate p.
    # DIFF randomness: a key is a value. The same key always gives the same numbers.
    u = jax.random.uniform(key, shape, dtype=jnp.float32)
    return u >= p  # not u > p: u can be 0, and at p = 0 every unit is kept


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
    p = check_keep(x, keep, p, Array)
    divisor = 1 - p
    if p == 1:  # nothing is kept. x / 0 would make the gradient NaN, even where it is not selected
        keep, divisor = jnp.zeros_like(keep), 1.0
    # DIFF division: XLA may compute x * (1 / divisor), so the last digit may differ.
    # Select, do not multiply by the mask: 0 * inf is NaN.
    return jnp.where(keep, x / divisor, 0)


def dropout(x: Units, p: float, *, training: bool, key: Array | None = None) -> Units:
    """In training, drop each unit of x with probability p and divide the others by 1 - p.

    Args:
        x: activations of any shape, float16, bfloat16, float32 or float64.
        p: the probability of dropping a unit, in [0, 1]. Under `jax.jit` it must be a constant.
        training: if False, x is returned as it is and nothing is drawn.
        key: the source of randomness, needed in training for 0 < p < 1.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: x is not an array of JAX of these dtypes, p is not a real number, or `training`
            is not a bool.
        ValueError: p is NaN or outside [0, 1], float16 cannot hold 1 / (1 - p) (for p between
            0.99998 and 1), or there is no key where one is needed.
    """
    p = check_dropout(x, p, training, Array)
    if not training or p == 0:
        return x
    if p == 1:  # nothing to draw
        return apply_keep(x, jnp.zeros_like(x, dtype=jnp.bool), p)
    return apply_keep(x, sample_keep(x.shape, p, key=key), p)


class Dropout(nnx.Module):
    """`dropout` as a layer. `.train()` switches it on, `.eval()` off."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability(p)
        self.deterministic = False  # DIFF mode: Flax's flag. .eval() sets it to True

    def __call__(self, x: Units, *, key: Array | None = None, keep: Mask | None = None) -> Units:
        """Apply `dropout`. In training, a mask `keep` is used instead of drawing one."""
        check_training(self.deterministic)
        if not self.deterministic and keep is not None:
            return apply_keep(x, keep, self.p)
        return dropout(x, self.p, training=not self.deterministic, key=key)


def main() -> None:
    """Show dropout of the numbers 0 to 15 at p = 0, 0.5 and 1."""
    x = jnp.arange(16, dtype=jnp.float32).reshape(2, 8)
    keys = jax.random.split(jax.random.key(0), 3)  # DIFF randomness: a key for each call
    print(f"x =\n{x}")
    for p, key in zip((0.0, 0.5, 1.0), keys, strict=True):
        print(f"\ndropout(x, {p}) =\n{dropout(x, p, training=True, key=key)}")


if __name__ == "__main__":
    main()
