"""The clauses that hold exactly, one function each: no chance is involved, or next to none."""

import functools
import math
from typing import Any

import numpy as np

from tests.contract.run import NotApplicable, Run, needs_gradient

RATES = (0.1, 0.123456, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9)
ULP = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}


def identity_at_zero(run: Run) -> None:
    """At p = 0, training returns exactly x, infinities and NaN included."""
    for dtype in run.backend.dtypes:
        x = np.float32([0, 1, -2.5, 1e4, np.inf, -np.inf, np.nan])
        with run.backend.precision(dtype):
            same = run.backend.numpy(run.backend.array(x, dtype))
        np.testing.assert_array_equal(run(x, 0.0, dtype=dtype), same)
        np.testing.assert_array_equal(run(x, 0, dtype=dtype), same)


def identity_at_zero_for_a_uniform_of_zero(run: Run) -> None:
    """At p = 0 a unit is kept even if its uniform is exactly 0, as 1 in 2**24 is."""
    x = run.numbers(8)
    with run.backend.uniforms_are(0.0):
        np.testing.assert_array_equal(run(x, 0.0), x)


def threshold_is_the_rate(run: Run) -> None:
    """Where the uniforms can be injected: just below p everything is dropped, just above, kept."""

    def kept(p: float, uniform: float) -> np.ndarray:
        with run.backend.uniforms_are(uniform):
            return run.keep((64,), p)

    # u < 1 - p is as good as u >= p, so what is above and what is below may be swapped.
    low, high = kept(0.5, 0.25), kept(0.5, 0.75)
    if not (low == low[0]).all() or not (high == ~low).all():
        raise NotApplicable("does not draw its uniforms in a way that can be injected")
    for p in (0.001, 0.0567, 0.1234, 0.5, 0.98765, 0.9995):
        edge = p if high.all() else 1 - p
        for uniform, expected in ((edge - 2.0**-18, low), (edge + 2.0**-18, high)):
            np.testing.assert_array_equal(kept(p, uniform), expected, f"the threshold for p = {p}")


def zeros_at_one(run: Run) -> None:
    """At p = 1 everything is exactly 0, whatever the input."""
    for dtype in run.backend.dtypes:
        x = np.float32([0, 1, -2.5, np.inf, -np.inf, np.nan])
        for p in (1.0, 1):
            np.testing.assert_array_equal(run(x, p, dtype=dtype), np.zeros(6))


def zero_gradient_at_one(run: Run) -> None:
    """At p = 1 the gradient is 0, finite and there, even at an infinite input."""
    needs_gradient(run)
    its = run.backend
    x = its.array(np.float32([1, -2, np.inf]))
    gradient = its.gradient(lambda x: run.subject(x, 1.0), x, its.array(run.numbers(3)))
    np.testing.assert_array_equal(gradient, np.zeros(3))


def identity_in_evaluation(run: Run) -> None:
    """In evaluation the result is exactly x, at every rate."""
    for dtype in run.backend.dtypes:
        for p in (0.0, 0.3, 0.5, 1.0):
            x = np.float32([0, 1, -2.5, np.inf, np.nan])
            with run.backend.precision(dtype):
                same = run.backend.numpy(run.backend.array(x, dtype))
            np.testing.assert_array_equal(run(x, p, dtype=dtype, training=False), same)


def evaluation_draws_nothing(run: Run) -> None:
    """Evaluation needs no source of randomness and moves none on; nor does p = 0 or p = 1."""
    if run.subject.seeded_by_number:
        raise NotApplicable("seeded by a whole number, which has no state")
    its, x = run.backend, run.backend.array(run.numbers(64))
    run.subject.function(x, 0.5, training=False)
    for p, training in ((0.5, False), (0.0, True), (1.0, True)):
        source = run.subject.source(run.new_seed())
        before = [its.state(s) for s in source.values()], its.global_state()
        run.subject.function(x, p, training=training, **source)
        after = [its.state(s) for s in source.values()], its.global_state()
        assert before == after, f"randomness was consumed at p = {p}, training = {training}"


def values(run: Run) -> None:
    """Each unit becomes exactly 0 or x / (1 - p), rounded at most twice."""
    for dtype in run.backend.dtypes:
        for p in RATES:
            exponents = np.arange(256) % 5 - 2 if dtype == "float16" else np.arange(256) % 61 - 30
            with run.backend.precision(dtype):
                held = run.numbers(256) * 10.0**exponents
                x = run.backend.numpy(run.backend.array(held, dtype))
            out = run(x, p, dtype=dtype)
            assert (run(np.zeros(256), p, dtype=dtype) == 0).all(), "0 does not stay 0"
            kept = out != 0
            assert 0 < kept.sum() < 256, f"{kept.sum()} of 256 kept at p = {p}"  # by chance 1e-11
            expected = x[kept].astype(np.float64) / (1 - p)
            np.testing.assert_allclose(out[kept], expected, rtol=1.5 * ULP[dtype], atol=0)


