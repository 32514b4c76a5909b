"""Right dropouts in PyTorch. Each is a way in which somebody may write it."""

import math
from typing import Any

import torch
from torch import Generator, Tensor, nn

from dropout_contract.right import off


def _select(x: Tensor, keep: Tensor, p: float) -> Tensor:
    return torch.where(keep, x / (1 - p if p < 1 else 1.0), 0)


def plain_where(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """The textbook: u >= p, torch.where, nothing for layouts in memory."""
    if off(training, p):
        return x
    return _select(x, torch.rand(x.shape, generator=generator) >= p, p)


def masked_fill(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """Fills what is dropped, after scaling."""
    if off(training, p):
        return x
    drop = torch.rand(x.shape, generator=generator) < p
    return (x / (1 - p if p < 1 else 1)).masked_fill(drop, 0)


def below_keep_rate(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """Keeps where u < 1 - p."""
    if off(training, p):
        return x
    return _select(x, torch.rand(x.shape, generator=generator) < 1 - p, p)


def two_sides(x: Tensor, p: float, *, training: bool, generator: Generator | None = None) -> Tensor:
    """U >= p for small rates and u < 1 - p for large ones, as it is more exact."""
    if off(training, p):
        return x
    u = torch.rand(x.shape, generator=generator)
    return _select(x, u >= p if p <= 0.5 else u < 1 - p, p)


def bernoulli(x: Tensor, p: float, *, training: bool, generator: Generator | None = None) -> Tensor:
    """The framework's own Bernoulli numbers."""
    if off(training, p):
        return x
    keep = torch.empty(x.shape).bernoulli_(1 - p, generator=generator).bool()
    return _select(x, keep, p)


def bernoulli_for_small(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """Bernoulli numbers for small rates, uniform ones for the others."""
    if off(training, p):
        return x
    if p < 0.1:
        keep = torch.empty(x.shape).bernoulli_(1 - p, generator=generator).bool()
    else:
        keep = torch.rand(x.shape, generator=generator) >= p
    return _select(x, keep, p)


def skipping(x: Tensor, p: float, *, training: bool, generator: Generator | None = None) -> Tensor:
    """Jumps from one dropped unit to the next: distances are geometric."""
    if off(training, p):
        return x
    n = x.numel()
    keep = torch.ones(n, dtype=torch.bool)
    if p == 1:
        keep[:] = False
    elif n:
        u = torch.rand(
            int(n * p + 12 * math.sqrt(n) + 12), generator=generator, dtype=torch.float64
        )
        jumps = 1 + torch.floor(torch.log1p(-u) / math.log1p(-p)).clamp(max=n)
        places = torch.cumsum(jumps, 0).long() - 1
        keep[places[places < n]] = False
    return _select(x, keep.reshape(x.shape), p)


def whole_numbers(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """Whole numbers below 2**24, compared with a whole threshold."""
    if off(training, p):
        return x
    numbers = torch.randint(2**24, x.shape, generator=generator)
    return _select(x, numbers >= round(p * 2**24), p)


def doubles(x: Tensor, p: float, *, training: bool, generator: Generator | None = None) -> Tensor:
    """Uniform numbers in float64, whatever x is."""
    if off(training, p):
        return x
    return _select(x, torch.rand(x.shape, generator=generator, dtype=torch.float64) >= p, p)


def exponential(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """Exponential waiting times: one that is shorter than -log(p) is kept."""
    if off(training, p):
        return x
    waiting = torch.empty(x.shape, dtype=torch.float64).exponential_(generator=generator)
    return _select(x, waiting < -math.log(p), p)


def quantile(x: Tensor, p: float, *, training: bool, generator: Generator | None = None) -> Tensor:
    """Normal numbers above their p-quantile."""
    if off(training, p):
        return x
    normal = torch.randn(x.shape, generator=generator, dtype=torch.float64)
    threshold = math.sqrt(2) * float(torch.erfinv(torch.tensor(2 * p - 1, dtype=torch.float64)))
    return _select(x, normal >= threshold, p)


def by_index(x: Tensor, p: float, *, training: bool, generator: Generator | None = None) -> Tensor:
    """Copies what is kept into zeros, by boolean indexing."""
    if off(training, p):
        return x
    keep = torch.rand(x.shape, generator=generator) >= p
    out = torch.zeros_like(x)
    out[keep] = x[keep] * (1 / (1 - p) if p < 1 else 0)
    return out + (x * 0).nan_to_num(0, 0, 0) if p == 1 else out


def multiplies_scale(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """Multiplies by 1 / (1 - p) instead of dividing, and selects first."""
    if off(training, p):
        return x
    keep = torch.rand(x.shape, generator=generator) >= p
    return torch.where(keep, x, 0) * (1 / (1 - p) if p < 1 else 1.0)


def number_as_seed(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """Draws a seed of 63 bits, and the mask from a generator of its own."""
    if off(training, p):
        return x
    if generator is None:
        raise ValueError("pass a generator")
    seed = int(torch.randint(2**63 - 1, (), generator=generator))
    return _select(x, torch.rand(x.shape, generator=Generator().manual_seed(seed)) >= p, p)


class _Function(torch.autograd.Function):
    """The tutorial's own function with a forward and a backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, keep: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(keep)
        ctx.p = p
        return _select(x, keep, p)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return _select(gradient, keep, ctx.p), None, None


def autograd_function(
    x: Tensor, p: float, *, training: bool, generator: Generator | None = None
) -> Tensor:
    """A torch.autograd.Function, without a rule for vmap or forward mode."""
    if off(training, p):
        return x
    return _Function.apply(x, torch.rand(x.shape, generator=generator) >= p, p)


def global_generator(x: Tensor, p: float, training: bool = True) -> Tensor:
    """Draws from the global generator, as PyTorch's own does."""
    return x if off(training, p) else _select(x, torch.rand(x.shape) >= p, p)


def other_names(generator: Generator, train: bool, drop_prob: float, inputs: Tensor) -> Tensor:
    """The arguments in another order and under other names."""
    return plain_where(inputs, drop_prob, training=train, generator=generator)


def keep_probability(
    x: Tensor, keep_prob: float, training: bool, generator: Generator | None = None
) -> Tensor:
    """Takes the probability of keeping, as TensorFlow 1 did."""
    return below_keep_rate(x, 1 - keep_prob, training=training, generator=generator)


class Layer(nn.Module):
    """A layer on the global generator, with .train() and .eval()."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        off(False, p)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return global_generator(x, self.p, self.training)


class LayerWithGenerator(nn.Module):
    """A layer with a generator of its own."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        off(False, rate)
        self.rate, self.random = rate, Generator().manual_seed(0)

    def forward(self, h: Tensor) -> Tensor:
        return plain_where(h, self.rate, training=self.training, generator=self.random)


class LayerAroundLayer(nn.Module):
    """A layer whose randomness is in a part of it, out of reach."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.inner = LayerWithGenerator(rate)

    def forward(self, h: Tensor) -> Tensor:
        return self.inner(h)


def centred(x: Tensor, p: float, *, training: bool, generator: Generator | None = None) -> Tensor:
    """Uniform numbers in [-1, 1)."""
    if off(training, p):
        return x
    u = torch.empty(x.shape, dtype=torch.float32).uniform_(-1, 1, generator=generator)
    return _select(x, u >= 2 * p - 1, p)


def adapted(x: Tensor, p: float, *, training: bool, generator: Generator | None = None) -> Tensor:
    """An adapter of five lines around a function in another style."""

    def theirs(shape: torch.Size, q: float) -> Tensor:
        return torch.rand(shape, generator=generator) < q

    return x if off(training, p) else _select(x, theirs(x.shape, 1 - p), p)


MORE: dict[str, Any] = {"an instance": Layer(0.3)}
