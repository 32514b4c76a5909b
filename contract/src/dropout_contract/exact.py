"""The clauses about values, modes, inputs and sources. They hold exactly: chance plays no part."""

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
    """Where uniform numbers can be injected: below p a unit is dropped, above it is kept."""
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
    units = 61  # a shape that no other clause uses: jax.jit keeps what it traced here
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
    """Each unit becomes exactly 0 or x / (1 - p), rounded at most twice."""
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
    same(out[kept], expected, f"kept units in {dtype} at p = {p:.6g}", rtol=1.5 * ULP[dtype])
    require((run(np.zeros(n), p, dtype=dtype) == 0).all(), f"0 does not stay 0 at p = {p:.6g}")


@clause(WRONG)
def shape_and_dtype(run: Run) -> None:
    """A float32 x gives a float32 result of the same shape."""
    (p,) = run.rates(0.5)
    for shape in ((1,), (7,), (3, 5), (2, 3, 4), (2, 3, 4, 5)):
        _shape_and_dtype(run, shape, p, "float32")


def _shape_and_dtype(run: Run, shape: tuple[int, ...], p: Any, dtype: str) -> None:
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
    """The input is not modified, in the forward pass or in the backward pass."""
    (p,) = run.rates(0.5)
    for training in (True, False) if run.subject.has_evaluation else (True,):
        numbers = run.numbers(64)
        x = run.backend.array(numbers)
        run.subject(x, p, training=training, seed=run.new_seed())
        same(run.backend.numpy(x), numbers, f"x after a call, training = {training}")
        if run.backend.has_gradient:
            run.gradient(x, run.backend.array(numbers), p, training=training)
            same(run.backend.numpy(x), numbers, f"x after a gradient, training = {training}")


@clause(WRONG)
def result_is_not_overwritten(run: Run) -> None:
    """A result stays what it was when the next call of the same shape is made."""
    (p,) = run.rates(0.5)
    first = run.subject(run.backend.array(run.numbers(64)), p, seed=run.new_seed())
    copy = run.backend.numpy(first).copy()
    run.subject(run.backend.array(run.numbers(64)), p, seed=run.new_seed())
    same(run.backend.numpy(first), copy, "the first result after the second call")


@clause(WRONG)
def mask_does_not_depend_on_the_input(run: Run) -> None:
    """The same randomness gives the same mask for every x of the shape: large, small, negative."""
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    kept = run.keep((256,), p, seed=seed)
    for scale in (1e-30, 1e30, -1.0):
        out = run(np.full(256, scale), p, seed=seed)
        same(out != 0, kept, f"the mask for x = {scale:g} beside that for x = 1")


@clause(WRONG)
def fresh_mask_at_each_call(run: Run) -> None:
    """Another seed gives another mask, and so does a second call with a source that moves on."""
    (p,) = run.rates(0.5)
    n = 16384  # at p = 0.001, two masks of this size agree by chance once in 10**14 times
    require((run.keep((n,), p) != run.keep((n,), p)).any(), "two seeds give the same mask")
    if run.backend.has_state:
        source, x = run.subject.source(run.new_seed()), run.backend.array(np.ones(n))
        first, second = (run.backend.numpy(run.subject.call(x, p, **source)) != 0 for _ in range(2))
        require((first != second).any(), "two calls in a row give the same mask")


@clause(WRONG)
def every_key_has_its_mask(run: Run) -> None:
    """Keys that were split from one key give different masks."""
    if run.backend.name != "jax":
        raise NotApplicable("only JAX has keys")
    import jax

    (p,) = run.rates(0.5)
    ones = run.backend.array(np.ones(16384))
    keys = jax.random.split(run.backend.source(run.new_seed()), 4)
    masks = {np.asarray(run.subject.call(ones, p, key=key) != 0).tobytes() for key in keys}
    require(len(masks) == 4, f"4 keys give {len(masks)} masks")