def shape_and_dtype(run: Run) -> None:
    """Shape and dtype are those of x: no dimensions, no elements, any dtype, in every mode."""
    its = run.backend
    for dtype in its.dtypes:
        shapes = ((), (0,), (1,), (7,), (3, 0, 2), (2, 3, 4, 5))
        for shape in shapes if dtype == "float32" else shapes[-1:]:
            for p, training in ((0.5, True), (0.0, True), (1.0, True), (0.5, False)):
                with its.precision(dtype):
                    x = its.array(np.ones(shape), dtype)
                    out = run.subject(x, p, training=training, seed=run.new_seed())
                    assert its.dtype(out) == dtype, f"{dtype} became {its.dtype(out)}"
                    assert tuple(out.shape) == shape, f"{shape} became {tuple(out.shape)}"


def any_strides(run: Run) -> None:
    """An input that is not plain rows in memory gives the right values in the right places."""
    cases = run.backend.strided(run.numbers(2, 3, 4, 5))
    if not cases:
        raise NotApplicable("arrays have no strides")
    for name, (x, held) in cases.items():
        out = run.subject(x, 0.25, seed=run.new_seed())
        kept = (read := run.backend.numpy(out)) != 0
        assert kept.any(), name
        np.testing.assert_allclose(read[kept], held[kept] / 0.75, rtol=1e-6, err_msg=name)
        if name == "expanded":  # 60 units agree by chance once in 10**12 times
            assert len({row.tobytes() for row in kept}) == len(kept), "examples share a mask"


def strides_are_kept(run: Run) -> None:
    """In PyTorch, a dense input gives a result laid out alike: channels last stay so."""
    if run.backend.name != "torch":
        raise NotApplicable("only PyTorch promises a layout")
    for name, (x, _) in run.backend.strided(run.numbers(2, 3, 4, 5)).items():
        if name in ("transposed", "channels last"):
            out = run.subject(x, 0.25, seed=run.new_seed())
            assert out.stride() == x.stride(), f"{name}: {x.stride()} became {out.stride()}"


def input_unchanged(run: Run) -> None:
    """The input is not modified, in the forward pass or in the backward pass."""
    its = run.backend
    for p, training in ((0.5, True), (1.0, True), (0.5, False)):
        x = its.array(held := run.numbers(64))
        run.subject(x, p, training=training, seed=run.new_seed())
        np.testing.assert_array_equal(its.numpy(x), held)
        if its.has_gradient:
            off_or_on = functools.partial(run.subject, p=p, training=training)
            its.gradient(off_or_on, x, its.array(held))
            np.testing.assert_array_equal(its.numpy(x), held)


def result_is_not_overwritten(run: Run) -> None:
    """A result stays what it was when the next call of the same shape is made."""
    its = run.backend
    first = run.subject(its.array(run.numbers(64)), 0.5, seed=run.new_seed())
    copy = its.numpy(first).copy()
    run.subject(its.array(run.numbers(64)), 0.5, seed=run.new_seed())
    np.testing.assert_array_equal(its.numpy(first), copy)


def dropped_infinities_and_nan_are_zero(run: Run) -> None:
    """What is dropped is 0 and what is kept is kept, if it is infinite or NaN, too."""
    for value in (np.inf, -np.inf, np.nan):
        seed = run.new_seed()
        kept = run.keep((64,), 0.5, seed=seed)
        out = run(np.full(64, value), 0.5, seed=seed)
        np.testing.assert_array_equal(out, np.where(kept, value, 0))


def mask_does_not_depend_on_the_input(run: Run) -> None:
    """The same randomness gives the same mask for every input of the shape: large, small, 0."""
    seed = run.new_seed()
    kept = run.keep((256,), 0.5, seed=seed)
    for scale in (1e-30, 1e30, -1.0):
        out = run(np.full(256, scale), 0.5, seed=seed)
        np.testing.assert_array_equal(out != 0, kept)


