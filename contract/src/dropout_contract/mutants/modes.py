"""Mutants that are on when they should be off, and those that fail at p = 1 or at infinities."""

import numpy as np

from dropout_contract.mutants.correct import WITH_GRADIENT, WITH_STATE, Correct


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


class HighRatesStayOn(Correct):
    """Rates above 0.9 are taken for noise that is wanted in evaluation, too."""

    def in_evaluation(self, x, p, source):
        return self.in_training(x, p, self.need(source)) if 0.9 < p < 1 else x


class EvaluationCleansUp(Correct):
    """NaN and infinities are replaced in evaluation, which hides where they come from."""

    def in_evaluation(self, x, p, source):
        return self.xp.nan_to_num(x) if p < 1 else x


class WholeOneIsPerCent(Correct):
    """A whole number is taken for per cent."""

    def validate(self, x, p, training):
        p = super().validate(x, p, training) if type(p) is not int or p != 1 else 0.01
        return p


class GreaterAtZeroIfGiven(Correct):
    """At p = 0 a source that is given is used, with u > p."""

    frameworks = ("jax",)

    def at_zero(self, x, source):
        if source is None:
            return x
        return self.apply(x, self.uniform(source, tuple(x.shape)) > 0, 0.0)
