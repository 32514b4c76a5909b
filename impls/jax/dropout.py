"""Inverted dropout from scratch, in JAX and Flax.

The mathematics is told in impls/torch/dropout.py. What differs here: randomness is not a state
that a draw moves on but a key, a value that is passed in. The same key gives the same mask.

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
JMLR 15 (2014); scaled in training ("inverted") as in its section 10.
"""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Bool, Float

from shared.checks import check_floating, check_probability, check_source


def sample_keep(
    shape: tuple[int, ...],
    p: float,
    *,
    key: Array | None,
) -> Bool[Array, "*shape"]:
    """Draw a mask: True, with probability 1 - p, where a unit is kept.

    Args:
        shape: of the mask.
        p: the probability of dropping a unit, in [0, 1].
        key: the source of randomness; use a key for one mask, never for two.

    Returns:
        A boolean mask of that shape.

    Raises:
        TypeError, ValueError: p is not a probability, or there is no key.
    """
    p = check_probability(p)
    key = check_source(key, "key", "jax.random.key(0)")
    # float32 whatever x is: bfloat16 has so few numbers that 0 would come once in some hundreds.
    u = jax.random.uniform(key, shape, dtype=jnp.float32)
    return u >= p  # not u > p: u can be 0, and p = 0 must keep it


def apply_keep(
    x: Float[Array, "*shape"], keep: Bool[Array, "*shape"], p: float
) -> Float[Array, "*shape"]:
    """Return x / (1 - p) where `keep` is True, exactly 0 elsewhere.

    Args:
        x: activations.
        keep: the mask; at p = 1 it has to be all False.
        p: the probability with which units were dropped.

    Returns:
        An array of the shape and dtype of x.
    """
    # At p = 1 nothing is kept, but x / 0 would still send 0 * inf = NaN into the gradient.
    keep_rate = 1 - p if p < 1 else 1.0
    # Select, not multiply: 0 * inf is NaN.
    # DIFF: XLA may turn x / c into x * (1 / c), rounded twice: the last digit may differ.
    return jnp.where(keep, x / keep_rate, 0)


def dropout(
    x: Float[Array, "*shape"],
    p: float,
    *,
    training: bool,
    key: Array | None = None,
) -> Float[Array, "*shape"]:
    """Drop each unit of x with probability p and divide the others by 1 - p, in training.

    Args:
        x: activations of any shape, float16, bfloat16, float32 or float64.
        p: the probability of dropping a unit, in [0, 1]; under `jax.jit` a constant.
        training: if False, x is returned as it is and no randomness is consumed.
        key: the source of randomness, needed in training for 0 < p < 1.

    Returns:
        An array of the shape and dtype of x.

    Raises:
        TypeError: x is not floating-point, or p is not a real number.
        ValueError: p is NaN or outside [0, 1], or there is no key where one is needed.
    """
    p = check_probability(p)
    check_floating(jnp.issubdtype(x.dtype, jnp.floating), x.dtype)
    if not training or p == 0:
        return x
    if p == 1:
        return apply_keep(x, jnp.zeros_like(x, dtype=jnp.bool), p)
    keep = sample_keep(x.shape, p, key=key)
    return apply_keep(x, keep, p)


class Dropout(nnx.Module):
    """`dropout` as a layer, switched on by `.train()` and off by `.eval()`."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = check_probability(p)
        self.deterministic = False  # DIFF: the attribute that Flax's .train() and .eval() set

    def __call__(
        self,
        x: Float[Array, "*shape"],
        *,
        key: Array | None = None,
        keep: Bool[Array, "*shape"] | None = None,
    ) -> Float[Array, "*shape"]:
        """Apply `dropout`, or in training a ready-made mask if there is one."""
        if not self.deterministic and keep is not None:
            return apply_keep(x, keep, self.p)
        return dropout(x, self.p, training=not self.deterministic, key=key)


def main() -> None:
    """Show dropout of the numbers 0 to 15 at p = 0, 0.5 and 1."""
    x = jnp.arange(16, dtype=jnp.float32).reshape(2, 8)
    keys = jax.random.split(jax.random.key(0), 3)  # DIFF: a key for each call
    print(f"x =\n{x}")
    for p, key in zip((0.0, 0.5, 1.0), keys, strict=True):
        print(f"\ndropout(x, {p}) =\n{dropout(x, p, training=True, key=key)}")


if __name__ == "__main__":
    main()
