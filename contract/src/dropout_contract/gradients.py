"""The clauses about gradients, in PyTorch and JAX."""

from typing import Any

import numpy as np

from dropout_contract.exact import ULP
from dropout_contract.run import FRAGILE, WRONG, Run, clause, same


@clause(WRONG)
def gradient_is_that_of_the_mask(run: Run) -> None:
    """The gradient is the incoming one where the forward pass kept, over 1 - p, also at x = 0."""
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