@clause(WRONG)
def same_mask_for_the_same_source(run: Run) -> None:
    """The mask is a function of the source, the shape and p alone."""
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    first = run.keep((16384,), p, seed=seed)
    run.keep((64,), p)
    same(run.keep((16384,), p, seed=seed), first, "the mask of the same seed, seen again")


@clause(WRONG)
def global_random_state_is_left_alone(run: Run) -> None:
    """A dropout that is given its source neither reads nor writes global random state."""
    if not run.subject.takes_source:
        raise NotApplicable("it draws from the global generator, and has no argument for another")
    (p,) = run.rates(0.5)
    backend, seed, masks = run.backend, run.new_seed(), []
    for global_seed in (1, 2):
        backend.seed_globally(global_seed)
        before = backend.global_state()
        out = run.subject.call(backend.array(np.ones(4096)), p, **run.subject.source(seed))
        require(backend.global_state() == before, "global random state was changed")
        masks.append(backend.numpy(out) != 0)
    same(masks[1], masks[0], "the mask depends on global random state: units kept")


@clause(FRAGILE)
def a_uniform_of_zero_at_zero(run: Run) -> None:
    """At p = 0 a unit is kept even if its uniform number is exactly 0, as 1 in 2**24 is."""
    run.needs_rate(0)
    x = run.numbers(59)  # a shape that no other clause uses
    with run.backend.uniforms_are(0.0):
        same(run(x, 0.0), x, "p = 0, all uniform numbers 0")


@clause(FRAGILE)
def zeros_at_one(run: Run) -> None:
    """At p = 1 everything is exactly 0, whatever x is, and evaluation still returns x."""
    run.needs_rate(1)
    x = np.concatenate([NUMBERS, NOT_FINITE])
    for dtype in run.backend.dtypes:
        held = run.exactly(x, dtype)
        same(run(held, 1.0, dtype=dtype), np.zeros(len(x)), f"p = 1 in {dtype}")
        _shape_and_dtype(run, (2, 3), 1.0, dtype)
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
        _shape_and_dtype(run, (2, 3), run.rates(0.5)[0], dtype)
        if run.subject.p is None:
            _shape_and_dtype(run, (2, 3), 0.0, dtype)
            x = run.exactly(NUMBERS, dtype)
            same(run(x, 0.0, dtype=dtype), x, f"p = 0 in {dtype}")
        if run.subject.has_evaluation:
            x = run.exactly(NUMBERS, dtype)
            out = run(x, run.rates(0.5)[0], dtype=dtype, training=False)
            same(out, x, f"evaluation in {dtype}")


def _other_dtypes(run: Run) -> list[str]:
    return [dtype for dtype in run.backend.dtypes if dtype != "float32"]


@clause(FRAGILE)
def edge_shapes(run: Run) -> None:
    """An x without dimensions or without elements keeps its shape."""
    (p,) = run.rates(0.5)
    for shape in ((), (0,), (3, 0, 2)):
        _shape_and_dtype(run, shape, p, "float32")


@clause(FRAGILE)
def any_strides(run: Run) -> None:
    """An x that is not plain rows in memory gives the right values in the right places."""
    (p,) = run.rates(0.25)
    cases = run.backend.strided(run.numbers(2, 3, 4, 5))
    if not cases:
        raise NotApplicable("arrays of JAX have no strides")
    for name, (x, numbers) in cases.items():
        out = run.backend.numpy(run.subject(x, p, seed=run.new_seed()))
        kept = out != 0
        same(out[kept], numbers[kept] / (1 - p), f"an x that is {name}", rtol=1e-6)
        if name == "expanded" and run.subject.p is None:  # by chance once in 10**12 times
            masks = {row.tobytes() for row in kept}
            require(len(masks) == len(kept), "in an expanded x, examples share a mask")


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
def strides_are_kept(run: Run) -> None:
    """In PyTorch, the result is laid out in memory like x: channels last stay channels last."""
    if run.backend.name != "torch":
        raise NotApplicable("only PyTorch promises a layout")
    (p,) = run.rates(0.25)
    for name, (x, _) in run.backend.strided(run.numbers(2, 3, 4, 5)).items():
        if name in ("transposed", "channels last"):
            out = run.subject(x, p, seed=run.new_seed())
            same_strides = out.stride() == x.stride()
            require(same_strides, f"{name}: strides {x.stride()} became {out.stride()}")


