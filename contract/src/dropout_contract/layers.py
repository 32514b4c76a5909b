"""Layers as subjects: classes and instances of PyTorch, Flax, Equinox, Keras, and plain ones."""

import contextlib
import copy
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dropout_contract.backends import Backend, backend
from dropout_contract.signatures import CannotCheck, Signature, number_of
from dropout_contract.subjects import Subject

# Attributes in which a layer may keep its rate, and those that say whether dropout is on or off.
RATE_ATTRIBUTES = ("p", "rate", "drop_prob", "drop_rate", "dropout_rate", "dropout_p", "prob")
ON_ATTRIBUTES = ("training", "train_mode", "is_training")
OFF_ATTRIBUTES = ("deterministic", "inference")


def is_layer(what: Any) -> bool:
    """Return whether something is an instance of a layer, and no function."""
    wrapped = inspect.unwrap(what) if hasattr(what, "__wrapped__") else what
    return not (inspect.isroutine(wrapped) or hasattr(what, "func"))


def layer_subject(what: Any, framework: str, name: str, p: float | None) -> Subject:
    """Make a subject from a class of layers, or from one layer.

    Raises:
        CannotCheck: the class needs arguments that nobody can guess, or a layer its rate.
    """
    is_class = inspect.isclass(what)
    kind = what if is_class else type(what)
    if is_class:
        made_with = "made with (p)"
    else:
        p = _rate(what, name, p)
        made_with = f"an instance with p = {p:g}"
    maker = LinenLayer if _is_linen(kind) else Layer
    with backend(framework).global_state_restored():  # a constructor may draw
        layer = maker(what if is_class else _copy(what), kind, backend(framework), name)
    return Subject(
        name,
        framework,
        layer,
        kind=f"a layer, {made_with}",
        takes_source=layer.takes_source,
        must_refuse=layer.source_is_an_argument,
        seeded_by_number=layer.remade,
        has_evaluation=layer.has_evaluation,
        p=None if is_class else p,
        argument=layer.signature.names.get("source") or layer.signature.names.get("rngs"),
        origin=what,
    )


def _rate(layer: Any, name: str, given: float | None) -> float:
    for attribute in RATE_ATTRIBUTES:
        try:
            value = getattr(layer, attribute, None)
        except Exception as error:
            raise CannotCheck(f"reading {attribute} of {name} raised {error!r}") from error
        if isinstance(value, int | float | np.number) and not isinstance(value, bool):
            if not 0 <= value <= 1:
                raise CannotCheck(f"{name} has {attribute} = {value}, which is not in [0, 1]")
            if given not in (None, value):
                raise CannotCheck(f"{name} has {attribute} = {value}, not {given}")
            return float(value)
    if given is not None:
        return float(given)
    raise CannotCheck(f"cannot tell the rate of the layer {name}: say --p, or p= in Python")


def _is_linen(kind: type) -> bool:
    return any(base.__module__.startswith("flax.linen") for base in kind.__mro__)


