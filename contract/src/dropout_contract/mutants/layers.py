"""Mutants that are layers of PyTorch: each is wrong as a part of a model."""

import importlib
from typing import Any

from dropout_contract.mutants.correct import Correct


def layer(name: str) -> Any:
    """Return the class of layers that a mutant stands for."""
    return getattr(importlib.import_module("dropout_contract.mutants.torch_layers"), name)


class LayerMutant(Correct):
    """A wrong layer. It is no function in pieces, but made by `layer`."""

    frameworks = ("torch",)


class RateAtConstruction(LayerMutant):
    """A rate that is changed later, as schedules do, is ignored."""


class ScaleAtConstruction(LayerMutant):
    """1 / (1 - p) is computed in the constructor: a changed rate has the old scale."""


class RateInTheDtypeOfTheModel(LayerMutant):
    """The rate is a buffer, which a cast of the model to bfloat16 rounds for good."""


class EvalOnlyByHand(LayerMutant):
    """eval() is overridden, but a model switches its parts by train(False)."""


class NeverOnAgain(LayerMutant):
    """Once switched off, it stays off."""


class CopyForgetsRate(LayerMutant):
    """A deep copy, as of a teacher network, has the default rate."""


class PickleForgetsMode(LayerMutant):
    """A layer that was saved in evaluation is on when it is loaded."""


class CopyIsItself(LayerMutant):
    """A deep copy is the same layer: eval() of the copy switches both."""


class OneMaskForAllLayers(LayerMutant):
    """A cache of masks that belongs to the class: the next layer gets the mask of this one."""


class MaskInState(LayerMutant):
    """The last mask is a buffer, so a checkpoint can be loaded for one batch size only."""


class CountsItsCalls(LayerMutant):
    """Extra state that grows with use."""
