"""Mutants that drop at another rate than the one asked for."""

from dropout_contract.mutants.correct import WITH_GRADIENT, Correct


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
        return self.backend.normal(source, shape)


class DrawnInTheDtypeOfX(Correct):
    """Uniforms in half precision for a network in half precision: few different values."""

    frameworks = WITH_GRADIENT

    def in_training(self, x, p, source):
        if self.framework == "torch":
            u = self.xp.rand(x.shape, generator=source, dtype=x.dtype)
        else:
            u = self.backend.jax.random.uniform(source, x.shape, x.dtype)
        return self.apply(x, self.keep(u, p), p)


class DrawnInEightBits(Correct):
    """Cheap bits: rates are rounded to a multiple of 1 / 256."""

    def uniform(self, source, shape):
        return self.xp.floor(self.backend.uniform(source, shape) * 256) / 256


class RoundedUniform(Correct):
    """Uniforms of two decimals, from a port of a table-driven generator."""

    def uniform(self, source, shape):
        return self.xp.floor(self.backend.uniform(source, shape) * 100) / 100


class LimitedRate(Correct):
    """A limit of 0.9 on p, against networks that do not train."""

    def in_training(self, x, p, source):
        return super().in_training(x, min(p, 0.9), source)


class RateOfAtLeast(Correct):
    """A rate clipped from below, from a schedule that never reaches 0."""

    def at_zero(self, x, source):
        return self.in_training(x, 0.0, self.need(source))

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


class NeverEmpty(Correct):
    """One unit is always kept, against a division by zero in a later mean."""

    def keep(self, u, p):
        keep = u >= p
        if not self.xp.any(keep) and 0 not in u.shape:
            return self.xp.ones_like(keep)
        return keep


class SlightlyOff(Correct):
    """A rate off by 2 %, by an off-by-one in a table of thresholds."""

    def keep(self, u, p):
        return u >= p * 0.98


class OneEntryOff(Correct):
    """A table of thresholds for float32, with an error near 0.95."""

    def in_training(self, x, p, source):
        keep = self.uniform(source, tuple(x.shape)) >= (
            p * 0.99 if "float32" in str(x.dtype) and 0.94 < p < 0.96 else p
        )
        return self.apply(x, keep, p)


class HighRateSticks(Correct):
    """For each shape, a threshold above 0.7 is kept for the calls in float32 that follow."""

    def in_training(self, x, p, source):
        kept = self.__dict__.setdefault("thresholds", {})
        shape = tuple(x.shape)
        if p > 0.7 and "float32" in str(x.dtype):
            kept[shape] = p
        return self.apply(x, self.uniform(source, shape) >= max(p, kept.get(shape, p)), p)
