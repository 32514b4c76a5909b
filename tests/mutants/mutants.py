"""Wrong dropouts, each a real kind of bug, written once for every framework where it makes sense.

`Correct` is a right dropout in small pieces. A mutant overrides one piece; its docstring says where
the bug has been seen, or why it is plausible. What the frameworks do differently is in `Ops`.
"""

from typing import Any, ClassVar

import numpy as np

from tests.contract.backends import backend
from tests.contract.subjects import Subject


class TorchOps:
    def __init__(self) -> None:
        import torch

        self.xp, self.float32 = torch, torch.float32

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.xp.rand(shape, generator=source)

    def normal(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.xp.randn(shape, generator=source)

    def global_uniform(self, shape: tuple[int, ...]) -> Any:
        return self.xp.rand(shape)

    def cast(self, x: Any, dtype: Any) -> Any:
        return x.to(dtype)

    def stop(self, x: Any) -> Any:
        return x.detach()

    def is_floating(self, x: Any) -> bool:
        return x.is_floating_point()

    def argsort(self, x: Any) -> Any:
        return self.xp.argsort(x)


class JaxOps(TorchOps):
    def __init__(self) -> None:
        import jax

        self.jax, self.xp, self.float32 = jax, jax.numpy, jax.numpy.float32

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.jax.random.uniform(source, shape)

    def normal(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.jax.random.normal(source, shape)

    def cast(self, x: Any, dtype: Any) -> Any:
        return x.astype(dtype)

    def stop(self, x: Any) -> Any:
        return self.jax.lax.stop_gradient(x)

    def is_floating(self, x: Any) -> bool:
        return self.xp.issubdtype(x.dtype, self.xp.floating)


class NumpyOps(TorchOps):
    def __init__(self) -> None:
        self.xp, self.float32 = np, np.float32

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return np.asarray(source.random(shape, dtype=np.float32))

    def normal(self, source: Any, shape: tuple[int, ...]) -> Any:
        return np.asarray(source.standard_normal(shape, dtype=np.float32))

    def global_uniform(self, shape: tuple[int, ...]) -> Any:
        return np.asarray(np.random.random(shape)).astype(np.float32)

    def cast(self, x: Any, dtype: Any) -> Any:
        return x.astype(dtype)

    def stop(self, x: Any) -> Any:
        return x

    def is_floating(self, x: Any) -> bool:
        return np.issubdtype(x.dtype, np.floating)


OPS = {"torch": TorchOps, "jax": JaxOps, "numpy": NumpyOps}
EVERYWHERE = ("torch", "jax", "numpy")
WITH_GRADIENT = ("torch", "jax")
WITH_STATE = ("torch", "numpy")


class Correct:
    """A right dropout, in pieces to override."""

    frameworks: ClassVar[tuple[str, ...]] = EVERYWHERE

    def __init__(self, framework: str) -> None:
        self.framework, self.o = framework, OPS[framework]()
        self.xp = self.o.xp
        self.backend = backend(framework)

    def __call__(self, x: Any, p: Any, *, training: bool, **sources: Any) -> Any:
        source = sources.get(self.backend.source_name)
        p = self.validate(x, p, training)
        if not training:
            return self.in_evaluation(x, p, source)
        if p == 0:
            return self.at_zero(x, source)
        if p == 1:
            return self.at_one(x, source)
        return self.in_training(x, p, self.need(source))

    def validate(self, x: Any, p: Any, training: bool) -> float:
        if isinstance(p, bool) or not isinstance(p, int | float | np.number):
            raise TypeError("p must be a number")
        if not 0 <= p <= 1:
            raise ValueError("p must be in [0, 1]")
        self.validate_dtype(x)
        return float(p)

    def validate_dtype(self, x: Any) -> None:
        if not self.o.is_floating(x):
            raise TypeError("floating point only")

    def need(self, source: Any) -> Any:
        if source is None:
            raise ValueError(f"pass {self.backend.source_name}=")
        return source

    def in_evaluation(self, x: Any, p: float, source: Any) -> Any:
        return x

    def at_zero(self, x: Any, source: Any) -> Any:
        return x

    def at_one(self, x: Any, source: Any) -> Any:
        return self.select(self.xp.zeros_like(x, dtype=self.xp.bool), x)

    def in_training(self, x: Any, p: float, source: Any) -> Any:
        return self.apply(x, self.keep(self.uniform(source, tuple(x.shape)), p), p)

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return self.o.uniform(source, shape)

    def keep(self, u: Any, p: float) -> Any:
        return u >= p

    def apply(self, x: Any, keep: Any, p: float) -> Any:
        return self.select(keep, x / self.scalar(x, 1 - p))

    def select(self, keep: Any, x: Any) -> Any:
        if self.framework == "torch" and keep.stride() != x.stride():
            keep = self.xp.empty_like(x, dtype=self.xp.bool).copy_(keep)
        return self.xp.where(keep, x, self.scalar(x, 0))

    def scalar(self, x: Any, value: float) -> Any:
        return x.dtype.type(value) if self.framework == "numpy" else value

    def number(self, mask: Any, x: Any) -> Any:
        return self.o.cast(mask, x.dtype)


# Scaling


class MissingRescale(Correct):
    """The dropout of 2012, without its other half: evaluation has to be scaled instead."""

    def apply(self, x, keep, p):
        return self.select(keep, x)


class ScaledByP(Correct):
    """The wrong one of the two probabilities."""

    def apply(self, x, keep, p):
        return self.select(keep, x * self.scalar(x, p))


class DividedByP(Correct):
    """The rescaling of code in which p is the probability of keeping (TensorFlow 1)."""

    def apply(self, x, keep, p):
        return self.select(keep, x / self.scalar(x, p))


class MultipliedByKeepRate(Correct):
    """Scaled as evaluation was in 2012, but in training."""

    def apply(self, x, keep, p):
        return self.select(keep, x * self.scalar(x, 1 - p))


class ScaledTwice(Correct):
    """Scaled in the layer and again by the caller."""

    def apply(self, x, keep, p):
        return self.select(keep, x / self.scalar(x, (1 - p) ** 2))


class ScaledByRootOfKeepRate(Correct):
    """Keeps the second moment instead of the mean."""

    def apply(self, x, keep, p):
        return self.select(keep, x / self.scalar(x, (1 - p) ** 0.5))


class RescaledByWhatWasKept(Correct):
    """Divides by the kept fraction of this very batch, so that units depend on one another."""

    def apply(self, x, keep, p):
        fraction = self.o.cast(keep, self.o.float32).mean()
        return self.select(keep, self.o.cast(x / fraction, x.dtype))


class ClippedOutput(Correct):
    """A clamp against large activations, left in the layer."""

    def apply(self, x, keep, p):
        return self.xp.clip(super().apply(x, keep, p), -6, 6)


class ClampsLarge(Correct):
    """Saturates where half precision would overflow, in every precision."""

    def apply(self, x, keep, p):
        out = super().apply(x, keep, p)
        clipped = self.xp.clip(out, -65504, 65504)
        return self.xp.where(self.xp.isfinite(out), clipped, out)


class EpsilonAdded(Correct):
    """A small number against zeros that somebody divides by."""

    def apply(self, x, keep, p):
        return super().apply(x + self.scalar(x, 1e-7), keep, p)


class NanToNum(Correct):
    """NaN and infinities cleaned away, which hides them from whoever looks for them."""

    def apply(self, x, keep, p):
        return self.xp.nan_to_num(super().apply(x, keep, p))


class DroppedToSmall(Correct):
    """Dropped units become an epsilon instead of 0, against a later division."""

    def apply(self, x, keep, p):
        return self.xp.where(keep, super().apply(x, keep, p), self.scalar(x, 1e-4))


class DroppedToNegative(Correct):
    """Dropped units become a negative constant, as in the dropout for SELU."""

    def apply(self, x, keep, p):
        return self.xp.where(keep, super().apply(x, keep, p), self.scalar(x, -1.7581))


# Rates


class Swapped(Correct):
    """p taken for the probability of keeping."""

    def keep(self, u, p):
        return u < p


class SwappedAndRescaled(Correct):
    """p taken for the probability of keeping, consistently (TensorFlow 1)."""

    def keep(self, u, p):
        return u < p

    def apply(self, x, keep, p):
        return self.select(keep, x / self.scalar(x, p))


class GreaterAtZero(Correct):
    """u > p without a special case: a unit can be dropped at p = 0 (the article, d2l)."""

    def at_zero(self, x, source):
        return self.in_training(x, 0.0, source)

    def keep(self, u, p):
        return u > p


class RandnForRand(Correct):
    """A normal number where a uniform one is meant (a widely copied port)."""

    def uniform(self, source, shape):
        return self.o.normal(source, shape)


class DrawnInTheDtypeOfX(Correct):
    """Uniforms in half precision for a network in half precision: few different values."""

    frameworks = WITH_GRADIENT

    def in_training(self, x, p, source):
        if self.framework == "torch":
            u = self.xp.rand(x.shape, generator=source, dtype=x.dtype)
        else:
            u = self.o.jax.random.uniform(source, x.shape, x.dtype)
        return self.apply(x, self.keep(u, p), p)


class DrawnInEightBits(Correct):
    """Cheap bits: rates are rounded to a multiple of 1 / 256."""

    def uniform(self, source, shape):
        return self.xp.floor(self.o.uniform(source, shape) * 256) / 256


class RoundedUniform(Correct):
    """Uniforms of two decimals, from a port of a table-driven generator."""

    def uniform(self, source, shape):
        return self.xp.floor(self.o.uniform(source, shape) * 100) / 100


class LimitedRate(Correct):
    """A limit of 0.9 on p, against networks that do not train."""

    def in_training(self, x, p, source):
        return super().in_training(x, min(p, 0.9), source)


class RateOfAtLeast(Correct):
    """A rate clipped from below, from a schedule that never reaches 0."""

    def in_training(self, x, p, source):
        return super().in_training(x, max(p, 0.01), source)


class IdentityAtSmallRates(Correct):
    """A short cut for p "nearly" 0."""

    def in_training(self, x, p, source):
        return x if p < 0.005 else super().in_training(x, p, source)


class StaleRate(Correct):
    """The rate of the first call is remembered, as a layer compiled once does."""

    first: float | None = None

    def in_training(self, x, p, source):
        if self.first is None:
            self.first = p
        return super().in_training(x, self.first, source)


class RoundedRate(Correct):
    """The rate of a configuration file, in whole per cent."""

    def in_training(self, x, p, source):
        return super().in_training(x, min(max(round(p, 2), 0.01), 0.99), source)


class RoundedThreshold(Correct):
    """The threshold, not the scale, in three decimals."""

    def keep(self, u, p):
        return u >= round(p, 3)


class LimitedThreshold(Correct):
    """A threshold of at most 0.99, so that something is always kept."""

    def keep(self, u, p):
        return u >= min(p, 0.99)


class SlightlyOff(Correct):
    """A rate off by 2 %, by an off-by-one in a table of thresholds."""

    def keep(self, u, p):
        return u >= p * 0.98


# Masks that are not independent


class OneMaskForTheBatch(Correct):
    """Drawn for one example and broadcast (a layer's mask made in its constructor)."""

    def uniform(self, source, shape):
        u = self.o.uniform(source, (1, *shape[1:]) if shape else shape)
        return u + self.xp.zeros(shape, dtype=self.o.float32)


class OneMaskPerRow(Correct):
    """Whole examples dropped: drawn with a last axis of 1."""

    def uniform(self, source, shape):
        u = self.o.uniform(source, (*shape[:-1], 1) if len(shape) > 1 else shape)
        return u + self.xp.zeros(shape, dtype=self.o.float32)


class OneMaskPerChannel(Correct):
    """Spatial dropout where plain dropout is meant."""

    def uniform(self, source, shape):
        u = self.o.uniform(source, (*shape[:2], *(1 for _ in shape[2:])))
        return u + self.xp.zeros(shape, dtype=self.o.float32)


class WrongAxis(Correct):
    """Shared along the second axis instead of along none: a transposed noise shape."""

    def uniform(self, source, shape):
        u = self.o.uniform(source, (shape[0], 1, *shape[2:]) if len(shape) > 1 else shape)
        return u + self.xp.zeros(shape, dtype=self.o.float32)


class TiledMask(Correct):
    """1,024 numbers repeated, to save time."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.o.uniform(source, (1024,))
        return self.xp.concatenate([u] * (n // 1024 + 1))[:n].reshape(shape)


class RowOfPixelsRepeated(Correct):
    """28 numbers repeated: drawn for a row of pixels, used for every row."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.o.uniform(source, (28,))
        return self.xp.concatenate([u] * (n // 28 + 1))[:n].reshape(shape)


class LastUnitKept(Correct):
    """A loop over blocks that stops one short: the last unit is never dropped."""

    def keep(self, u, p):
        position = self.xp.arange(int(np.prod(tuple(u.shape)))).reshape(u.shape)
        return (u >= p) | (position == position.max()) if 0 not in u.shape else u >= p


class FewSeeds(Correct):
    """Only 8 bits of the source reach the generator: there are 256 masks and no more."""

    def uniform(self, source, shape):
        number = self.xp.floor(256 * self.o.uniform(source, ()))
        if self.framework == "jax":
            return self.o.uniform(self.o.jax.random.key(number.astype("uint32")), shape)
        return self.o.uniform(self.backend.source(int(number)), shape)


class Blocks(Correct):
    """Units dropped in pairs, as DropBlock drops patches."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.o.uniform(source, ((n + 1) // 2,))
        return self.xp.stack([u, u], 1).reshape(-1)[:n].reshape(shape)


class Antithetic(Correct):
    """u for one half and 1 - u for the other, a variance reduction that ties units together."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.o.uniform(source, ((n + 1) // 2,))
        return self.xp.concatenate([u, 1 - u])[:n].reshape(shape)


class ExactlySoMany(Correct):
    """Drops a fixed number of units, chosen by a permutation: the count is not binomial."""

    def keep(self, u, p):
        if u.size == 0 if self.framework != "torch" else u.numel() == 0:
            return u >= p
        ranks = self.o.argsort(self.o.argsort(u.reshape(-1)))
        return (ranks >= round(p * len(ranks))).reshape(u.shape)


class FixedCountWhenLarge(ExactlySoMany):
    """Exact counts, but only for layers large enough to make it worth while."""

    def keep(self, u, p):
        return super().keep(u, p) if int(np.prod(tuple(u.shape))) > 1024 else u >= p


class FixedSeed(Correct):
    """Seeds anew inside the call "for reproducibility"."""

    def in_training(self, x, p, source):
        return super().in_training(x, p, self.backend.source(0))


class MaskCachedByShape(Correct):
    """A mask kept for reuse and found again by the shape of the input."""

    def __init__(self, framework):
        super().__init__(framework)
        self.cache = {}

    def uniform(self, source, shape):
        if shape not in self.cache:
            self.cache[shape] = np.asarray(self.backend.numpy(self.o.uniform(source, shape)))
        return self.backend.array(self.cache[shape])


class SourceAsDefaultArgument(Correct):
    """The source is made once, when the function is defined (d2l's JAX version)."""

    def need(self, source):
        if source is None:
            self.default = getattr(self, "default", None) or self.backend.source(0)
        return self.default if source is None else source


class SourceIgnored(Correct):
    """The default source is used even if one is given."""

    frameworks = WITH_STATE

    def need(self, source):
        super().need(source)
        self.default = getattr(self, "default", None) or self.backend.source(0)
        return self.default


class GlobalGenerator(Correct):
    """Draws from the global generator, whatever is passed (the article)."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        return self.o.global_uniform(shape)


class SeedsGlobally(Correct):
    """Seeds the global generator from the source, and draws from that."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        self.backend.seed_globally(int(1e6 * float(self.o.uniform(source, (1,))[0])))
        return self.o.global_uniform(shape)


class MaskFollowsInput(Correct):
    """Large activations are never dropped: a mask that depends on x."""

    def apply(self, x, keep, p):
        return super().apply(x, keep | (abs(x) > 1e20), p)


class StreamMovesOnByOne(Correct):
    """An offset that advances by one instead of by the size of the draw."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        if self.framework == "torch":
            state = source.get_state()
            u = self.o.uniform(source, shape)
            source.set_state(state)
        else:
            state = source.bit_generator.state
            u = self.o.uniform(source, shape)
            source.bit_generator.state = state
        self.o.uniform(source, (2,))
        return u


class LockedInTime(Correct):
    """Variational dropout of (batch, time, feature) where plain dropout is meant."""

    def uniform(self, source, shape):
        if len(shape) != 3:
            return self.o.uniform(source, shape)
        u = self.o.uniform(source, (shape[0], 1, shape[2]))
        return u + self.xp.zeros(shape, dtype=self.o.float32)


class FirstColumnKept(Correct):
    """The column of a bias unit is never dropped."""

    def keep(self, u, p):
        column = self.xp.arange(u.shape[-1]) == 0 if len(u.shape) == 2 else False
        return (u >= p) | column


class PairsInHalfPrecision(Correct):
    """One 32-bit draw serves two 16-bit units."""

    def in_training(self, x, p, source):
        u = self.o.uniform(source, tuple(x.shape))
        if "16" in str(x.dtype) and x.shape and x.shape[-1] % 2 == 0 and 0 not in x.shape:
            half = u[..., ::2]
            u = self.xp.stack([half, half], -1).reshape(u.shape)
        return self.apply(x, self.keep(u, p), p)


class SharedAlongExpanded(Correct):
    """One mask for all that shares memory."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        for axis, stride in enumerate(x.stride()):
            if stride == 0 and x.shape[axis] > 1:
                keep = keep.select(axis, 0).unsqueeze(axis).expand(x.shape).contiguous()
        return super().apply(x, keep, p)


class NoiseForMask(Correct):
    """Gaussian dropout: mean and variance are right, nothing is ever 0."""

    def in_training(self, x, p, source):
        noise = 1 + (p / (1 - p)) ** 0.5 * self.o.normal(source, tuple(x.shape))
        return self.o.cast(x * self.o.cast(noise, x.dtype), x.dtype)


# When it is on


class ActiveInEvaluation(Correct):
    """A flag of its own that .eval() does not touch (the article)."""

    def in_evaluation(self, x, p, source):
        return self.in_training(x, p, self.need(source))


class NeverActive(Correct):
    """The flag the wrong way round, or never set."""

    def in_training(self, x, p, source):
        return x


class ScalesInEvaluation(Correct):
    """Inverted in training, and scaled in evaluation once more."""

    def in_evaluation(self, x, p, source):
        return x * self.scalar(x, 1 - p)


class DrawsInEvaluation(Correct):
    """The mask is drawn before the flag is looked at."""

    def in_evaluation(self, x, p, source):
        self.uniform(self.need(source), tuple(x.shape))
        return x


class DrawsAtOne(Correct):
    """At p = 1 a mask is drawn that nobody needs, and the generator moves on."""

    frameworks = WITH_STATE

    def at_one(self, x, source):
        self.uniform(self.need(source), tuple(x.shape))
        return super().at_one(x, source)


# Limits and odd values


class NanAtOne(Correct):
    """No special case at p = 1: mask * x / 0 is NaN."""

    def at_one(self, x, source):
        with np.errstate(all="ignore"):
            return x * 0 / self.xp.zeros_like(x)


class NanGradientAtOne(Correct):
    """where(mask, x / 0, 0) looks right and has a NaN gradient."""

    frameworks = WITH_GRADIENT

    def at_one(self, x, source):
        return self.select(self.xp.zeros_like(x, dtype=self.xp.bool), x / 0)


class CutOffAtOne(Correct):
    """zeros_like(x) at p = 1: backward() finds no graph (the article)."""

    frameworks = ("torch",)

    def at_one(self, x, source):
        return self.xp.zeros_like(x)


class MultipliesByMask(Correct):
    """A dropped infinity becomes NaN (PyTorch's own, the article, d2l)."""

    def apply(self, x, keep, p):
        with np.errstate(all="ignore"):
            return x * self.number(keep, x) / self.scalar(x, 1 - p)


class MultipliesAtOne(Correct):
    """x * 0 at p = 1: NaN where x is not finite (PyTorch's own)."""

    def at_one(self, x, source):
        with np.errstate(all="ignore"):
            return x * 0


# Gradients


class AnotherMaskInBackward(Correct):
    """The backward pass draws again instead of remembering."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        here, there = super().apply(x, keep, p), super().apply(x, ~keep, p)
        finite = self.xp.where(self.xp.isfinite(here), here, self.scalar(x, 0))
        other = self.xp.where(self.xp.isfinite(there), there, self.scalar(x, 0))
        return self.o.stop(finite) + other - self.o.stop(other)


class GradientLost(Correct):
    """A detach too many."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        return self.o.stop(super().apply(x, keep, p))


class StraightThrough(Correct):
    """The gradient of the identity, as for a quantizer."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        return self._gradient_of(x, super().apply(x, keep, p))

    def _gradient_of(self, other, result):
        finite = self.xp.where(self.xp.isfinite(other), other, self.scalar(other, 0))
        return self.o.stop(result) + finite - self.o.stop(finite)


class UnscaledGradient(StraightThrough):
    """A custom backward without the 1 / (1 - p) of its forward."""

    def apply(self, x, keep, p):
        return self._gradient_of(self.select(keep, x), Correct.apply(self, x, keep, p))


class GradientScaledTwice(StraightThrough):
    """A custom backward that scales a gradient that was scaled before."""

    def apply(self, x, keep, p):
        result = Correct.apply(self, x, keep, p)
        return self._gradient_of(result / self.scalar(x, 1 - p), result)


class BackwardGuessesMask(StraightThrough):
    """Backward takes output != 0 for the mask: a kept unit that was 0 gets no gradient."""

    def apply(self, x, keep, p):
        result = Correct.apply(self, x, keep, p)
        return self._gradient_of(Correct.apply(self, x, keep & (x != 0), p), result)


class BackwardMultipliesMask(StraightThrough):
    """Right forward, but an overflowed gradient of a dropped unit becomes NaN."""

    def apply(self, x, keep, p):
        product = x * self.number(keep, x) / self.scalar(x, 1 - p)
        return self._gradient_of(product, Correct.apply(self, x, keep, p))


class StraightThroughInHalf(StraightThrough):
    """The fast kernel for half precision has a backward of its own, and a wrong one."""

    def apply(self, x, keep, p):
        if "16" in str(x.dtype):
            return super().apply(x, keep, p)
        return Correct.apply(self, x, keep, p)


class GradientStopsInEvaluation(Correct):
    """Evaluation taken to mean that no gradient is wanted."""

    frameworks = WITH_GRADIENT

    def in_evaluation(self, x, p, source):
        return self.o.stop(x)


# Types and memory


class InPlace(Correct):
    """Writes the result into the input."""

    frameworks = WITH_STATE

    def apply(self, x, keep, p):
        result = super().apply(x, keep, p)
        if self.framework == "torch":
            x.data.copy_(result.detach())
        elif x.flags.writeable:
            x[...] = result
        return result


class ResultOverwritten(Correct):
    """One output buffer for each shape, used again by the next call."""

    frameworks = WITH_STATE

    def apply(self, x, keep, p):
        out = super().apply(x, keep, p)
        if getattr(out, "requires_grad", False):
            return out
        buffers = self.__dict__.setdefault("buffers", {})
        buffer = buffers.setdefault((tuple(x.shape), str(x.dtype)), self.xp.empty_like(out))
        buffer[...] = out
        return buffer


class Upcast(Correct):
    """Half precision comes back as float32, from arithmetic with a float32 mask."""

    def in_training(self, x, p, source):
        wide = x if str(x.dtype).endswith("64") else self.o.cast(x, self.o.float32)
        return super().in_training(wide, p, source)


class Downcast(Correct):
    """float64 comes back as float32."""

    def in_training(self, x, p, source):
        return super().in_training(self.o.cast(x, self.o.float32), p, source)


class Float64Mask(Correct):
    """A mask of doubles, from a default dtype, turns everything into doubles."""

    frameworks = WITH_STATE

    def apply(self, x, keep, p):
        mask = self.o.cast(keep, self.xp.float64)
        return self.select(keep, x / self.scalar(x, 1 - p)) * self.xp.ones_like(mask)


class IntegersTruncated(Correct):
    """Integers are accepted, and the result cast back to integers."""

    def validate_dtype(self, x):
        pass

    def in_training(self, x, p, source):
        if self.o.is_floating(x):
            return super().in_training(x, p, source)
        return self.o.cast(super().in_training(self.o.cast(x, self.o.float32), p, source), x.dtype)


class ReadsMemoryOrder(Correct):
    """Goes through the elements as they lie in memory, but writes them in rows."""

    frameworks = WITH_STATE

    def apply(self, x, keep, p):
        if self.framework == "torch":
            flat = x.as_strided((x.numel(),), (1,)) if x._is_view() or x.dim() > 3 else x
        else:
            flat = x.ravel(order="K")
        if flat.shape != x.shape:
            x = flat.reshape(x.shape)
        return super().apply(x, keep, p)


class LosesStrides(Correct):
    """The result comes back in rows: channels-last networks slow down to half their speed."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        return super().apply(x, keep, p).contiguous()


class Flattens(Correct):
    """A shape of no dimensions comes back with one."""

    def in_training(self, x, p, source):
        result = super().in_training(x, p, source)
        return result.reshape(1) if len(x.shape) == 0 else result


# Arguments


class AssertsRate(Correct):
    """assert for validation: gone under python -O, and the wrong exception without it."""

    def validate(self, x, p, training):
        assert isinstance(p, int | float | np.number)
        assert 0 <= p <= 1
        self.validate_dtype(x)
        return float(p)


class NanPasses(Correct):
    """p < 0 or p > 1 is False for NaN (PyTorch's own first check)."""

    def validate(self, x, p, training):
        if p < 0 or p > 1:
            raise ValueError("p must be in [0, 1]")
        self.validate_dtype(x)
        return float(p)


class OneAndAHalf(Correct):
    """Only the lower limit is checked."""

    def validate(self, x, p, training):
        return super().validate(x, min(p, 1.0) if isinstance(p, float | int) else p, training)


class ChecksOnlyInTraining(Correct):
    """A bad rate goes unnoticed until the model trains."""

    def validate(self, x, p, training):
        return super().validate(x, p, training) if training else 0.5


class SilentWithoutSource(Correct):
    """No source: no dropout, and no word about it."""

    def in_training(self, x, p, source):
        return x if source is None else super().in_training(x, p, source)

    def need(self, source):
        return source


def all_mutants() -> dict[str, type[Correct]]:
    """Every mutant of this file by name."""
    found = {}
    todo = list(Correct.__subclasses__())
    while todo:
        kind = todo.pop()
        found[kind.__name__] = kind
        todo += kind.__subclasses__()
    return dict(sorted(found.items()))


def subject(kind: type[Correct], framework: str) -> Subject:
    """Put a mutant, or the correct one, into the form that the contract takes."""
    return Subject(f"{kind.__name__} in {framework}", framework, kind(framework))
