"""Inverted dropout from scratch, in PyTorch.

In training, each unit h of x becomes::

    h' = 0            with probability p,
    h' = h / (1 - p)  otherwise,

so that E[h'] = p * 0 + (1 - p) * h / (1 - p) = h. The next layer sees the same mean with and
without dropout, and evaluation needs no correction. The variance added is h^2 p / (1 - p).

The random numbers have 23 or 24 bits, so the real rate may differ from p by about 1e-7.

A comment that starts with DIFF says where JAX or NumPy needs other code, and why.

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
JMLR 15 (2014). Its section 10 scales in training, as is done here ("inverted" dropout). Its p is
the probability of keeping a unit.
"""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor, nn

from shared.checks import check_dropout, check_keep, check_probability, check_source, check_training

# Names for types: a float tensor of any shape, and a boolean one. The tests check them (jaxtyping).
Units = Float[Tensor, "*shape"]
Mask = Bool[Tensor, "*shape"]
NO_SOURCE = "pass generator=, made once before the loop: dropout in training needs randomness"


def sample_keep(shape: tuple[int, ...], p: float, *, generator: Generator | None) -> Mask:
    """Draw a mask: True, with probability 1 - p, where a unit is kept.

    Args:
        shape: shape of the mask.
        p: the probability of dropping a unit, in [0, 1].
        generator: the source of randomness. The mask is drawn on its device.

    Raises:
        TypeError, ValueError: p or the generator cannot be used, or there is no generator.
    """
    p = check_probability(p)
    generator = check_source(generator, Generator, NO_SOURCE)
    # float32 for every x: bfloat16 has too few values between 0 and 1 to give the rate p.
    # DIFF randomness: a generator has a state, and each draw changes it.
    u = torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)
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
    p = check_keep(x, keep, p, Tensor)
    divisor = 1 - p
    if p == 1:  # nothing is kept. x / 0 would make the gradient NaN, even where it is not selected
        keep, divisor = torch.zeros_like(keep), 1.0
    # Select, do not multiply by the mask: 0 * inf is NaN.
    return torch.where(keep, x / divisor, 0)


def dropout(x: Units, p: float, *, training: bool, generator: Generator | None = None) -> Units:
    """In training, drop each unit of x with probability p and divide the others by 1 - p.

    Args:
        x: activations of any shape, float16, bfloat16, float32 or float64.
        p: the probability of dropping a unit, in [0, 1].
        training: if False, x is returned as it is and nothing is drawn.
        generator: the source of randomness, needed in training for 0 < p < 1.

    Returns:
        A tensor of the shape and dtype of x.

    Raises:
        TypeError: x is not a dense tensor of these dtypes, p is not a real number, or `training`
            is not a bool.
        ValueError: p is NaN or outside [0, 1], float16 cannot hold 1 / (1 - p) (for p between
            0.99998 and 1), or there is no generator where one is needed.
    """
    p = check_dropout(x, p, training, Tensor)
    if not training or p == 0:
        return x
    if p == 1:  # nothing to draw
        return apply_keep(x, torch.zeros_like(x, dtype=torch.bool), p)
    return apply_keep(x, sample_keep(x.shape, p, generator=generator), p)


class Dropout(nn.Module):
    """`dropout` as a layer. `.train()` switches it on, `.eval()` off."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_probability(p)

    def forward(
        self, x: Units, *, generator: Generator | None = None, keep: Mask | None = None
    ) -> Units:
        """Apply `dropout`. In training, a mask `keep` is used instead of drawing one."""
        check_training(self.training)
        if self.training and keep is not None:
            return apply_keep(x, keep, self.p)
        return dropout(x, self.p, training=self.training, generator=generator)


def main() -> None:
    """Show dropout of the numbers 0 to 15 at p = 0, 0.5 and 1."""
    x = torch.arange(16, dtype=torch.float32).reshape(2, 8)
    generator = torch.Generator().manual_seed(0)
    print(f"x =\n{x}")
    for p in (0.0, 0.5, 1.0):
        print(f"\ndropout(x, {p}) =\n{dropout(x, p, training=True, generator=generator)}")


if __name__ == "__main__":
    main()
