"""Whatever is put to the contract: a function dropout(x, p, *, training, <source>)."""

import contextlib
import dataclasses
import importlib
import importlib.util
import os
from collections.abc import Callable
from typing import Any

from tests.contract.backends import Backend, backend


@dataclasses.dataclass(frozen=True)
class Subject:
    """A dropout, and how to hand it randomness.

    Attributes:
        name: for test ids and tables.
        framework: torch, jax or numpy.
        function: called as function(x, p, training=..., generator=...), or key=, or rng=.
        takes_source: False for what draws from the global generator, and has no such argument.
        seeded_by_number: True for what takes a whole number, which our wrapper draws for it.
    """

    name: str
    framework: str
    function: Callable[..., Any]
    takes_source: bool = True
    seeded_by_number: bool = False

    @property
    def backend(self) -> Backend:
        return backend(self.framework)

    def source(self, seed: int) -> dict[str, Any]:
        """Return the keyword arguments that carry the randomness of a seed."""
        its = self.backend
        if self.takes_source:
            return {its.source_name: its.source(seed)}
        its.seed_globally(seed)
        return {}

    def __call__(self, x: Any, p: Any, *, training: bool = True, seed: int = 0) -> Any:
        return self.function(x, p, training=training, **self.source(seed))


def from_path(path: str, framework: str) -> Subject:
    """Import the subject that a user names as package.module:function.

    Raises:
        ValueError: there is no such thing to be found.
    """
    module, _, name = path.partition(":")
    if not name:
        raise ValueError(f"{path!r} is not of the form package.module:function")
    try:
        function = importlib.import_module(module)
        for part in name.split("."):
            function = getattr(function, part)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"cannot import {path!r}: {error}") from error
    return Subject(path, framework, function)


def ours() -> list[Subject]:
    """The three implementations of this project."""
    return [from_path(f"impls.{name}.dropout:dropout", name) for name in ("torch", "jax", "numpy")]


def f_dropout(x: Any, p: float, *, training: bool) -> Any:
    import torch

    return torch.nn.functional.dropout(x, p, training)


def torch_layer(x: Any, p: float, *, training: bool) -> Any:
    import torch

    return torch.nn.Dropout(p).train(training)(x)


def nnx_layer(x: Any, p: float, *, training: bool, key: Any = None) -> Any:
    from flax import nnx

    return nnx.Dropout(p, deterministic=not training)(x, rngs=key)


def linen_layer(x: Any, p: float, *, training: bool, key: Any = None) -> Any:
    from flax import linen

    rngs = None if key is None else {"dropout": key}
    return linen.Dropout(p, deterministic=not training).apply({}, x, rngs=rngs)


def equinox_layer(x: Any, p: float, *, training: bool, key: Any = None) -> Any:
    import equinox

    return equinox.nn.Dropout(p, inference=not training)(x, key=key)


def haiku_function(x: Any, p: float, *, training: bool, key: Any = None) -> Any:
    import haiku

    return haiku.dropout(key, p, x) if training else x


def keras_layer(x: Any, p: float, *, training: bool, generator: Any = None, key: Any = None) -> Any:
    """Keras seeds its layers with whole numbers: draw one from the source."""
    import keras

    seed = None
    if generator is not None:
        import torch

        seed = int(torch.randint(2**31, (), generator=generator))
    elif key is not None:
        import jax

        seed = int(jax.random.bits(key, (), "uint32") >> 1)
    dtype = str(x.dtype).removeprefix("torch.")
    return keras.layers.Dropout(p, seed=seed, dtype=dtype)(x, training=training)


def keras_subject(framework: str) -> Subject:
    """Keras on torch or JAX; a process has one of the two, named before Keras is imported."""
    os.environ["KERAS_BACKEND"] = framework
    return Subject(
        f"keras.layers.Dropout on {framework}", framework, keras_layer, seeded_by_number=True
    )


def builtins() -> list[Subject]:
    """The layers that people use; those of the optional extra `peers` where it is installed."""
    subjects = [
        Subject("torch.nn.functional.dropout", "torch", f_dropout, takes_source=False),
        Subject("torch.nn.Dropout", "torch", torch_layer, takes_source=False),
        Subject("flax.nnx.Dropout", "jax", nnx_layer),
        Subject("flax.linen.Dropout", "jax", linen_layer),
    ]
    for package, name, function in (
        ("equinox", "equinox.nn.Dropout", equinox_layer),
        ("haiku", "haiku.dropout", haiku_function),
    ):
        with contextlib.suppress(ImportError):
            if importlib.util.find_spec(package):
                subjects.append(Subject(name, "jax", function))
    return subjects
