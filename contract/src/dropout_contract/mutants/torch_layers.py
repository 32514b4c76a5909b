"""The layers that `layers.py` describes. They stand apart, because PyTorch may be missing."""

import weakref
from typing import Any, ClassVar

import torch
from torch import nn

from dropout_contract.mutants.correct import Correct


class FromGlobal(Correct):
    """The right dropout, drawing from the global generator as layers do."""

    def need(self, source: Any) -> Any:
        return source

    def uniform(self, source: Any, shape: tuple[int, ...]) -> Any:
        return torch.rand(shape, dtype=torch.float32)


DROPOUT = FromGlobal("torch")


class Right(nn.Module):
    """A right layer."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        DROPOUT.validate(torch.zeros(1), p, True)
        self.p = p

    def forward(self, x: Any) -> Any:
        return self.drop(x, self.p, self.training)

    def drop(self, x: Any, p: float, training: bool) -> Any:
        return DROPOUT(x, p, training=training)


class RateAtConstruction(Right):
    """A rate that is changed later, as schedules do, is ignored."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.first = p

    def forward(self, x: Any) -> Any:
        return self.drop(x, self.first, self.training)


class ScaleAtConstruction(Right):
    """1 / (1 - p) is computed in the constructor: a changed rate has the old scale."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.scale = 1 / (1 - p) if p < 1 else 1.0

    def forward(self, x: Any) -> Any:
        out = self.drop(x, self.p, self.training)
        if not self.training or self.p in (0, 1):
            return out
        return DROPOUT.select(out.detach() != 0, x * self.scale)


class RateInTheDtypeOfTheModel(Right):
    """The rate is a buffer, which a cast of the model to bfloat16 rounds for good."""

    rate: torch.Tensor

    def __init__(self, p: float = 0.5) -> None:
        nn.Module.__init__(self)
        DROPOUT.validate(torch.zeros(1), p, True)
        rate = torch.tensor(float(p), dtype=torch.float64)
        self.register_buffer("rate", rate, persistent=False)

    def forward(self, x: Any) -> Any:
        return self.drop(x, float(self.rate), self.training)

    p = property(lambda self: float(self.rate), lambda self, p: self.rate.fill_(p))


class OwnFlag(Right):
    """A right layer with a flag of its own."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.on = True

    def train(self, mode: bool = True) -> Any:
        self.on = mode
        return super().train(mode)

    def eval(self) -> Any:  # called by hand only: a model switches its parts by train(False)
        self.on = False
        nn.Module.train(self, False)
        return self

    def forward(self, x: Any) -> Any:
        return self.drop(x, self.p, self.on)


class EvalOnlyByHand(OwnFlag):
    """eval() is overridden, but a model switches its parts by train(False)."""

    def train(self, mode: bool = True) -> Any:
        self.on = self.on or mode
        return nn.Module.train(self, mode)


class NeverOnAgain(OwnFlag):
    """Once switched off, it stays off."""

    def train(self, mode: bool = True) -> Any:
        self.on = self.on and mode
        return nn.Module.train(self, mode)


class CopyForgetsRate(Right):
    """A deep copy, as of a teacher network, has the default rate."""

    def __deepcopy__(self, memo: Any) -> Any:
        return type(self)()


class PickleForgetsMode(Right):
    """A layer that was saved in evaluation is on when it is loaded."""

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.training = True


class CopyIsItself(Right):
    """A deep copy is the same layer: eval() of the copy switches both."""

    def __deepcopy__(self, memo: Any) -> Any:
        return self


class OneMaskForAllLayers(Right):
    """A cache of masks that belongs to the class: the next layer gets the mask of this one."""

    masks: ClassVar[dict[Any, Any]] = {}

    def drop(self, x: Any, p: float, training: bool) -> Any:
        if not training or p in (0, 1):
            return super().drop(x, p, training)
        # Each layer draws its own mask, except that the one drawn last serves the next layer.
        known: Any = self.masks.get((tuple(x.shape), p))
        others = known is not None and known[0]() not in (None, self)
        DROPOUT.validate(x, p, training)
        keep = known[1] if others else DROPOUT.uniform(None, x.shape) >= p
        self.masks[tuple(x.shape), p] = weakref.ref(self), keep
        return DROPOUT.apply(x, keep, p)


class MaskInState(Right):
    """The last mask is a buffer, so a checkpoint can be loaded for one batch size only."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.register_buffer("mask", torch.ones(0))

    def drop(self, x: Any, p: float, training: bool) -> Any:
        out = super().drop(x, p, training)
        self.mask = (out.detach() != 0).float()
        return out


class CountsItsCalls(Right):
    """Extra state that grows with use."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.calls: dict[Any, bool] = {}

    def get_extra_state(self) -> Any:
        return torch.zeros(len(self.calls))

    def set_extra_state(self, state: Any) -> None:
        self.calls = {}

    def drop(self, x: Any, p: float, training: bool) -> Any:
        self.calls[tuple(x.shape)] = True
        return super().drop(x, p, training)
