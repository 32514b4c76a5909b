"""The clauses about gradients, in PyTorch and JAX."""

from typing import Any

import numpy as np

from dropout_contract.budget import Deviation
from dropout_contract.exact import ULP
from dropout_contract.run import FRAGILE, WRONG, NotApplicable, Run, clause, require, same
from dropout_contract.subjects import Raised
from dropout_contract.transforms import refusals_leave

GRADIENTS = 5000  # units where several calls or passes are made: enough for a kernel of its own


@clause(WRONG)
def gradient_is_that_of_the_mask(run: Run) -> None:
    """The gradient is the incoming one / (1 - p) where a unit was kept, else 0, also at x = 0."""
    run.needs_gradient()
    for p in run.rates(0.2, 0.5, 0.9):
        for zero in (False, True):
            _gradient(run, p, "float32", lambda x, zero=zero: 0 * x if zero else x)


@clause(WRONG)
def gradient_where_it_is_off(run: Run) -> None:
    """Where dropout is off, in evaluation and at p = 0, the gradient passes unchanged."""
    run.needs_gradient()
    cases: list[tuple[float, bool]] = []
    if run.subject.has_evaluation:
        cases += [(p, False) for p in run.rates(0.5)]
    if run.subject.p in (None, 0):
        cases += [(0.0, True)]
    for p, training in cases:
        weights = run.numbers(8)
        x, given = run.backend.array(run.numbers(8)), run.backend.array(weights)
        gradient = run.gradient(x, given, p, training=training, seed=run.new_seed())
        same(gradient, weights, f"the gradient at p = {p:g}, training = {training}")


@clause(FRAGILE)
def gradient_in_every_dtype(run: Run) -> None:
    """In float16, bfloat16 and float64, too, the gradient is that of the forward pass's mask."""
    run.needs_gradient()
    (p,) = run.rates(0.5)
    for dtype in run.backend.dtypes:
        if dtype != "float32":
            _gradient(run, p, dtype, lambda x: x)


@clause(FRAGILE)
def infinite_gradient_stays_out_of_dropped_units(run: Run) -> None:
    """A dropped unit has gradient 0 even if the incoming gradient, or x, is infinite."""
    run.needs_gradient()
    (p,) = run.rates(0.5)
    _gradient(run, p, "float32", lambda x: np.full_like(x, np.inf))
    _gradient(run, p, "float32", lambda x: x, infinite=True)


@clause(FRAGILE)
def zero_gradient_at_one(run: Run) -> None:
    """At p = 1 there is a gradient, and it is 0, even at an infinite x."""
    run.needs_rate(1)
    run.needs_gradient()
    x = run.backend.array(np.array([1, -2, np.inf], np.float32))
    gradient = run.gradient(x, run.backend.array(run.numbers(3)), 1.0, seed=run.new_seed())
    same(gradient, np.zeros(3), "the gradient at p = 1")


def _gradient(run: Run, p: float, dtype: str, inputs: Any, *, infinite: bool = False) -> None:
    """Compare a gradient with the mask of a forward pass from the same seed."""
    shape, seed = (20, 15), run.new_seed()
    weights = run.numbers(*shape)
    if infinite:
        weights[:, 0] = np.inf
    weights = run.exactly(weights, dtype)
    kept = run.keep(shape, p, seed=seed, dtype=dtype)
    with run.backend.precision(dtype):
        x = run.backend.array(inputs(run.numbers(*shape)), dtype)
        gradient = run.gradient(x, run.backend.array(weights, dtype), p, seed=seed)
    with np.errstate(all="ignore"):
        expected = np.where(kept, weights.astype(np.float64) / (1 - p), 0)
    same(gradient, expected, f"the gradient in {dtype} at p = {p:g}", rtol=3 * ULP[dtype])


@clause(WRONG)
def calls_keep_their_own_masks(run: Run) -> None:
    """Two forward passes, then the gradient: each has its own mask, also in h + dropout(h)."""
    run.needs_gradient()
    (p,) = run.rates(0.5)
    x, weights = run.numbers(GRADIENTS), run.numbers(GRADIENTS)
    seeds = [run.new_seed() for _ in range(3)]
    masks = [run.keep((GRADIENTS,), p, seed=seed) / (1 - p) for seed in seeds]
    array, given = run.backend.array(x), run.backend.array(weights)

    def added(h: Any) -> Any:
        first, second, third = (run.subject(h, p, seed=seed) for seed in seeds)
        return first + 2 * second + 4 * third

    gradient = run.backend.gradient(added, array, given)
    expected = weights * (masks[0] + 2 * masks[1] + 4 * masks[2])
    same(gradient, expected, "the gradient through three calls", rtol=1e-6)

    def residual(h: Any) -> Any:
        h = 3 * h  # not a leaf, so that it may be overwritten
        return (h + run.subject(h, p, seed=seeds[0])) * h

    values = (3 * x + 3 * x * masks[0]) * 3 * x
    same(run.backend.numpy(residual(array)), values, "(h + dropout(h)) h", rtol=1e-5)
    gradient = run.backend.gradient(residual, array, given)
    same(gradient, weights * 18 * x * (1 + masks[0]), "its gradient", rtol=1e-5)


