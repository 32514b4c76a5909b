"""Other noise in the place of dropout, and dropout of weights (DropConnect), in PyTorch.

In training, each unit h becomes h' = h * r, where the factor r is random with::

    E[r] = 1,   Var[r] = v = p / (1 - p).

These are the mean and the variance of dropout with rate p, so only the distributions differ::

    masks      the mean of K dropout masks, each with the higher rate q = K v / (1 + K v).
               K = 1 is dropout. K = 2 has three values, 0, g / 2 and g, where g = 1 / (1 - q).
    gaussian   1 + sqrt(v) z, where z is a standard normal number
    uniform    evenly spread from 1 - sqrt(3 v) to 1 + sqrt(3 v)
    lognormal  exp(s z - s^2 / 2) with s^2 = log(1 + v): never 0 and never negative

Source: Srivastava et al. (2014), section 10, for Gaussian noise. Wan et al., "Regularization of
Neural Networks using DropConnect", ICML (2013), for dropout of weights.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Generator, Tensor, nn

from impls.torch.dropout import NO_SOURCE, Units, apply_keep, sample_keep
from shared.checks import (
    Kind,
    check_dropout,
    check_factors,
    check_linear,
    check_noise,
    check_source,
    check_training,
)

Factors = Float[Tensor, "*shape"]


def sample_noise(
    shape: tuple[int, ...], p: float, *, kind: Kind, masks: int = 1, generator: Generator | None
) -> Factors:
    """Draw factors with mean 1 and variance p / (1 - p), as float32.

    Args:
        shape: shape of the result.
        p: the rate of the dropout that has this variance, in [0, 1).
        kind: masks, gaussian, uniform or lognormal, see the top of this file.
        masks: K, the number of masks of the kind `masks`.
        generator: the source of randomness. The factors are drawn on its device.

    Raises:
        TypeError, ValueError: p is not in [0, 1), or kind or masks is not possible.
    """
    p = check_noise(p, kind, masks)
    generator = check_source(generator, Generator, NO_SOURCE)
    v = p / (1 - p)
    if kind == "masks":
        q = masks * v / (1 + masks * v)
        kept = sample_keep((masks, *shape), q, generator=generator).float().mean(0)
        return kept / (1 - q)
    if kind == "uniform":
        return 1 + math.sqrt(3 * v) * (2 * _uniform(shape, generator) - 1)
    # The Box-Muller transform: two uniform numbers make a normal one, the same in every framework.
    u = _uniform((2, *shape), generator)
    z = torch.sqrt(-2 * torch.log1p(-u[0])) * torch.cos(2 * math.pi * u[1])
    if kind == "gaussian":
        return 1 + math.sqrt(v) * z
    s = math.sqrt(math.log1p(v))
    return torch.exp(s * z - s * s / 2)


def _uniform(shape: tuple[int, ...], generator: Generator) -> Factors:
    # DIFF randomness: a generator has a state, and each draw changes it.
    return torch.rand(shape, generator=generator, device=generator.device, dtype=torch.float32)


def noise(
    x: Units,
    p: float,
    *,
    kind: Kind,
    masks: int = 1,
    training: bool,
    generator: Generator | None = None,
) -> Units:
    """In training, multiply each unit of x by a random factor of mean 1 and variance p / (1 - p).

    Args:
        x: activations of any shape, float16, bfloat16, float32 or float64.
        p: the rate of the dropout that has this variance, in [0, 1).
        kind, masks: as in `sample_noise`.
        training: if False, x is returned as it is and nothing is drawn.
        generator: the source of randomness, needed in training for p > 0.

    Returns:
        A tensor of the shape and dtype of x.

    Raises:
        TypeError: x is not a dense tensor of these dtypes, or p is not a real number.
        ValueError: p is not in [0, 1), kind or masks is not possible, or there is no generator.
    """
    check_dropout(x, p, training, Tensor)
    p = check_noise(p, kind, masks)
    if not training or p == 0:
        return x
    r = sample_noise(x.shape, p, kind=kind, masks=masks, generator=generator)
    return x * r.to(x.dtype)


class Noise(nn.Module):
    """`noise` as a layer, in the place of `Dropout`. `.train()` switches it on, `.eval()` off."""

    def __init__(self, p: float = 0.5, *, kind: Kind = "gaussian", masks: int = 1) -> None:
        super().__init__()
        self.p = check_noise(p, kind, masks)
        self.kind = kind
        self.masks = masks

    def forward(
        self, x: Units, *, generator: Generator | None = None, keep: Factors | None = None
    ) -> Units:
        """Apply `noise`. In training, use the factors `keep` if there are any."""
        check_training(self.training)
        if self.training and keep is not None:
            check_factors(x, keep, Tensor)
            return x * keep.to(x.dtype)
        return noise(
            x, self.p, kind=self.kind, masks=self.masks, training=self.training, generator=generator
        )


def dropconnect(
    x: Float[Tensor, "batch inputs"],
    weight: Float[Tensor, "outputs inputs"],
    bias: Float[Tensor, " outputs"],
    p: float,
    *,
    training: bool,
    generator: Generator | None = None,
) -> Float[Tensor, "batch outputs"]:
    """Apply a linear map and, in training, drop each of its weights anew for each example.

    Args:
        x: inputs.
        weight, bias: of the linear map, in the dtype of x.
        p: the probability of dropping a weight, in [0, 1].
        training: if False, no weight is dropped and nothing is drawn.
        generator: the source of randomness, needed in training for p > 0.

    Returns:
        x @ weight.T + bias, where each product x_j w_ij has its own mask in each example.
    """
    p = check_linear(x, weight, bias, p, training, Tensor)
    if not training or p == 0:
        return F.linear(x, weight, bias)
    keep = sample_keep((len(x), *weight.shape), p, generator=generator)
    dropped = apply_keep(weight.expand(keep.shape), keep, p)
    return torch.einsum("bi,boi->bo", x, dropped) + bias
