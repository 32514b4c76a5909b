"""The clauses about transformations: jit, vmap and scan in JAX, func and compile in PyTorch.

A program that cannot be compiled deviates, and so does one that jax.vmap cannot take. PyTorch's
func and JAX's forward mode refuse custom gradients, such as those of a torch.autograd.Function or
of jax.custom_vjp, with an error. That is a limit of the framework, so it leaves the clause.
"""

import contextlib
import functools
import logging
from collections.abc import Callable
from typing import Any

import numpy as np

from dropout_contract.budget import Deviation
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
    if run.subject.p is None:
        # A rate that is compiled first: what is kept of that must not come back in plain calls.
        p = round(0.4 + 0.1 * float(run.numbers(1)[0] % 1), 6)
        compiled = jax.jit(lambda x, key: run.subject.call(x, p, key=key))(x[0], keys[0])
        try:
            plain = run.subject.call(x[0], p, key=keys[0])
        except Raised as error:
            raise Deviation(f"a plain call after a compiled one: {error}") from error
        same(plain, compiled, "a plain call after a compiled one", rtol=1e-6)


@clause(FRAGILE)
def vmapped_is_dropout(run: Run) -> None:
    """Under vmap, along any axis, rows have masks of their own, and values are right."""
    _needs_transforms(run)
    (p,) = run.rates(0.5)
    x = run.numbers(ROWS, UNITS)
    if run.backend.name == "torch":
        torch = run.backend.xp
        seed = run.new_seed()

        def on_torch(row: Any) -> Any:
            return run.subject(row, p, seed=seed)

        with refusals_leave():
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
        squares, key = array.reshape(ROWS, 16, -1), keys[0]
        with raised():
            of_one_key = np.asarray(jax.vmap(f, in_axes=(0, None))(squares, key))
        plain = np.stack([np.asarray(f(square, key)) for square in squares])
        same(of_one_key, plain, "vmap over x alone, with one key", rtol=1e-6)
        kept = out != 0
        require(len({row.tobytes() for row in kept}) == ROWS, "rows of a vmap share a mask")
        expected = np.where(kept, 1 / (1 - p), 0)
        same(slopes, expected, "the gradient under vmap", rtol=1e-6)
    same(out, np.where(kept, x / (1 - p), 0), "the values under vmap", rtol=1e-6)
    _vmapped_along_the_last_axis(run)


def _vmapped_along_the_last_axis(run: Run) -> None:
    """With the batch last, in and out, and in PyTorch with a mask for each row."""
    (p,) = run.rates(0.5)
    x = run.numbers(UNITS, ROWS)
    array = run.backend.array(x)
    results: dict[str, Any] = {}
    if run.backend.name == "torch":
        vmap, seed = run.backend.xp.func.vmap, run.new_seed()
        for out_axis in (0, 1):
            source = run.subject.source(seed)

            def on_torch(column: Any, source: dict[str, Any] = source) -> Any:
                return run.subject.call(column, p, **source)

            with refusals_leave():
                results[f"vmap of axis 1 to {out_axis}"] = vmap(
                    on_torch, in_dims=1, out_dims=out_axis, randomness="different"
                )(array).numpy()
    else:
        import jax

        f, _, _, keys = _jax_case(run)
        for out_axis in (0, 1):
            with raised():
                results[f"vmap of axis 1 to {out_axis}"] = np.asarray(
                    jax.vmap(f, in_axes=(1, 0), out_axes=out_axis)(array, keys)
                )
    for name, result in results.items():
        out = result.T if name.endswith("0") else result
        kept = out != 0
        same(out, np.where(kept, x / (1 - p), 0), name, rtol=1e-6)
        require(
            len({column.tobytes() for column in kept.T}) == ROWS, f"{name}: columns share masks"
        )


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
    """Vmap over keys gives the masks of one call per key, as JAX's default generator promises."""
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
    run.needs_replay()


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
    function = run.subject.function
    compiled = torch.compile(lambda x: function(x, p, training=True, **source), backend="eager")
    disabled = logging.root.manager.disable
    logging.disable(max(disabled, logging.WARNING))  # of graph breaks, which are allowed
    try:
        with raised():
            result = compiled(x)
            again = compiled(x)
    finally:
        logging.disable(disabled)
        torch._dynamo.reset()
    same(run.backend.numpy(result), plain, "torch.compile", rtol=1e-6)
    different = (run.backend.numpy(again) != 0) != (run.backend.numpy(result) != 0)
    require(different.any(), "compiled, two calls in a row give the same mask")


@contextlib.contextmanager
def refusals_leave() -> Any:
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
            with refusals_leave():
                result = np.asarray(compute())
        except NotApplicable as reason:
            refused.append(f"{name}: {reason}")
            continue
        same(result, expected, name, rtol=1e-6)
    if len(refused) == len(results):
        raise NotApplicable(refused[0])


@clause(FRAGILE)
def recomputed_with_the_same_mask(run: Run) -> None:
    """Recomputed for the backward pass, as by a checkpoint, the mask is the same."""
    _needs_transforms(run)
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    x = run.backend.array(run.numbers(UNITS))
    if run.backend.name == "torch":
        from torch.utils.checkpoint import checkpoint

        def forward(x: Any) -> Any:
            # A generator is made anew here, and the state of the global one is put back. Not
            # subject.call: an exception of PyTorch's own ends the recomputation early.
            source = run.subject.source(seed) if run.subject.takes_source else {}
            return run.subject.function(x, p, training=True, **source)

        def recomputed(x: Any, reentrant: bool = False) -> Any:
            run.backend.seed_globally(seed)
            return checkpoint(forward, x, use_reentrant=reentrant)
    else:
        import jax

        recomputed = jax.checkpoint(lambda x: run.subject(x, p, seed=seed))
    ones = run.backend.array(np.ones(UNITS))
    with raised():
        gradients = [run.backend.gradient(recomputed, x, ones) for _ in range(2)]
        if run.backend.name == "torch":
            reentrant = functools.partial(recomputed, reentrant=True)
            gradients.append(run.backend.gradient(reentrant, x, ones))
            with run.backend.xp.no_grad():  # as in the first pass of a reentrant checkpoint
                gradients.append(run.keep((UNITS,), p, seed=seed) / (1 - p))
    expected = run.keep((UNITS,), p, seed=seed) / (1 - p)
    for gradient in gradients:
        same(gradient, expected, "the gradient through a checkpoint", rtol=1e-6)
