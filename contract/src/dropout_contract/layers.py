"""Layers as subjects: classes and instances of PyTorch, Flax, Equinox, Keras, and plain ones."""

import contextlib
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from dropout_contract.backends import Backend, backend
from dropout_contract.signatures import CannotCheck, Signature
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
    layer = maker(what, kind, backend(framework), name)
    return Subject(
        name,
        framework,
        layer,
        kind=f"a layer, {made_with}",
        takes_source=layer.takes_source,
        must_refuse=layer.source_is_an_argument,
        seeded_by_number=layer.constructor.has("seed") and is_class,
        has_evaluation=layer.has_evaluation,
        p=None if is_class else p,
        argument=layer.signature.names.get("source") or layer.signature.names.get("rngs"),
    )


def _rate(layer: Any, name: str, given: float | None) -> float:
    for attribute in RATE_ATTRIBUTES:
        value = getattr(layer, attribute, None)
        if isinstance(value, int | float | np.number) and not isinstance(value, bool):
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
        self.takes_source = bool(
            self.source_is_an_argument
            or self.generators
            or (self.is_class and self.constructor.has("source"))
        )
        self.has_evaluation = self.signature.has("training") or self._mode_of(example) is not None

    def make(self, p: Any, source: Any) -> Any:
        """Make a layer, or copy the one that there is."""
        if not self.is_class:
            return _copy(self.what)
        values = {"p": p}
        if source is not None:
            values["source"] = source
        elif self.constructor.names.get("rngs") in self.constructor.required:
            values["source"] = self.backend.source(0)
        positional, named = self.constructor.arguments(**values)
        return self.what(*positional, **named)

    def layer(self, p: Any, source: Any) -> Any:
        """Return the layer for a rate."""
        if not self.backend.has_state or self.constructor.has("seed"):
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
        return [name for name, value in vars(layer).items() if isinstance(value, kinds)]


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
    package = {base.__module__.split(".")[0] for base in type(layer).__mro__}
    if "flax" in package and not _is_linen(type(layer)):
        from flax import nnx

        return nnx.clone(layer)
    return layer


@contextlib.contextmanager
def mode_restored(subject: Subject) -> Iterator[None]:
    """Leave a layer of the user in the mode in which it was found."""
    layer: Any = subject.function.what if isinstance(subject.function, Layer) else None
    mode = getattr(layer, "training", None) if not inspect.isclass(layer) else None
    try:
        yield
    finally:
        if isinstance(mode, bool) and hasattr(layer, "train"):
            layer.train(mode)
