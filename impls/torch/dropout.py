"""Inverted dropout from scratch, in PyTorch.

In training, each unit h of x becomes

    h' = 0            with probability p,
    h' = h / (1 - p)  otherwise,

so that E[h'] = p * 0 + (1 - p) * h / (1 - p) = h: the next layer sees the same mean with and
without dropout, and evaluation needs no correction. The variance added is h^2 p / (1 - p).

Source: Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting",
JMLR 15 (2014); scaled in training ("inverted") as in its section 10.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from shared.checks import check_floating, check_probability, check_source


def sample_keep(
    shape: tuple[int, ...],
    p: float,
    *,
    generator: torch.Generator | None,
    device: torch.device | str | None = None,
) -> Bool[Tensor, "*shape"]:
    """Draw a mask: True, with probability 1 - p, where a unit is kept.

    Args:
        shape: of the mask.
        p: the probability of dropping a unit, in [0, 1].
        generator: the source of randomness; the global one is never used.
        device: where to draw, the generator's own kind of device.

    Returns:
        A boolean mask of that shape.

    Raises:
        TypeError, ValueError: p is not a probability, or there is no generator.
    """
    p = check_probability(p)
    generator = check_source(generator, "generator", "torch.Generator().manual_seed(0)")
    # float32 whatever x is: bfloat16 has so few numbers that 0 would come once in some hundreds.
    u = torch.rand(shape, generator=generator, device=device, dtype=torch.float32)
    return u >= p  # not u > p: u can be 0, and p = 0 must keep it


def apply_keep(
    x: Float[Tensor, "*shape"], keep: Bool[Tensor, "*shape"], p: float
) -> Float[Tensor, "*shape"]:
    """Return x / (1 - p) where `keep` is True, exactly 0 elsewhere.

    Args:
        x: activations.
        keep: the mask; at p = 1 it has to be all False.
        p: the probability with which units were dropped.

    Returns:
        A tensor of the shape and dtype of x.
    """
    # At p = 1 nothing is kept, but x / 0 would still send 0 * inf = NaN into the gradient.
    keep_rate = 1 - p if p < 1 else 1.0
    # DIFF: PyTorch would lay the result out in memory like the mask; let that be like x.
    if keep.stride() != x.stride():
        keep = torch.empty_like(x, dtype=torch.bool).copy_(keep)
    # Select, not multiply: 0 * inf is NaN.
    # DIFF: torch.where(keep, x / keep_rate, 0) says it best, but on a CPU it branches on every
    # unit of a mask that no processor can predict. The gradient of ReLU is a select without
    # branches: its first argument where the second exceeds the third, else 0.
    selected = torch.ops.aten.threshold_backward(x, keep.to(x.dtype), 0)
    return selected.div_(keep_rate)  # in place: memory is what large tensors wait for


def dropout(
    x: Float[Tensor, "*shape"],
    p: float,
    *,
    training: bool,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "*shape"]:
    """Drop each unit of x with probability p and divide the others by 1 - p, in training.

    Args:
        x: activations of any shape, float16, bfloat16, float32 or float64.
        p: the probability of dropping a unit, in [0, 1].
        training: if False, x is returned as it is and no randomness is consumed.
        generator: the source of randomness, needed in training for 0 < p < 1.

    Returns:
        A tensor of the shape and dtype of x.

    Raises:
        TypeError: x is not floating-point, or p is not a real number.
        ValueError: p is NaN or outside [0, 1], or there is no generator where one is needed.
    """
    p = check_probability(p)
    check_floating(x.is_floating_point(), x.dtype)
    if not training or p == 0:
        return x
    if p == 1:
        return apply_keep(x, torch.zeros_like(x, dtype=torch.bool), p)
    keep = sample_keep(x.shape, p, generator=generator, device=x.device)
    return apply_keep(x, keep, p)


class Dropout(nn.Module):
    """`dropout` as a layer, switched on by `.train()` and off by `.eval()`."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        self.p = check_probability(p)

    def forward(
        self,
        x: Float[Tensor, "*shape"],
        *,
        generator: torch.Generator | None = None,
        keep: Bool[Tensor, "*shape"] | None = None,
    ) -> Float[Tensor, "*shape"]:
        """Apply `dropout`, or in training a ready-made mask if there is one."""
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
