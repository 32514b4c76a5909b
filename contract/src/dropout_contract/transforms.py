"""The clauses about transformations: jit, vmap and scan in JAX, func and compile in PyTorch.

A program that cannot be compiled deviates, and so does one that jax.vmap cannot take. PyTorch's
func and JAX's forward mode refuse custom gradients, such as those of a torch.autograd.Function or
of jax.custom_vjp, with an error. That is a limit of the framework, so it leaves the clause.
"""

import contextlib
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from dropout_contract.run import (
    CONVENTION,
    FRAGILE,
    NotApplicable,
    Run,
    clause,
    require,
    same,
)
from dropout_contract.subjects import Raised, raised

ROWS, UNITS = 4, 256


@clause(FRAGILE)
def compiled_gives_the_same(run: Run) -> None:
    """Jit and scan (JAX) and torch.compile give what plain calls give, gradients included."""
    _needs_transforms(run)
    if run.backend.name == "torch":
        _compiled_torch(run)
        return
    import jax

    f, gradient, x, keys = _jax_case(run)
    plain = np.stack([np.asarray(f(*pair)) for pair in zip(x, keys, strict=True)])
    slopes = np.stack([np.asarray(gradient(*pair)) for pair in zip(x, keys, strict=True)])
    results = {
        "jit": lambda: np.stack([jax.jit(f)(*pair) for pair in zip(x, keys, strict=True)]),
        "scan": lambda: jax.lax.scan(lambda c, pair: (c, f(*pair)), 0, (x, keys))[1],
    }
    for name, compute in results.items():
        with raised():
            result = np.asarray(compute())
        same(result, plain, name, rtol=1e-6)
    same(jax.jit(gradient)(x[0], keys[0]), slopes[0], "jit of grad", rtol=1e-6)


@clause(FRAGILE)
def vmapped_is_dropout(run: Run) -> None:
    """Under vmap, rows have masks of their own (JAX) or one (PyTorch), and the right values."""
    _needs_transforms(run)
    (p,) = run.rates(0.5)
    x = run.numbers(ROWS, UNITS)
    if run.backend.name == "torch":
        torch = run.backend.xp
        seed = run.new_seed()

        def on_torch(row: Any) -> Any:
            return run.subject(row, p, seed=seed)

        with _refusals_leave():
            out = torch.func.vmap(on_torch, randomness="same")(run.backend.array(x)).numpy()
        kept = out != 0
        same(kept, np.broadcast_to(kept[0], kept.shape), "the masks of a vmap that shares them")
    else:
        import jax

        f, gradient, _, keys = _jax_case(run)
        array = run.backend.array(x)
        with raised():
            out = np.asarray(jax.vmap(f)(array, keys))
            slopes = np.asarray(jax.vmap(gradient)(array, keys))
        kept = out != 0
        require(len({row.tobytes() for row in kept}) == ROWS, "rows of a vmap share a mask")
        expected = np.where(kept, 1 / (1 - p), 0)
        same(slopes, expected, "the gradient under vmap", rtol=1e-6)
    same(out, np.where(kept, x / (1 - p), 0), "the values under vmap", rtol=1e-6)


@clause(FRAGILE)
def every_derivative_agrees(run: Run) -> None:
    """Forward mode and the functional gradients give what the usual gradient gives."""
    _needs_transforms(run)
    (p,) = run.rates(0.5)
    seed = run.new_seed()

    def f(x: Any) -> Any:
        return run.subject(x, p, seed=seed)

    x = run.backend.array(run.numbers(UNITS))
    ones = run.backend.array(np.ones(UNITS))
    gradient = run.backend.gradient(f, x, ones)
    if run.backend.name == "torch":
        func = run.backend.xp.func
        results = {
            "torch.func.grad": lambda: func.grad(lambda x: f(x).sum())(x),
            "torch.func.vjp": lambda: func.vjp(f, x)[1](ones)[0],
            "torch.func.jvp": lambda: func.jvp(f, (x,), (ones,))[1],
        }
    else:
        import jax

        results = {
            "jvp": lambda: jax.jvp(f, (x,), (ones,))[1],
            "linearize": lambda: jax.linearize(f, x)[1](ones),
            "grad of checkpoint": lambda: jax.grad(lambda x: jax.checkpoint(f)(x).sum())(x),
        }
    _compare(results, gradient)


@clause(CONVENTION)
def vmapped_gives_the_same(run: Run) -> None:
    """Vmap over keys gives the very masks that plain calls give, as Threefry's keys allow."""
    _needs_transforms(run)
    if run.backend.name != "jax":
        raise NotApplicable("only JAX has keys")
    import jax

    f, _, x, keys = _jax_case(run)
    plain = np.stack([np.asarray(f(*pair)) for pair in zip(x, keys, strict=True)])
    _compare(
        {
            "vmap": lambda: jax.vmap(f)(x, keys),
            "jit of vmap": lambda: jax.jit(jax.vmap(f))(x, keys),
        },
        plain,
    )


def _needs_transforms(run: Run) -> None:
    if run.backend.name == "numpy":
        raise NotApplicable("NumPy transforms nothing")
    if run.subject.seeded_by_number:
        raise NotApplicable("it is seeded by a whole number, which cannot be traced")


def _jax_case(run: Run) -> tuple[Callable[..., Any], Callable[..., Any], Any, Any]:
    import jax

    (p,) = run.rates(0.5)

    def f(x: Any, key: Any) -> Any:
        return run.subject.call(x, p, key=key)

    gradient = jax.grad(lambda x, key: f(x, key).sum())
    x = run.backend.array(run.numbers(ROWS, UNITS))
    return f, gradient, x, jax.random.split(run.backend.source(run.new_seed()), ROWS)


def _compiled_torch(run: Run) -> None:
    torch = run.backend.xp
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    x = run.backend.array(run.numbers(UNITS))
    plain = run(x.numpy(), p, seed=seed)
    # Traced, but run without a code generator, because that needs a C++ compiler.
    source = run.subject.source(seed)
    compiled = torch.compile(lambda x: run.subject.call(x, p, **source), backend="eager")
    logging.disable(logging.WARNING)  # of graph breaks, which are allowed
    try:
        with raised():
            result = compiled(x)
            again = compiled(x)
    finally:
        logging.disable(logging.NOTSET)
        torch._dynamo.reset()
    same(run.backend.numpy(result), plain, "torch.compile", rtol=1e-6)
    different = (run.backend.numpy(again) != 0) != (run.backend.numpy(result) != 0)
    require(different.any(), "compiled, two calls in a row give the same mask")


@contextlib.contextmanager
def _refusals_leave() -> Any:
    """Leave the clause if the framework refuses to transform the subject."""
    try:
        yield
    except Raised as error:
        raise NotApplicable(f"it cannot be transformed: {error}") from error
    except (AssertionError, NotApplicable):
        raise
    except Exception as error:
        text = " ".join(str(error).split())[:160]
        raise NotApplicable(f"it cannot be transformed: {type(error).__name__}: {text}") from error


def _compare(results: dict[str, Callable[[], Any]], expected: np.ndarray) -> None:
    refused: list[str] = []
    for name, compute in results.items():
        try:
            with _refusals_leave():
                result = np.asarray(compute())
        except NotApplicable as reason:
            refused.append(f"{name}: {reason}")
            continue
        same(result, expected, name, rtol=1e-6)
    if len(refused) == len(results):
        raise NotApplicable(refused[0])
