"""Mutants that scale what is kept, or do not, or touch what must stay as it is."""

import numpy as np

from dropout_contract.mutants.correct import Correct


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
        fraction = self.backend.cast(keep, self.xp.float32).mean()
        return self.select(keep, self.backend.cast(x / fraction, x.dtype))


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


class ScaledThereAndBack(Correct):
    """x is divided by its largest size and multiplied again, which costs the last digit."""

    def apply(self, x, keep, p):
        third = self.scalar(x, 1 / 3)
        finite = self.xp.where(self.xp.isfinite(x), (x * third) / third, x)
        return super().apply(finite, keep, p)


class SmallFlushed(Correct):
    """Numbers below 1e-30 become 0, as in a library that flushes what is small."""

    def apply(self, x, keep, p):
        out = super().apply(x, keep, p)
        return self.xp.where((abs(x) < 1e-30) & (x != 0), out * 0, out)


class DoublesThroughSingles(Correct):
    """float64 is computed in float32 for large layers, and cast back."""

    def apply(self, x, keep, p):
        if "64" in str(x.dtype) and x.shape and x.shape[0] >= 1024:
            x = self.backend.cast(self.backend.cast(x, self.xp.float32), x.dtype)
        return super().apply(x, keep, p)


class LongDoublesThroughDoubles(Correct):
    """Long doubles are computed as doubles."""

    frameworks = ("numpy",)

    def apply(self, x, keep, p):
        return self.select(keep, (x.astype(np.float64) / (1 - p)).astype(x.dtype))


class TrueIsOne(Correct):
    """True is taken for the rate 1."""

    def validate(self, x, p, training):
        return super().validate(x, float(p) if isinstance(p, bool) else p, training)


class ShiftedAtZero(Correct):
    """At p = 0 large layers pass through a buffer of 16-bit floats."""

    def at_zero(self, x, source):
        if "float32" not in str(x.dtype) or int(np.prod(tuple(x.shape))) < 1024:
            return x
        return self.backend.cast(self.backend.cast(x, self.xp.float16), x.dtype)


class TruncatedInEvaluation(Correct):
    """Evaluation clips what is out of the range seen in training."""

    def in_evaluation(self, x, p, source):
        return self.xp.where(self.xp.isfinite(x), self.xp.clip(x, -9000, 9000), x)


class ScaleOfSixDecimals(Correct):
    """The scale is computed from the rate as a log prints it, in float32 only."""

    def apply(self, x, keep, p):
        return super().apply(x, keep, round(p, 6) if "float32" in str(x.dtype) else p)


class CoarseScaleInHalf(Correct):
    """A table of scales with one decimal serves the 16-bit dtypes."""

    def apply(self, x, keep, p):
        if "16" not in str(x.dtype):
            return super().apply(x, keep, p)
        return self.select(keep, x * self.scalar(x, round(1 / (1 - p), 1)))


class SqueezesSingle(Correct):
    """A result of one unit loses its axis."""

    def in_training(self, x, p, source):
        out = super().in_training(x, p, source)
        return out.reshape(()) if tuple(x.shape) == (1,) else out


class ZerosLoseTheirSign(Correct):
    """Adding 0.0 turns -0.0 into +0.0."""

    def apply(self, x, keep, p):
        return super().apply(x, keep, p) + 0
