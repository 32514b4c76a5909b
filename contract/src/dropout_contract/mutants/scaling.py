"""Mutants that scale what is kept, or do not, or touch what must stay as it is."""

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
