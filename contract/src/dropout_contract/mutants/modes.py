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
