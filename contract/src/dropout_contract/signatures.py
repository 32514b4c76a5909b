"""Which argument of a function is what: recognised by the names that people give them."""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any


class CannotCheck(Exception):  # noqa: N818 - the user's mistake, with one clear line
    """A subject cannot be put to the contract. The message says what to do."""


# Names of the rate, of the rate of keeping, of the mode and its opposite, of the source of
# randomness, and of the input.
ROLES = {
    "p": (
        "p", "rate", "prob", "probability", "dropout", "p_drop", "drop_p", "p_dropout", "dropout_p",
        "drop_prob", "drop_rate", "dropout_rate", "dropout_prob",
    ),
    "keep_p": ("keep_prob", "keep_rate", "keep_p", "p_keep", "keep_probability"),
    "training": ("training", "train", "is_training", "is_train", "train_mode"),
    "evaluation": ("deterministic", "inference", "is_inference"),
    "source": ("generator", "gen", "key", "rng", "rng_key", "prng_key", "prng", "random_state"),
    "rngs": ("rngs",),  # flax.nnx.Rngs
    "seed": ("seed",),
    "x": ("x", "X", "input", "inputs", "h", "a", "tensor", "array", "activations", "values"),
}  # fmt: skip
ROLE_OF = {name: role for role, names in ROLES.items() for name in names}


@dataclasses.dataclass(frozen=True)
class Signature:
    """The arguments of a function, by role."""

    names: dict[str, str]
    positional_only: tuple[str, ...] = ()
    required: frozenset[str] = frozenset()

    @classmethod
    def of(
        cls, function: Callable[..., Any], source_name: str, *, own: bool = False
    ) -> "Signature":
        """Read a signature.

        Args:
            function: anything that can be called, or a class.
            source_name: what the framework calls a source of randomness.
            own: whether it is the constructor of a layer, which has no input.

        Raises:
            CannotCheck: an argument without a default has a name that says nothing.
        """
        try:
            # Flax's classes have a metaclass, which hides the arguments of the constructor.
            looked_at = function.__init__ if own else function
            parameters = list(inspect.signature(looked_at).parameters.values())[own:]
        except (ValueError, TypeError):
            raise CannotCheck("its arguments cannot be inspected") from None
        names: dict[str, str] = {}
        unknown: list[str] = []
        several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
        for parameter in parameters:
            if parameter.kind in several:
                continue
            role = ROLE_OF.get(parameter.name)
            if role and role not in names and not (own and role == "x"):
                names[role] = parameter.name
            elif parameter.default is inspect.Parameter.empty:
                unknown.append(parameter.name)
        # An input or a rate of any other name is recognised by its place.
        for role in () if own else ("x",):
            if role not in names and unknown:
                names[role] = unknown.pop(0)
        if "p" not in names and "keep_p" not in names and own and unknown:
            names["p"] = unknown.pop(0)
        if unknown:
            raise CannotCheck(f"cannot tell what its argument {unknown[0]!r} is")
        if any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters):
            if not {"training", "evaluation"} & set(names) and not own:
                names["training"] = "training"
            if not {"source", "rngs", "seed"} & set(names) and not own:
                names["source"] = source_name
        first = [p.name for p in parameters if p.kind is inspect.Parameter.POSITIONAL_ONLY]
        required = {p.name for p in parameters if p.default is inspect.Parameter.empty}
        return cls(names, tuple(first), frozenset(required))

    def has(self, role: str) -> bool:
        """Return whether there is an argument for the input, rate, mode, source or seed."""
        wider = {
            "p": ("p", "keep_p"),
            "training": ("training", "evaluation"),
            "source": ("source", "rngs", "seed"),
        }
        return any(one in self.names for one in wider.get(role, (role,)))

    def require(self, *roles: str) -> None:
        """Raise CannotCheck unless there is an argument for each role."""
        words = {"x": "the input", "p": "the rate"}
        for role in roles:
            if not self.has(role):
                raise CannotCheck(f"cannot tell which of its arguments is {words[role]}")

    def arguments(self, **values: Any) -> tuple[list[Any], dict[str, Any]]:
        """Return positional and keyword arguments for the roles x, p, training and source.

        A source of None is left out, and so is every role that the function does not have.
        """
        given: dict[str, Any] = {}
        for role, name in self.names.items():
            if role == "keep_p" and "p" in values:
                p = values["p"]
                given[name] = 1 - p if isinstance(p, int | float) else p
            elif role == "evaluation" and "training" in values:
                given[name] = not values["training"]
            elif role in ("rngs", "seed") and values.get("source") is not None:
                given[name] = (rngs_of if role == "rngs" else number_of)(values["source"])
            elif role in values and not (role == "source" and values[role] is None):
                given[name] = values[role]
        return [given.pop(name) for name in self.positional_only if name in given], given

    def call(self, function: Callable[..., Any], **values: Any) -> Any:
        """Call the function with the values of the roles."""
        positional, named = self.arguments(**values)
        return function(*positional, **named)


def rngs_of(key: Any) -> Any:
    """Wrap a key of JAX as Flax's nnx modules take it."""
    from flax import nnx

    return nnx.Rngs(key)


def number_of(source: Any) -> int:
    """Draw a whole number below 2**31 from a generator, a key or an rng."""
    package = type(source).__module__.split(".")[0]
    if package == "torch":
        import torch

        return int(torch.randint(2**31, (), generator=source))
    if package == "numpy" or hasattr(source, "integers"):
        return int(source.integers(2**31))
    import jax

    return int(jax.random.bits(source, (), "uint32") >> 1)
