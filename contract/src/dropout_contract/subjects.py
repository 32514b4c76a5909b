"""What is put to the contract, in one form: a function (x, p, *, training, generator=None).

In JAX the last argument is `key`, in NumPy `rng`. `subject` brings functions and layers as people
write them into this form. For anything else, a user writes such a function.
"""

import contextlib
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dropout_contract.backends import FRAMEWORKS, Backend, backend, installed
from dropout_contract.budget import Deviation
from dropout_contract.signatures import CannotCheck, Signature

ADAPTER = """write an adapter, a function of this form, and check that instead:
  def my_dropout(x, p, *, training, {source}=None): return ..."""


class Raised(Deviation):
    """The subject raised an exception where it should have returned something."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """A dropout, and what it can do.

    Attributes:
        name: for reports.
        framework: torch, jax or numpy.
        function: called as function(x, p, training=..., generator=...), or key=, or rng=.
        kind: what it was made from, in words.
        takes_source: False for what draws from the global generator only.
        must_refuse: whether the user passes the source, so that a missing one has to be an error.
        seeded_by_number: it takes a whole number, which is drawn from the source for it.
        has_evaluation: whether it can be switched off.
        p: the rate of a layer that is made already. None if each call takes a rate.
        argument: what it calls its source, if that is not the usual name.
        origin: what the user gave, for clauses that look at it from elsewhere.
    """

    name: str
    framework: str
    function: Callable[..., Any]
    kind: str = "function"
    takes_source: bool = True
    must_refuse: bool = True
    seeded_by_number: bool = False
    has_evaluation: bool = True
    p: float | None = None
    argument: str | None = None
    origin: Any = None

    @property
    def source_argument(self) -> str:
        """The name of the argument that takes the source."""
        return self.argument or self.backend.source_name

    @property
    def backend(self) -> Backend:
        """The framework."""
        return backend(self.framework)

    def source(self, seed: int) -> dict[str, Any]:
        """Return the keyword arguments that carry the randomness of a seed."""
        if self.takes_source:
            return {self.backend.source_name: self.backend.source(seed)}
        self.backend.seed_globally(seed)
        return {}

    def source_of_bits(self, number: int) -> dict[str, Any]:
        """Return the same for a seed or key of exactly these bits."""
        if self.takes_source:
            return {self.backend.source_name: self.backend.source_of_bits(number)}
        return self.source(number)

    @functools.cached_property
    def replays(self) -> bool:
        """Whether the same seed gives the same mask again.

        A function that is passed its source has to. A layer may have randomness of its own that
        nobody can set from outside. It is tried.
        """
        if self.must_refuse:
            return True
        x = self.backend.array(np.ones(4096, np.float32))
        p = 0.5 if self.p is None else self.p
        try:
            masks = [self.backend.numpy(self(x, p, seed=seed)) != 0 for seed in (1, 2, 1)]
        except Deviation:
            return True  # the clauses will say what happens
        return bool((masks[0] == masks[2]).all())

    def call(self, x: Any, p: Any, *, training: bool = True, **source: Any) -> Any:
        """Call it. What it raises becomes a deviation."""
        with raised():
            return self.function(x, p, training=training, **source)

    def __call__(self, x: Any, p: Any, *, training: bool = True, seed: int = 0) -> Any:
        """Call it with the randomness of a seed."""
        return self.call(x, p, training=training, **self.source(seed))

    def probe(self) -> None:
        """Call it once, on something harmless.

        Raises:
            CannotCheck: it cannot be called like this, or does not return such an array.
        """
        x = self.backend.array([1.0, -2.0, 3.0, -4.0])
        try:
            out = self(x, self.p if self.p is not None else 0.5)
        except Raised as error:
            raise CannotCheck(
                f"{self.name} was called with an array of {self.framework}, and"
                f" {str(error).rstrip('.')}."
                + (
                    " Is the framework right? If not, say --framework"
                    if isinstance(error.__cause__, TypeError | AttributeError)
                    else " If it needs more than an array, a rate and a source, write an adapter"
                )
            ) from error
        if not self.backend.is_array(out):
            if inspect.iscoroutine(out):
                out.close()  # without a warning
            raise CannotCheck(
                f"{self.name} was called with an array of {self.framework}, and returned"
                f" {type(out).__module__}.{type(out).__name__} instead of an array."
                " Is the framework right? If not, say --framework. If it is, write an adapter that"
                " returns the array alone"
            )


@contextlib.contextmanager
def raised() -> Iterator[None]:
    """Turn an exception of the subject into a deviation, with a message of one line."""
    try:
        yield
    except Deviation:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # sys.exit(0) or pytest.skip() in a subject is no verdict
        try:
            text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", str(error)).split())  # without colours
        except Exception:
            text = "(its message cannot be read)"
        text = text if len(text) <= 160 else text[:157] + "..."
        raise Raised(f"it raised {type(error).__name__}: {text}") from error


def subject(
    what: Any, framework: str | None = None, *, p: float | None = None, name: str | None = None
) -> Subject:
    """Make a subject from a function, a class of layers, a layer, or a path that names one.

    Args:
        what: a function, a class or an instance of torch.nn.Module, flax.nnx.Module, a Linen,
            Equinox or Keras layer, any other class, a path such as package.module:name or
            file.py:name, or a Subject.
        framework: torch, jax or numpy. Guessed if it is None.
        p: the rate of an instance that has no attribute p or rate.
        name: for reports.

    Raises:
        CannotCheck: it cannot be called. The message says what to do.
    """
    from dropout_contract.layers import is_layer, layer_subject

    if p is not None and (isinstance(p, bool) or not isinstance(p, int | float | np.number)):
        raise CannotCheck(f"the rate p of a layer must be a number, got {p!r}")
    if isinstance(what, Subject):
        return what
    if isinstance(what, str):
        name, what = name or what, load(what)
    name = str(name or getattr(what, "__name__", type(what).__name__))
    if not callable(what) and not hasattr(what, "forward"):
        raise CannotCheck(f"{name} is not a function or a layer")
    framework = framework or guess(what, name)
    if framework not in FRAMEWORKS:
        raise CannotCheck(f"the framework must be torch, jax or numpy, not {framework!r}")
    if not installed(framework):
        raise CannotCheck(f"{framework} is not installed here: pip install {framework}")
    if p is not None and not 0 <= p <= 1:
        raise CannotCheck(f"the rate p of a layer must be in [0, 1], got {p}")
    if inspect.isclass(what) or is_layer(what):
        return layer_subject(what, framework, name, p)
    if p is not None:
        raise CannotCheck(f"{name} is a function, which gets its rates from the contract: no p")
    return function_subject(what, framework, name)


def function_subject(function: Callable[..., Any], framework: str, name: str) -> Subject:
    """Make a subject from a function whose arguments have usual names, in any order."""
    source_name = backend(framework).source_name
    try:
        signature = Signature.of(function, source_name)
        signature.require("x", "p")
    except CannotCheck as error:
        raise CannotCheck(f"{name}: {error}; {ADAPTER.format(source=source_name)}") from None

    def call(x: Any, p: Any, *, training: bool, **sources: Any) -> Any:
        source = sources.get(source_name)
        return signature.call(function, x=x, p=p, training=training, source=source)

    return Subject(
        name,
        framework,
        call,
        takes_source=signature.has("source"),
        must_refuse=signature.has("source") and not signature.has("seed"),
        seeded_by_number=signature.has("seed"),
        has_evaluation=signature.has("training"),
        argument=signature.names.get("source"),
        origin=function,
    )


def load(path: str) -> Any:
    """Import what a path names: package.module:name, or file.py:name.

    Raises:
        CannotCheck: there is no such thing.
    """
    module_name, _, name = path.rpartition(":")
    if not module_name or not name:
        raise CannotCheck(f"{path!r} is not of the form package.module:name or file.py:name")
    try:
        if module_name.endswith(".py"):
            found: Any = _from_file(Path(module_name))
        else:
            if "" not in sys.path:
                sys.path.insert(0, "")  # the current folder, as for `python -m`
            found = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise CannotCheck(
            f"cannot import {module_name!r}: {error}. Is its package installed, or its folder"
            " the current one?"
        ) from error
    except AttributeError as error:
        raise CannotCheck(f"cannot find {path!r}: {error}") from error
    except CannotCheck:
        raise
    except (Exception, SystemExit) as error:
        raise CannotCheck(
            f"importing {module_name!r} raised {type(error).__name__}: {error}"
        ) from error
    return found


def _from_file(file: Path) -> Any:
    if not file.is_file():
        raise CannotCheck(f"there is no file {str(file)!r}")
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None:
        raise CannotCheck(f"{str(file)!r} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault(file.stem, module)
    if str(file.parent.resolve()) not in sys.path:
        sys.path.insert(0, str(file.parent.resolve()))
    spec.loader.exec_module(module)
    return module


PACKAGES = {
    "torch": "torch", "flax": "jax", "jax": "jax", "jaxlib": "jax", "equinox": "jax",
    "haiku": "jax", "numpy": "numpy",
}  # fmt: skip
ARGUMENTS = {"generator": "torch", "key": "jax", "prng_key": "jax", "rng_key": "jax"}


def guess(what: Any, name: str) -> str:
    """Return the framework of a function or layer: from its type, its arguments, or its code.

    Raises:
        CannotCheck: they name none, or more than one.
    """
    kind = what if inspect.isclass(what) else type(what)
    for base in kind.__mro__:
        package = base.__module__.split(".")[0]
        if package == "keras":
            return importlib.import_module("keras").backend.backend()
        if package in PACKAGES:
            return PACKAGES[package]
    function = _innermost(what)
    members = [function] if inspect.isfunction(function) else vars(kind).values()
    functions = [member for member in members if inspect.isfunction(member)]
    by_argument = {
        ARGUMENTS[argument]
        for function in functions
        for argument in inspect.signature(function).parameters
        if argument in ARGUMENTS
    }
    by_code = {
        PACKAGES[package]
        for function in functions
        for used in function.__code__.co_names
        if (package := _package(function.__globals__.get(used))) in PACKAGES
    }
    by_rng = {"numpy" for function in functions if "rng" in inspect.signature(function).parameters}
    for found in (by_argument, by_code - {"numpy"}, by_code, by_rng):
        if len(found) == 1:
            return found.pop()
    raise CannotCheck(f"cannot tell the framework of {name}: say --framework torch, jax or numpy")


def _innermost(function: Any) -> Any:
    if inspect.ismethod(function):
        function = function.__func__
    while hasattr(function, "func") or hasattr(function, "__wrapped__"):
        function = function.func if hasattr(function, "func") else function.__wrapped__
    return function


def _package(value: Any) -> str:
    module = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", "")
    return (module or "").split(".")[0]