def fresh_mask_at_each_call(run: Run) -> None:
    """Another seed, and another call with a source that moves on, give another mask.

    256 units at p = 0.5 agree by chance once in 2**256 times.
    """
    a, b = (run.keep((256,), 0.5) for _ in range(2))
    assert (a != b).any(), "two seeds gave one mask"
    if run.backend.name != "jax":
        source, x = run.subject.source(run.new_seed()), run.backend.array(np.ones(256))
        c, d = (
            run.backend.numpy(run.subject.function(x, 0.5, training=True, **source)) != 0
            for _ in range(2)
        )
        assert (c != d).any(), "two calls in a row gave one mask"


def same_mask_for_the_same_source(run: Run) -> None:
    """The mask is a function of the source, the shape and p alone."""
    seed = run.new_seed()
    a = run.keep((256,), 0.5, seed=seed)
    run.keep((64,), 0.5)
    b = run.keep((256,), 0.5, seed=seed)
    np.testing.assert_array_equal(a, b)


def gradient_is_that_of_the_mask(run: Run) -> None:
    """The gradient is the incoming one through the forward's mask over 1 - p, at x = 0 too."""
    needs_gradient(run)
    its = run.backend
    for dtype in its.dtypes:
        for p in (0.2, 0.5, 0.9) if dtype == "float32" else (0.5,):
            seed = run.new_seed()
            shape = (20, 15)
            weights = run.numbers(*shape)
            weights[:, 0] = np.inf  # a gradient that overflowed must not reach dropped units
            with its.precision(dtype):
                weights = its.numpy(its.array(weights, dtype))
            kept = run.keep(shape, p, seed=seed, dtype=dtype)
            for inputs in (run.numbers(*shape), np.zeros(shape), np.full(shape, np.inf)):
                with its.precision(dtype):
                    gradient = its.gradient(
                        functools.partial(run.subject, p=p, seed=seed),
                        its.array(inputs, dtype),
                        its.array(weights, dtype),
                    )
                expected = np.where(kept, weights.astype(np.float64) / (1 - p), 0)
                np.testing.assert_allclose(gradient, expected, rtol=3 * ULP[dtype])


def gradient_in_evaluation(run: Run) -> None:
    """Where dropout is off, in evaluation or at p = 0, the gradient passes unchanged."""
    needs_gradient(run)
    its, weights = run.backend, run.numbers(8)
    for p, training in ((0.5, False), (0.0, True), (1.0, False)):
        gradient = its.gradient(
            functools.partial(run.subject, p=p, training=training),
            its.array(run.numbers(8)),
            its.array(weights),
        )
        np.testing.assert_array_equal(gradient, weights)


def bad_rate_is_refused(run: Run) -> None:
    """A p outside [0, 1], NaN or no number is a ValueError or TypeError, in every mode."""
    x = run.backend.array(np.ones(4))
    for p in (-0.1, 1.1, -1e-9, 1 + 1e-9, 2, math.nan, math.inf, -math.inf, "0.5", None):
        for training in (True, False):
            _raises((ValueError, TypeError), f"p = {p!r}", run, x, p, training)


def only_floating_point(run: Run) -> None:
    """Integers, booleans and complex numbers are a TypeError."""
    for dtype in ("int32", "uint8", "bool", "complex64"):
        x = run.backend.array(np.ones(4), dtype)
        _raises(TypeError, dtype, run, x, 0.5, training=True)


def missing_source_is_refused(run: Run) -> None:
    """Training with 0 < p < 1 and nothing to draw from is an error that names the argument."""
    if not run.subject.takes_source or run.subject.seeded_by_number:
        raise NotApplicable("draws from a generator of its own, by design")
    name = run.backend.source_name
    try:
        run.subject.function(run.backend.array(np.ones(4)), 0.5, training=True)
    except Exception as error:
        if name not in str(error):
            raise AssertionError(f"the message does not name {name}: {error}") from error
    else:
        raise AssertionError("no error")


def global_random_state_is_left_alone(run: Run) -> None:
    """No global random state is written, and none is read."""
    its, seed, masks = run.backend, run.new_seed(), []
    for global_seed in (1, 2):
        its.seed_globally(global_seed)
        source = {its.source_name: its.source(seed)} if run.subject.takes_source else {}
        before = its.global_state()
        out = run.subject.function(its.array(np.ones(256)), 0.5, training=True, **source)
        assert its.global_state() == before, "global random state was moved on"
        masks.append(its.numpy(out) != 0)
    np.testing.assert_array_equal(*masks, err_msg="the mask depends on global random state")


def _raises(kinds: Any, what: str, run: Run, x: Any, p: Any, training: bool) -> None:
    try:
        run.subject(x, p, training=training, seed=run.new_seed())
    except kinds:
        return
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what} was accepted, training = {training}")
