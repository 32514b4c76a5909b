"""The clauses about values, modes, inputs and sources. They hold exactly: chance plays no part."""

import contextlib
import math
from typing import Any

import numpy as np

from dropout_contract.budget import Deviation
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
from dropout_contract.subjects import Raised

RATES = (0.1, 0.123456, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9)
ULP = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}
NUMBERS = np.array([0, 1, -2.5, 1e4, -1e-4, 7], np.float32)
NOT_FINITE = np.array([np.inf, -np.inf, np.nan], np.float32)


@clause(WRONG)
def identity_at_zero(run: Run) -> None:
    """At p = 0, training returns exactly x."""
    run.needs_rate(0)
    for x in (NUMBERS, run.numbers(4096)):
        same(run(x, 0.0), x, "p = 0")


@clause(WRONG)
def threshold_is_the_rate(run: Run) -> None:
    """Where the contract can choose the numbers drawn, they are compared with p, or with 1 - p."""
    # Each rate is decided by itself: a program may use u >= p for some rates, u < 1 - p, which is
    # as good, for others, and no uniform numbers at all for the rest.
    decided = False
    for p in run.rates(0.001, 0.0567, 0.1234, 0.5, 0.98765, 0.9995):
        low, high = _kept(run, p, 2.0**-24), _kept(run, p, 1 - 2.0**-24)
        if low is None or high is None or low == high:
            continue
        edge = p if high else 1 - p
        for uniform, expected in ((edge - 2.0**-18, low), (edge + 2.0**-18, high)):
            seen = _kept(run, p, uniform)
            if seen is None:
                break
            decided = True
            what = (
                f"p = {p}: units are {'kept' if seen else 'dropped'} at the uniform {uniform:.7g}"
            )
            require(seen == expected, what)
    if not decided:
        raise NotApplicable("its uniform numbers cannot be injected")


def _kept(run: Run, p: float, uniform: float) -> bool | None:
    """Return whether units are kept if all uniform numbers are this one.

    None if the answer would mean nothing: the program does not draw one uniform number for each
    unit, or cannot take these.
    """
    # So many that they agree only if the numbers decide. And a shape that no other clause uses:
    # jax.jit keeps what it traced here.
    units = 16381
    with run.backend.uniforms_are(uniform) as drawn:
        try:
            mask = run.keep((units,), p)
        except Raised:
            return None
    if sum(drawn) != units or len(set(mask.tolist())) > 1:
        return None
    return bool(mask[0])


@clause(WRONG)
def values(run: Run) -> None:
    """Each unit becomes exactly 0, or x / (1 - p) up to the rounding of two operations."""
    for p in run.rates(*RATES):
        _values(run, p, "float32")


def _values(run: Run, p: float, dtype: str) -> None:
    n = 256
    exponents = np.arange(n) % 5 - 2 if dtype == "float16" else np.arange(n) % 61 - 30
    x = run.exactly(run.numbers(n) * 10.0**exponents, dtype)
    out = run(x, p, dtype=dtype)
    kept = out != 0
    if run.subject.p is None:  # by chance once in 10**11 times at 0.1 and 0.9
        require(0 < kept.sum() < n, f"{kept.sum()} of {n} units are not 0 at p = {p:.6g}")
    expected = x[kept].astype(np.float64) / (1 - p)
    # A p that is held in float32 is off by half a digit, which 1 - p magnifies.
    of_p = 0.5 * p / (1 - p) if dtype == "float32" else 0.0
    same(out[kept], expected, f"kept units in {dtype} at p = {p:.6g}",
         rtol=(1.5 + of_p) * ULP[dtype])  # fmt: skip
    require((run(np.zeros(n), p, dtype=dtype) == 0).all(), f"0 does not stay 0 at p = {p:.6g}")


@clause(WRONG)
def shape_and_dtype(run: Run) -> None:
    """A float32 x gives a float32 result of the same shape."""
    (p,) = run.rates(0.5)
    for shape in ((1,), (7,), (3, 5), (2, 3, 4), (2, 3, 4, 5)):
        keeps_shape_and_dtype(run, shape, p, "float32")


def keeps_shape_and_dtype(run: Run, shape: tuple[int, ...], p: Any, dtype: str) -> None:
    """Require the shape and dtype of x, in training and in evaluation."""
    with run.backend.precision(dtype):
        for training in (True, False) if run.subject.has_evaluation else (True,):
            x = run.backend.array(np.ones(shape), dtype)
            out = run.subject(x, p, training=training, seed=run.new_seed())
            require(run.backend.is_array(out), f"the result is a {type(out).__name__}")
            require(run.backend.dtype(out) == dtype, f"{dtype} became {run.backend.dtype(out)}")
            require(tuple(out.shape) == shape, f"shape {shape} became {tuple(out.shape)}")


@clause(WRONG)
def identity_in_evaluation(run: Run) -> None:
    """In evaluation the result is exactly x."""
    run.needs_evaluation()
    for p in run.rates(0.0, 0.3, 0.5, 0.99):
        same(run(NUMBERS, p, training=False), NUMBERS, f"evaluation at p = {p:g}")


@clause(WRONG)
def input_unchanged(run: Run) -> None:
    """The input is not modified: at any rate, in any mode, by four calls and a gradient."""
    if run.backend.name == "jax":
        raise NotApplicable("arrays of JAX are never written to")
    rates = run.rates(0.0, 0.001, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999)
    for training in (True, False) if run.subject.has_evaluation else (True,):
        for p in rates:
            numbers = run.numbers(64)
            x = run.backend.array(numbers)
            for call in range(1, 5):
                run.subject(x, p, training=training, seed=run.new_seed())
                what = f"x after call {call} at p = {p:g}, training = {training}"
                same(run.backend.numpy(x), numbers, what)
            if run.backend.has_gradient:
                with contextlib.suppress(Deviation):  # a gradient that is missing is no change
                    run.gradient(x, run.backend.array(numbers), p, training=training)
                what = f"x after a gradient at p = {p:g}, training = {training}"
                same(run.backend.numpy(x), numbers, what)