@clause(FRAGILE)
def gradient_again(run: Run) -> None:
    """In PyTorch, a second backward pass gives the same, and the incoming gradient is unchanged."""
    torch = _torch(run)
    (p,) = run.rates(0.5)
    seed, weights = run.new_seed(), run.numbers(GRADIENTS)
    expected = np.where(run.keep((GRADIENTS,), p, seed=seed), weights / (1 - p), 0)
    x = run.backend.array(run.numbers(GRADIENTS)).requires_grad_()
    given = run.backend.array(weights)
    out = run.subject(x, p, seed=seed)
    for number in ("first", "second", "third"):
        try:
            (gradient,) = torch.autograd.grad(out, x, given, retain_graph=True)
        except RuntimeError as error:
            require(
                False, f"the {number} backward pass raised {' '.join(str(error).split())[:120]}"
            )
        same(gradient.numpy(), expected, f"the gradient of the {number} backward pass", rtol=1e-6)
        same(given.numpy(), weights, f"the incoming gradient after the {number} backward pass")


@clause(FRAGILE)
def gradient_in_any_layout(run: Run) -> None:
    """In PyTorch, x and the incoming gradient may lie differently in memory, or be expanded."""
    torch = _torch(run)
    (p,) = run.rates(0.5)
    shape = (4, 3, 5, 6)
    weights = run.numbers(*shape)
    plain = run.backend.array(weights)
    layouts = {
        "in rows": lambda t: t.contiguous(),
        "channels last": lambda t: t.contiguous(memory_format=torch.channels_last),
        "transposed": lambda t: t.permute(3, 2, 1, 0).contiguous().permute(3, 2, 1, 0),
        "a view with gaps": lambda t: torch.stack([t, t], -1)[..., 1],
    }
    for x_name, x_layout in layouts.items():
        for name, layout in {**layouts, "expanded": None}.items():
            seed = run.new_seed()
            x = x_layout(run.backend.array(run.numbers(*shape))).requires_grad_()
            out = run.subject(x, p, seed=seed)
            kept = out.detach().numpy() != 0
            given = layout(plain) if layout else torch.ones(()).expand(shape)
            (gradient,) = torch.autograd.grad(out, x, given)
            expected = np.where(kept, given.numpy() / (1 - p), 0)
            what = f"the gradient, x {x_name}, incoming gradient {name}"
            same(gradient.numpy(), expected, what, rtol=1e-6)


@clause(FRAGILE)
def gradient_has_a_gradient(run: Run) -> None:
    """Differentiated twice, as in a gradient penalty, dropout is still linear in x."""
    run.needs_gradient()
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    x, weights = run.numbers(64), run.numbers(64)
    mask = run.keep((64,), p, seed=seed) / (1 - p)
    array, given = run.backend.array(x), run.backend.array(weights)

    def cube(x: Any) -> Any:
        return run.subject(x, p, seed=seed) ** 3

    # d/dx sum(w * d/dx sum(y**3)) for y = x m: 6 x m**3 w.
    with refusals_leave():
        second = run.backend.second_gradient(cube, array, given)
    same(second, 6 * x * mask**3 * weights, "the second derivative of dropout(x)**3", rtol=1e-5)
    # The gradient is linear in the incoming one: its derivative by that is the mask again.
    with refusals_leave():
        by_incoming = run.backend.gradient_by_incoming(
            lambda x: run.subject(x, p, seed=seed), array, given
        )
    same(by_incoming, mask * weights, "the gradient's derivative by the incoming one", rtol=1e-6)


@clause(FRAGILE)
def inference_leaves_nothing_behind(run: Run) -> None:
    """In PyTorch, a call in inference mode or without gradients does not spoil a later gradient."""
    torch = _torch(run)
    p = run.subject.p or round(0.3 + 0.1 * float(run.numbers(1)[0] % 1), 6)  # not used before
    for mode in (torch.inference_mode, torch.no_grad):
        for dtype in ("float32", "float64"):
            shape = (3, 41)
            for training in (True, False) if run.subject.has_evaluation else (True,):
                with mode():
                    x = run.backend.array(run.numbers(*shape), dtype)
                    run.subject(x, p, training=training, seed=run.new_seed())
            seed = run.new_seed()
            kept = run.keep(shape, p, seed=seed, dtype=dtype)
            x = run.backend.array(run.numbers(*shape), dtype)
            ones = run.backend.array(np.ones(shape), dtype)
            what = f"after {mode.__name__}: "
            try:
                gradient = run.gradient(x, ones, p, seed=seed)
            except (RuntimeError, Raised) as error:
                raise Deviation(what + " ".join(str(error).split())[:120]) from error
            same(gradient, kept / (1 - p), f"{what}the gradient", rtol=1e-6)


def _torch(run: Run) -> Any:
    if run.backend.name != "torch":
        raise NotApplicable("this is about PyTorch's backward passes")
    return run.backend.xp