class Layer:
    """A class of layers or one layer, called as a subject is: layer(x, p, training=..., rng=...).

    A layer in PyTorch or NumPy is kept from call to call, one for each rate, so that what it
    remembers shows. In JAX, each call makes a new one, because a traced function must not change
    what was made outside.
    """

    def __init__(self, what: Any, kind: type, framework: Backend, name: str) -> None:
        self.what, self.name, self.backend = what, name, framework
        self.is_class = inspect.isclass(what)
        self.kept: dict[tuple[str, str], Any] = {}
        # A layer of Keras can be made again from its configuration, with another seed.
        keras = any(base.__module__.startswith("keras") for base in kind.__mro__)
        self.config = what.get_config() if keras and not self.is_class else {}
        try:
            self.constructor = (
                Signature.of(kind, framework.source_name, own=True)
                if self.is_class
                else Signature({})
            )
            if self.is_class:
                self.constructor.require("p")
        except CannotCheck as error:
            raise CannotCheck(
                f"{name}: {error}. Check an instance, or a function that makes one"
            ) from None
        try:
            example = self.make(0.5, framework.source(0))
        except Exception as error:
            raise CannotCheck(
                f"making {name}(0.5) raised {type(error).__name__}: {error}. If it needs more"
                " arguments, check an instance"
            ) from error
        self.method = "forward" if not callable(example) else "__call__"
        forward = example.forward if hasattr(example, "forward") else example.__call__
        if any(base.__module__.startswith("keras") for base in kind.__mro__):
            forward = example.call
        try:
            self.signature = Signature.of(forward, framework.source_name)
            self.signature.require("x")
        except CannotCheck as error:
            raise CannotCheck(f"{name}: {error}") from None
        self.generators = self._own_generators(example)
        self.source_is_an_argument = self.signature.has("source")
        self.remade = self.constructor.has("seed") or "seed" in self.config
        self.takes_source = bool(
            self.source_is_an_argument
            or self.generators
            or self.remade
            or (self.is_class and self.constructor.has("source"))
        )
        self.has_evaluation = self.signature.has("training") or self._mode_of(example) is not None

    def make(self, p: Any, source: Any) -> Any:
        """Make a layer, or return the one that there is."""
        if not self.is_class:
            if source is None or "seed" not in self.config:
                return self.what
            return type(self.what).from_config({**self.config, "seed": number_of(source)})
        values = {"p": p}
        if source is not None:
            values["source"] = source
        elif self.constructor.names.get("rngs") in self.constructor.required:
            values["source"] = self.backend.source(0)
        positional, named = self.constructor.arguments(**values)
        return self.what(*positional, **named)

    def layer(self, p: Any, source: Any) -> Any:
        """Return the layer for a rate."""
        if not self.backend.has_state or self.remade:
            return self.make(p, source)
        at = type(p).__name__, repr(p)
        if at not in self.kept:
            self.kept[at] = self.make(p, source)
        return self.kept[at]

    def __call__(self, x: Any, p: Any, *, training: bool, **sources: Any) -> Any:
        source = sources.get(self.backend.source_name)
        layer = self.layer(p, source)
        self.switch(layer, training)
        if source is not None:
            for name in self.generators:
                setattr(layer, name, source)
        call: Callable[..., Any] = getattr(layer, self.method)
        passed = source if self.source_is_an_argument else None
        return self.signature.call(call, x=x, training=training, source=passed)

    def switch(self, layer: Any, training: bool) -> None:
        """Switch a layer to training or evaluation, unless that is an argument of its call."""
        if self.signature.has("training"):
            return
        mode = self._mode_of(layer)
        if mode == "methods":
            (layer.train if training else layer.eval)()
        elif mode is not None:
            # Not setattr: layers of Equinox are frozen.
            object.__setattr__(layer, mode, training if mode in ON_ATTRIBUTES else not training)

    @staticmethod
    def _mode_of(layer: Any) -> str | None:
        if callable(getattr(layer, "train", None)) and callable(getattr(layer, "eval", None)):
            return "methods"
        for name in (*ON_ATTRIBUTES, *OFF_ATTRIBUTES):
            if isinstance(getattr(layer, name, None), bool):
                return name
        return None

    def _own_generators(self, layer: Any) -> list[str]:
        """Return the attributes that hold a generator of the framework."""
        if not self.backend.has_state:
            return []
        kinds: type = type(self.backend.source(0))
        attributes = getattr(layer, "__dict__", {})
        return [name for name, value in attributes.items() if isinstance(value, kinds)]


class LinenLayer(Layer):
    """A layer of Flax Linen: called through `apply`, with its key in a collection."""

    def __init__(self, what: Any, kind: type, framework: Backend, name: str) -> None:
        super().__init__(what, kind, framework, name)
        self.takes_source = self.source_is_an_argument = True
        self.has_evaluation = self.signature.has("training") or "evaluation" in (
            self.constructor.names
        )

    def __call__(self, x: Any, p: Any, *, training: bool, **sources: Any) -> Any:
        key = sources.get("key")
        layer: Any = self.what
        call: dict[str, Any] = {}
        mode = {"training": training}  # for the call or for the constructor, not for both
        if self.signature.has("training"):
            _, call = self.signature.arguments(**mode)
            mode = {}
        if self.is_class:
            _, named = self.constructor.arguments(p=p, **mode)
            layer = self.what(**named)
        rngs = None if key is None else {getattr(layer, "rng_collection", "dropout"): key}
        return layer.apply({}, x, rngs=rngs, **call)


def _copy(layer: Any) -> Any:
    """Return a copy of a user's layer, so that what is done to it stays here, if there can be one.

    What cannot be copied, such as a generator of PyTorch, is left for `left_as_it_was`.
    """
    try:
        return copy.deepcopy(layer)
    except Exception:
        return layer


@contextlib.contextmanager
def left_as_it_was(subject: Subject) -> Iterator[None]:
    """Put back the modes and generators of a layer that could not be copied."""
    parts: list[Any] = []
    if isinstance(subject.function, Layer) and not subject.function.is_class:
        layer: Any = subject.function.what
        parts = list(layer.modules()) if hasattr(layer, "modules") else [layer]
    parts = [part for part in parts if hasattr(part, "__dict__")]
    before = [dict(vars(part)) for part in parts]
    try:
        yield
    finally:
        for part, attributes in zip(parts, before, strict=True):
            vars(part).update(attributes)