@clause(FRAGILE)
def a_uniform_of_zero_at_zero(run: Run) -> None:
    """At p = 0 a unit is kept even if its random number is exactly 0, as happens once in 2**24."""
    run.needs_rate(0)
    x = run.numbers(59)  # a shape that no other clause uses
    try:
        with run.backend.uniforms_are(0.0):
            out = run(x, 0.0)
    except Raised as error:
        raise NotApplicable(f"its uniform numbers cannot all be 0: {error}") from error
    same(out, x, "p = 0, all uniform numbers 0")


@clause(FRAGILE)
def zeros_at_one(run: Run) -> None:
    """At p = 1 everything is exactly 0, whatever x is, and evaluation still returns x."""
    run.needs_rate(1)
    x = np.concatenate([NUMBERS, NOT_FINITE])
    for dtype in run.backend.dtypes:
        held = run.exactly(x, dtype)
        same(run(held, 1.0, dtype=dtype), np.zeros(len(x)), f"p = 1 in {dtype}")
        keeps_shape_and_dtype(run, (2, 3), 1.0, dtype)
    if run.subject.has_evaluation:
        same(run(x, 1.0, training=False), x, "evaluation at p = 1")
    array = run.backend.array(x)
    run.subject(array, 1.0, seed=run.new_seed())
    same(run.backend.numpy(array), x, "x itself, after a call at p = 1")


@clause(FRAGILE)
def values_in_every_dtype(run: Run) -> None:
    """In float16, bfloat16 and float64, too, units become 0 or x / (1 - p), in the dtype of x."""
    for dtype in _other_dtypes(run):
        for p in run.rates(*RATES):
            _values(run, p, dtype)
        keeps_shape_and_dtype(run, (2, 3), run.rates(0.5)[0], dtype)
        if run.subject.p is None:
            keeps_shape_and_dtype(run, (2, 3), 0.0, dtype)
            x = run.exactly(NUMBERS, dtype)
            same(run(x, 0.0, dtype=dtype), x, f"p = 0 in {dtype}")
        if run.subject.has_evaluation:
            x = run.exactly(NUMBERS, dtype)
            out = run(x, run.rates(0.5)[0], dtype=dtype, training=False)
            same(out, x, f"evaluation in {dtype}")


def _other_dtypes(run: Run) -> list[str]:
    return [dtype for dtype in run.backend.dtypes if dtype != "float32"]


@clause(FRAGILE)
def dropped_infinities_and_nan_are_zero(run: Run) -> None:
    """A dropped infinity or NaN becomes 0, and a kept one stays."""
    (p,) = run.rates(0.5)
    for value in NOT_FINITE:
        seed = run.new_seed()
        kept = run.keep((64,), p, seed=seed)
        out = run(np.full(64, value), p, seed=seed)
        same(out, np.where(kept, value, np.float32(0)), f"x = {value:g}")


@clause(FRAGILE)
def infinities_and_nan_pass_where_it_is_off(run: Run) -> None:
    """Where dropout is off, in evaluation and at p = 0, infinities and NaN pass unchanged."""
    off = False
    if run.subject.p in (None, 0):
        same(run(NOT_FINITE, 0.0), NOT_FINITE, "p = 0")
        off = True
    if run.subject.has_evaluation:
        p = 0.5 if run.subject.p is None else run.subject.p
        same(run(NOT_FINITE, p, training=False), NOT_FINITE, "evaluation")
        off = True
    if not off:
        raise NotApplicable("it is never off")


@clause(CONVENTION)
def whole_number_rates(run: Run) -> None:
    """The rates 0 and 1 may be whole numbers."""
    if run.subject.p is not None:
        raise NotApplicable(f"the layer has p = {run.subject.p:g}")
    same(run(NUMBERS, 0), NUMBERS, "p = 0, a whole number")
    same(run(NUMBERS, 1), np.zeros(len(NUMBERS)), "p = 1, a whole number")


@clause(CONVENTION)
def bad_rate_is_refused(run: Run) -> None:
    """A p outside [0, 1], NaN, or not a number raises ValueError or TypeError, in every mode."""
    if run.subject.p is not None:
        raise NotApplicable(f"the layer has p = {run.subject.p:g}")
    x = run.backend.array(np.ones(4))
    for p in (-0.1, 1.1, -1e-9, 1 + 1e-9, 2, math.nan, math.inf, -math.inf, "0.5", None):
        for training in (True, False) if run.subject.has_evaluation else (True,):
            refused((ValueError, TypeError), f"p = {p!r}", run, x, p, training)


@clause(CONVENTION)
def only_floating_point(run: Run) -> None:
    """Integers, booleans and complex numbers are a TypeError."""
    (p,) = run.rates(0.5)
    for dtype in ("int32", "uint8", "bool", "complex64"):
        x = run.backend.array(np.ones(4), dtype)
        refused((TypeError,), f"x of {dtype}", run, x, p, training=True)


def refused(
    kinds: tuple[type[Exception], ...], what: str, run: Run, x: Any, p: Any, training: bool
) -> None:
    """Require one of these exceptions."""
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        run.subject(x, p, training=training, seed=run.new_seed())
    except Raised as error:
        require(isinstance(error.__cause__, kinds), f"{what} is no {names}: {error}")
    else:
        require(False, f"{what} was accepted, training = {training}")
