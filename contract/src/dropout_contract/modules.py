"""The clauses about layers of PyTorch as parts of a model: modes, copies, rates, state."""

import copy
import inspect
import pickle
from typing import Any

import numpy as np

from dropout_contract.layers import RATE_ATTRIBUTES, Layer
from dropout_contract.run import (
    CONVENTION,
    FRAGILE,
    WRONG,
    NotApplicable,
    Run,
    clause,
    require,
    same,
)

UNITS = 4096


@clause(WRONG)
def mode_comes_from_the_model(run: Run) -> None:
    """A layer obeys train() and eval(), whether they are called on it or on a model around it."""
    layer, torch = _layer(run), run.backend.xp
    model = torch.nn.Sequential(torch.nn.Sequential(layer), torch.nn.Identity())
    for switch, on in (
        (model.train, True), (layer.eval, False), (model.train, True), (model.eval, False),
        (layer.train, True), (model.eval, False), (model.train, True),
    ):  # fmt: skip
        switch()
        what = f"after {'model' if switch.__self__ is model else 'layer'}.{switch.__name__}()"
        dropped = _dropped(run, layer)
        require(bool(dropped) == on, f"{what}, {dropped} units are dropped")


@clause(FRAGILE)
def rate_can_be_changed(run: Run) -> None:
    """A rate that is changed on the layer counts from then on: for the mask and for the scale."""
    layer = _layer(run)
    (p,) = run.rates(0.5)
    name = next((n for n in RATE_ATTRIBUTES if getattr(layer, n, None) == p), None)
    if name is None:
        raise NotApplicable("its rate is no attribute with a known name")
    layer.train()
    _call(run, layer, np.ones(UNITS))
    for new in (0.9, 0.2):
        try:
            setattr(layer, name, new)
        except Exception as error:  # frozen, or a buffer
            raise NotApplicable(f"its rate cannot be changed: {error}") from error
        out = _call(run, layer, np.ones(UNITS))
        kept = out[out != 0]
        same(
            kept, np.full(len(kept), 1 / (1 - new)), f"kept units at the new rate {new}", rtol=1e-6
        )
        # The count is off by 8 standard deviations by chance less than once in 10**13 times.
        off = abs(len(kept) / UNITS - (1 - new))
        require(off < 8 * (new * (1 - new) / UNITS) ** 0.5,
                f"at the new rate {new}, {len(kept)} of {UNITS} units are kept")  # fmt: skip


@clause(FRAGILE)
def copies_are_layers(run: Run) -> None:
    """A copy, deep or pickled, has the rate and mode of the layer, and a mode of its own."""
    layer = _layer(run)
    (p,) = run.rates(0.5)
    ways = {"deepcopy": copy.deepcopy, "pickle": lambda one: pickle.loads(pickle.dumps(one))}
    for name, way in ways.items():
        for training in (True, False):
            (layer.train if training else layer.eval)()
            if training:
                _call(run, layer, np.ones(64))  # a layer that was used has more to copy
            try:
                other = way(layer)
            except Exception as error:
                what = f"deepcopy raised {type(error).__name__}: {error}"
                require(name == "pickle", what)  # a class within a function cannot be pickled
                continue
            dropped = _dropped(run, other)
            require(bool(dropped) == training, f"{name}: {dropped} units are dropped")
            if not training:
                continue
            ones = np.ones(run.units(p))
            out = _call(run, other, ones)
            kept = out[out != 0]
            same(kept, np.full(len(kept), 1 / (1 - p)), f"kept units, {name}", rtol=1e-6)
            other.eval()
            require(_dropped(run, layer), f"{name}: eval() of the copy switches the layer off")
            require(not _dropped(run, other), f"{name}: eval() of the copy does nothing")


@clause(WRONG)
def layers_have_masks_of_their_own(run: Run) -> None:
    """Two layers of a model draw different masks."""
    layer = _layer(run)
    (p,) = run.rates(0.5)
    other = _new_layer(run, p)
    layers: Any = run.subject.function
    if layers.source_is_an_argument:
        raise NotApplicable("their masks follow the source that is passed at each call")
    if layers.generators or not run.subject.replays:
        raise NotApplicable("each has randomness of its own, which is for the user to seed")
    for one in (layer, other):
        one.train()
    first, second = (_call(run, one, np.ones(run.units(p))) != 0 for one in (layer, other))
    require((first != second).any(), "two layers gave the same mask, one after the other")


@clause(FRAGILE)
def state_dict_does_not_grow(run: Run) -> None:
    """A call adds nothing to the state_dict, so that it can be loaded into a new layer."""
    layer = _layer(run)
    before = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    layer.train()
    for shape in ((64,), (8, 3)):
        _call(run, layer, np.ones(shape))
        after = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
        require(after == before, f"the state_dict is {after} after a call, and was {before}")


def _layer(run: Run) -> Any:
    """Return a new layer, of the rate 0.5 if it can be chosen."""
    layers = run.subject.function
    if run.backend.name != "torch" or not isinstance(layers, Layer):
        raise NotApplicable("it is no layer of PyTorch")
    kind = layers.what if inspect.isclass(layers.what) else type(layers.what)
    if not issubclass(kind, run.backend.xp.nn.Module):
        raise NotApplicable("it is no torch.nn.Module")
    (p,) = run.rates(0.5)
    return _new_layer(run, p)


def _new_layer(run: Run, p: float) -> Any:
    layers: Any = run.subject.function
    try:
        made = layers.make(p, None)
        return made if layers.is_class else copy.deepcopy(made)
    except Exception as error:
        raise NotApplicable(f"it cannot be made again: {error}") from error


def _call(run: Run, layer: Any, x: np.ndarray) -> np.ndarray:
    """Call a layer in the mode in which it is."""
    layers: Any = run.subject.function
    x = run.backend.array(x.astype(np.float32))
    run.backend.seed_globally(run.new_seed())
    passed = run.backend.source(run.new_seed()) if layers.source_is_an_argument else None
    mode = getattr(layer, "training", True)
    return run.backend.numpy(layers.signature.call(layer, x=x, training=mode, source=passed))


def _dropped(run: Run, layer: Any) -> int:
    (p,) = run.rates(0.5)
    return int((_call(run, layer, np.ones(run.units(p))) == 0).sum())


@clause(CONVENTION)
def rate_survives_a_cast(run: Run) -> None:
    """A model that is cast to bfloat16 and back has the rate that it was made with."""
    layer = _layer(run)
    p = 0.3 if run.subject.p is None else run.subject.p
    layer = _new_layer(run, p).bfloat16().float().train()
    out = _call(run, layer, np.ones(UNITS))
    kept = out[out != 0]
    same(kept, np.full(len(kept), 1 / (1 - p)), "kept units after a cast and back", rtol=1e-6)
