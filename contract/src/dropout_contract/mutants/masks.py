"""Mutants whose units, examples or calls are not independent, or not of the source given."""

import numpy as np

from dropout_contract.mutants.correct import WITH_STATE, Correct


class OneMaskForTheBatch(Correct):
    """Drawn for one example and broadcast (a layer's mask made in its constructor)."""

    def uniform(self, source, shape):
        u = self.backend.uniform(source, (1, *shape[1:]) if shape else shape)
        return u + self.xp.zeros(shape, dtype=self.xp.float32)


class OneMaskPerRow(Correct):
    """Whole examples dropped: drawn with a last axis of 1."""

    def uniform(self, source, shape):
        u = self.backend.uniform(source, (*shape[:-1], 1) if len(shape) > 1 else shape)
        return u + self.xp.zeros(shape, dtype=self.xp.float32)


class OneMaskPerChannel(Correct):
    """Spatial dropout where plain dropout is meant."""

    def uniform(self, source, shape):
        u = self.backend.uniform(source, (*shape[:2], *(1 for _ in shape[2:])))
        return u + self.xp.zeros(shape, dtype=self.xp.float32)


class WrongAxis(Correct):
    """Shared along the second axis instead of along none: a transposed noise shape."""

    def uniform(self, source, shape):
        u = self.backend.uniform(source, (shape[0], 1, *shape[2:]) if len(shape) > 1 else shape)
        return u + self.xp.zeros(shape, dtype=self.xp.float32)


class TiledMask(Correct):
    """1,024 numbers repeated, to save time."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.backend.uniform(source, (1024,))
        return self.xp.concatenate([u] * (n // 1024 + 1))[:n].reshape(shape)


class RowOfPixelsRepeated(Correct):
    """28 numbers repeated: drawn for a row of pixels, used for every row."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.backend.uniform(source, (28,))
        return self.xp.concatenate([u] * (n // 28 + 1))[:n].reshape(shape)


class LastUnitKept(Correct):
    """A loop over blocks that stops one short: the last unit is never dropped."""

    def keep(self, u, p):
        position = self.xp.arange(int(np.prod(tuple(u.shape)))).reshape(u.shape)
        return (u >= p) | (position == position.max()) if 0 not in u.shape else u >= p


class Blocks(Correct):
    """Units dropped in pairs, as DropBlock drops patches."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.backend.uniform(source, ((n + 1) // 2,))
        return self.xp.stack([u, u], 1).reshape(-1)[:n].reshape(shape)


class Antithetic(Correct):
    """u for one half and 1 - u for the other, a variance reduction that ties units together."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.backend.uniform(source, ((n + 1) // 2,))
        return self.xp.concatenate([u, 1 - u])[:n].reshape(shape)


class ExactlySoMany(Correct):
    """Drops a fixed number of units, chosen by a permutation: the count is not binomial."""

    def keep(self, u, p):
        if u.size == 0 if self.framework != "torch" else u.numel() == 0:
            return u >= p
        ranks = self.xp.argsort(self.xp.argsort(u.reshape(-1)))
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
            self.cache[shape] = np.asarray(self.backend.numpy(self.backend.uniform(source, shape)))
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
        return self.backend.global_uniform(shape)


class SeedsGlobally(Correct):
    """Seeds the global generator from the source, and draws from that."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        self.backend.seed_globally(int(1e6 * float(self.backend.uniform(source, (1,))[0])))
        return self.backend.global_uniform(shape)


class MaskFollowsInput(Correct):
    """Large activations are never dropped: a mask that depends on x."""

    def apply(self, x, keep, p):
        return super().apply(x, keep | (abs(x) > 1e20), p)


class LockedInTime(Correct):
    """Variational dropout of (batch, time, feature) where plain dropout is meant."""

    def uniform(self, source, shape):
        if len(shape) != 3:
            return self.backend.uniform(source, shape)
        u = self.backend.uniform(source, (shape[0], 1, shape[2]))
        return u + self.xp.zeros(shape, dtype=self.xp.float32)


class FirstColumnKept(Correct):
    """The column of a bias unit is never dropped."""

    def keep(self, u, p):
        column = self.xp.arange(u.shape[-1]) == 0 if len(u.shape) == 2 else False
        return (u >= p) | column


class PairsInHalfPrecision(Correct):
    """One 32-bit draw serves two 16-bit units."""

    def in_training(self, x, p, source):
        u = self.backend.uniform(source, tuple(x.shape))
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
        noise = 1 + (p / (1 - p)) ** 0.5 * self.backend.normal(source, tuple(x.shape))
        return self.backend.cast(x * self.backend.cast(noise, x.dtype), x.dtype)


class NegativeFromTheOtherEnd(Correct):
    """An input that is negative throughout goes to another kernel, which keeps where u < 1 - p."""

    def in_training(self, x, p, source):
        u = self.uniform(source, tuple(x.shape))
        other = self.xp.all((x < 0) & self.xp.isfinite(x)) if 0 not in x.shape else False
        return self.apply(x, self.xp.where(self.xp.asarray(other), 1 - u, u) >= p, p)


class SharedByRates(Correct):
    """If the next call has another rate, it uses the numbers of this one: masks are nested."""

    frameworks = WITH_STATE

    def in_training(self, x, p, source):
        u = self.uniform(source, tuple(x.shape))
        known, rate, numbers = getattr(self, "last", (None, p, u))
        if known is source and rate != p and numbers.shape == u.shape:
            u = numbers
        self.last = source, p, u
        return self.apply(x, self.keep(u, p), p)