@clause(CONVENTION)
def whole_number_rates(run: Run) -> None:
    """The rates 0 and 1 may be whole numbers."""
    if run.subject.p is not None:
        raise NotApplicable(f"the layer has p = {run.subject.p:g}")
    same(run(NUMBERS, 0), NUMBERS, "p = 0, a whole number")
    same(run(NUMBERS, 1), np.zeros(len(NUMBERS)), "p = 1, a whole number")


@clause(CONVENTION)
def off_draws_nothing(run: Run) -> None:
    """In evaluation, at p = 0 and at p = 1, no source is needed or moved."""
    if run.subject.seeded_by_number:
        raise NotApplicable("it is seeded by a whole number, which has no state")
    run.needs_evaluation()
    backend = run.backend
    cases: list[tuple[float, bool]] = [(run.subject.p or 0.5, False)]
    if run.subject.p is None:
        cases += [(0.0, True), (1.0, True)]
    x = backend.array(run.numbers(64))
    for p, training in cases:
        where = "evaluation" if not training else f"training at p = {p:g}"
        source = run.subject.source(run.new_seed())
        before = [backend.state(s) for s in source.values()], backend.global_state()
        run.subject.call(x, p, training=training, **source)
        after = [backend.state(s) for s in source.values()], backend.global_state()
        require(before == after, f"random numbers were drawn in {where}")
        try:
            run.subject.call(x, p, training=training)
        except Raised as error:
            raise Deviation(f"without a source, in {where}: {error}") from error


@clause(CONVENTION)
def bad_rate_is_refused(run: Run) -> None:
    """A p outside [0, 1], NaN or no number is a ValueError or TypeError, in every mode."""
    if run.subject.p is not None:
        raise NotApplicable(f"the layer has p = {run.subject.p:g}")
    x = run.backend.array(np.ones(4))
    for p in (-0.1, 1.1, -1e-9, 1 + 1e-9, 2, math.nan, math.inf, -math.inf, "0.5", None):
        for training in (True, False) if run.subject.has_evaluation else (True,):
            _refused((ValueError, TypeError), f"p = {p!r}", run, x, p, training)


@clause(CONVENTION)
def only_floating_point(run: Run) -> None:
    """Integers, booleans and complex numbers are a TypeError."""
    (p,) = run.rates(0.5)
    for dtype in ("int32", "uint8", "bool", "complex64"):
        x = run.backend.array(np.ones(4), dtype)
        _refused((TypeError,), f"x of {dtype}", run, x, p, training=True)


@clause(CONVENTION)
def missing_source_is_refused(run: Run) -> None:
    """Training without the source that it needs is an error whose message names the argument."""
    if not run.subject.must_refuse:
        raise NotApplicable("nobody has to pass it a source")
    (p,) = run.rates(0.5)
    name = run.subject.source_argument
    try:
        run.subject.call(run.backend.array(np.ones(4)), p)
    except Raised as error:
        require(name in str(error), f"the message does not name {name}: {error}")
    else:
        require(False, f"no error without {name}")


def _refused(
    kinds: tuple[type[Exception], ...], what: str, run: Run, x: Any, p: Any, training: bool
) -> None:
    names = " or ".join(kind.__name__ for kind in kinds)
    try:
        run.subject(x, p, training=training, seed=run.new_seed())
    except Raised as error:
        require(isinstance(error.__cause__, kinds), f"{what} is no {names}: {error}")
    else:
        require(False, f"{what} was accepted, training = {training}")
