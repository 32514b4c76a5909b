"""Mutants whose forward pass is right and whose gradient is not."""

from dropout_contract.mutants.correct import WITH_GRADIENT, Correct


class AnotherMaskInBackward(Correct):
    """The backward pass draws again instead of remembering."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        here, there = super().apply(x, keep, p), super().apply(x, ~keep, p)
        finite = self.xp.where(self.xp.isfinite(here), here, self.scalar(x, 0))
        other = self.xp.where(self.xp.isfinite(there), there, self.scalar(x, 0))
        return self.backend.stop_gradient(finite) + other - self.backend.stop_gradient(other)


class GradientLost(Correct):
    """A detach too many."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        return self.backend.stop_gradient(super().apply(x, keep, p))


class StraightThrough(Correct):
    """The gradient of the identity, as for a quantizer."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        return self._gradient_of(x, super().apply(x, keep, p))

    def _gradient_of(self, other, result):
        finite = self.xp.where(self.xp.isfinite(other), other, self.scalar(other, 0))
        return self.backend.stop_gradient(result) + finite - self.backend.stop_gradient(finite)


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
        return self.backend.stop_gradient(x)
