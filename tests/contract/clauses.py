"""The contract: what any inverted dropout must do, one function per clause.

A clause takes a Run, passes silently, raises AssertionError (or whatever the subject raises) where
the subject deviates, and raises NotApplicable where the question has no meaning for it. Exact
clauses come first; statistics only where nothing else will do.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import scipy.stats

from tests.contract.backends import Backend
from tests.contract.statistics import Budget, sample_size
from tests.contract.subjects import Subject

RATES = (0.1, 0.123456, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.9)
# Rates and the errors in them that must be seen: a few per cent in general, a quarter at the ends,
# where uniforms of too few bits, clipped rates and rates with a built-in limit show.
RATE_GRID = {
    0.001: 0.00025, 0.02: 0.004, 0.2: 0.004, 0.3: 0.01, 0.5: 0.005, 0.8: 0.01,
    0.95: 0.004, 0.99: 0.002,
}  # fmt: skip
ULP = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}


class NotApplicable(Exception):  # noqa: N818 - not an error
    """This clause says nothing about this subject."""


@dataclasses.dataclass
class Run:
    """One subject, a seed that all others are drawn from, and the budget of statistical tests."""

    subject: Subject
    seed: int = 0
    budget: Budget = dataclasses.field(default_factory=Budget)

    def __post_init__(self) -> None:
        self.backend: Backend = self.subject.backend
        self._first = int(np.random.SeedSequence(self.seed).generate_state(1)[0])
        self._seeds = 0

    def new_seed(self) -> int:
        """Return a seed not used before: steps of an odd width go round all of 2**31 numbers."""
        self._seeds += 1
        return (self._first + 0x9E3779B1 * self._seeds) % 2**31

    def numbers(self, *shape: int) -> np.ndarray:
        """Return float32 numbers of both signs, none of them near 0."""
        rng = np.random.default_rng(self.new_seed())
        return (rng.choice([-1, 1], shape) * rng.uniform(0.5, 2, shape)).astype(np.float32)

    def __call__(self, values: Any, p: Any, *, dtype: str = "float32", **options: Any) -> Any:
        """Apply the subject, by default in training and with a new seed; return NumPy."""
        options.setdefault("seed", self.new_seed())
        with self.backend.precision(dtype):
            x = self.backend.array(values, dtype)
            return self.backend.numpy(self.subject(x, p, **options))

    def keep(self, shape: tuple[int, ...], p: float, **options: Any) -> np.ndarray:
        """Return the mask that a call used, seen through an input of ones."""
        return self(np.ones(shape), p, **options) != 0


Clause = Callable[[Run], None]
CLAUSES: dict[str, Clause] = {}


def clause(function: Clause) -> Clause:
    """Add a function to the contract."""
    CLAUSES[function.__name__] = function
    return function


# Exact clauses


@clause
def identity_at_zero(run: Run) -> None:
    """At p = 0, training returns exactly x, infinities and NaN included."""
    for dtype in run.backend.dtypes:
        x = np.float32([0, 1, -2.5, 1e4, np.inf, -np.inf, np.nan])
        with run.backend.precision(dtype):
            same = run.backend.numpy(run.backend.array(x, dtype))
        np.testing.assert_array_equal(run(x, 0.0, dtype=dtype), same)
        np.testing.assert_array_equal(run(x, 0, dtype=dtype), same)


@clause
def identity_at_zero_for_a_uniform_of_zero(run: Run) -> None:
    """At p = 0 a unit is kept even if its uniform is exactly 0, as 1 in 2**24 is."""
    x = run.numbers(8)
    with run.backend.uniforms_are(0.0):
        np.testing.assert_array_equal(run(x, 0.0), x)


@clause
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


@clause
def zeros_at_one(run: Run) -> None:
    """At p = 1 everything is exactly 0, whatever the input."""
    for dtype in run.backend.dtypes:
        x = np.float32([0, 1, -2.5, np.inf, -np.inf, np.nan])
        for p in (1.0, 1):
            np.testing.assert_array_equal(run(x, p, dtype=dtype), np.zeros(6))


@clause
def zero_gradient_at_one(run: Run) -> None:
    """At p = 1 the gradient is 0, finite and there, even at an infinite input."""
    _needs_gradient(run)
    its = run.backend
    x = its.array(np.float32([1, -2, np.inf]))
    gradient = its.gradient(lambda x: run.subject(x, 1.0), x, its.array(run.numbers(3)))
    np.testing.assert_array_equal(gradient, np.zeros(3))


@clause
def identity_in_evaluation(run: Run) -> None:
    """In evaluation the result is exactly x, at every rate."""
    for dtype in run.backend.dtypes:
        for p in (0.0, 0.3, 0.5, 1.0):
            x = np.float32([0, 1, -2.5, np.inf, np.nan])
            with run.backend.precision(dtype):
                same = run.backend.numpy(run.backend.array(x, dtype))
            np.testing.assert_array_equal(run(x, p, dtype=dtype, training=False), same)


@clause
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


@clause
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


@clause
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


@clause
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


@clause
def strides_are_kept(run: Run) -> None:
    """In PyTorch, a dense input gives a result laid out alike: channels last stay so."""
    if run.backend.name != "torch":
        raise NotApplicable("only PyTorch promises a layout")
    for name, (x, _) in run.backend.strided(run.numbers(2, 3, 4, 5)).items():
        if name in ("transposed", "channels last"):
            out = run.subject(x, 0.25, seed=run.new_seed())
            assert out.stride() == x.stride(), f"{name}: {x.stride()} became {out.stride()}"


@clause
def input_unchanged(run: Run) -> None:
    """The input is not modified, in the forward pass or in the backward pass."""
    its = run.backend
    for p, training in ((0.5, True), (1.0, True), (0.5, False)):
        x = its.array(held := run.numbers(64))
        run.subject(x, p, training=training, seed=run.new_seed())
        np.testing.assert_array_equal(its.numpy(x), held)
        if its.has_gradient:
            its.gradient(lambda x: run.subject(x, p, training=training), x, its.array(held))  # noqa: B023
            np.testing.assert_array_equal(its.numpy(x), held)


@clause
def result_is_not_overwritten(run: Run) -> None:
    """A result stays what it was when the next call of the same shape is made."""
    its = run.backend
    first = run.subject(its.array(run.numbers(64)), 0.5, seed=run.new_seed())
    copy = its.numpy(first).copy()
    run.subject(its.array(run.numbers(64)), 0.5, seed=run.new_seed())
    np.testing.assert_array_equal(its.numpy(first), copy)


@clause
def dropped_infinities_and_nan_are_zero(run: Run) -> None:
    """What is dropped is 0 and what is kept is kept, if it is infinite or NaN, too."""
    for value in (np.inf, -np.inf, np.nan):
        seed = run.new_seed()
        kept = run.keep((64,), 0.5, seed=seed)
        out = run(np.full(64, value), 0.5, seed=seed)
        np.testing.assert_array_equal(out, np.where(kept, value, 0))


@clause
def mask_does_not_depend_on_the_input(run: Run) -> None:
    """The same randomness gives the same mask for every input of the shape: large, small, 0."""
    seed = run.new_seed()
    kept = run.keep((256,), 0.5, seed=seed)
    for scale in (1e-30, 1e30, -1.0):
        out = run(np.full(256, scale), 0.5, seed=seed)
        np.testing.assert_array_equal(out != 0, kept)


@clause
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


@clause
def same_mask_for_the_same_source(run: Run) -> None:
    """The mask is a function of the source, the shape and p alone."""
    seed = run.new_seed()
    a = run.keep((256,), 0.5, seed=seed)
    run.keep((64,), 0.5)
    b = run.keep((256,), 0.5, seed=seed)
    np.testing.assert_array_equal(a, b)


@clause
def gradient_is_that_of_the_mask(run: Run) -> None:
    """The gradient is the incoming one through the forward's mask over 1 - p, at x = 0 too."""
    _needs_gradient(run)
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
                        lambda x: run.subject(x, p, seed=seed),  # noqa: B023
                        its.array(inputs, dtype),
                        its.array(weights, dtype),
                    )
                expected = np.where(kept, weights.astype(np.float64) / (1 - p), 0)
                np.testing.assert_allclose(gradient, expected, rtol=3 * ULP[dtype])


@clause
def gradient_in_evaluation(run: Run) -> None:
    """Where dropout is off, in evaluation or at p = 0, the gradient passes unchanged."""
    _needs_gradient(run)
    its, weights = run.backend, run.numbers(8)
    for p, training in ((0.5, False), (0.0, True), (1.0, False)):
        gradient = its.gradient(
            lambda x: run.subject(x, p, training=training),  # noqa: B023
            its.array(run.numbers(8)),
            its.array(weights),
        )
        np.testing.assert_array_equal(gradient, weights)


@clause
def bad_rate_is_refused(run: Run) -> None:
    """A p outside [0, 1], NaN or no number is a ValueError or TypeError, in every mode."""
    x = run.backend.array(np.ones(4))
    for p in (-0.1, 1.1, -1e-9, 1 + 1e-9, 2, math.nan, math.inf, -math.inf, "0.5", None):
        for training in (True, False):
            _raises((ValueError, TypeError), f"p = {p!r}", run, x, p, training)


@clause
def only_floating_point(run: Run) -> None:
    """Integers, booleans and complex numbers are a TypeError."""
    for dtype in ("int32", "uint8", "bool", "complex64"):
        x = run.backend.array(np.ones(4), dtype)
        _raises(TypeError, dtype, run, x, 0.5, training=True)


@clause
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


@clause
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


@clause
def transforms_give_the_same(run: Run) -> None:
    """jit, vmap, grad and scan (JAX), func and compile (PyTorch) give what plain calls give."""
    if run.subject.seeded_by_number and run.backend.name == "jax":
        raise NotApplicable("seeded by a whole number, which cannot be traced")
    {"torch": _torch_transforms, "jax": _jax_transforms, "numpy": _no_transforms}[run.backend.name](
        run
    )


# Statistical clauses


@clause
def number_kept_is_free(run: Run) -> None:
    """The number kept in a row varies as a binomial does: it is not fixed or balanced.

    The chance that exactly half of 16 units are kept is known; so is how often it happens.
    """
    rows, p = 4096, 0.5
    exactly_half = math.comb(16, 8) / 2**16
    mask = run.keep((rows, 16), p)
    run.budget.check((mask.sum(1) == 8).sum(), rows, exactly_half, "rows with 8 of 16 kept")
    columns = run.keep((16, rows), p)
    run.budget.check((columns.sum(0) == 8).sum(), rows, exactly_half, "columns with 8 of 16 kept")
    for n, p in ((16, 0.5), (17, 0.2), (300, 0.8), (2049, 0.3)):
        usual = round(n * (1 - p))
        chance = float(scipy.stats.binom.pmf(usual, n, 1 - p))
        hits = sum(int(run.keep((n,), p).sum() == usual) for _ in range(200))
        run.budget.check(hits, 200, chance, f"calls with {usual} of {n} kept")


@clause
def every_position_and_every_call_counts(run: Run) -> None:
    """No position is favoured, first and last included, and no mask comes back.

    Of 1,500 calls, two that share a mask of 251 units at p = 0.5 have few sources between them:
    by chance it happens once in 2**230 times.
    """
    for shape, number in (((251,), 1500), ((13, 19), 200), ((5, 7, 7), 200), ((1301,), 200)):
        calls = np.stack([run.keep(shape, 0.5).ravel() for _ in range(number)])
        for position, kept in enumerate(calls.sum(0)):
            run.budget.check(kept, number, 0.5, f"calls that kept unit {position} of {shape}")
        assert len({mask.tobytes() for mask in calls}) == number, "a mask came back"


@clause
def neighbours_are_independent(run: Run) -> None:
    """Two units agree as often as independent ones: along each axis, and at many distances.

    The pairs do not overlap, so that agreements are independent, each with (1 - p)**2 + p**2; a
    correlation of 0.1 in the mask must be seen.
    """
    for p, dtype in (
        (0.5, "float32"), (0.3, "float32"), (0.8, "float32"),
        *((0.5, dtype) for dtype in run.backend.dtypes if dtype != "float32"),
    ):  # fmt: skip
        n = sample_size(2 * p * (1 - p), 0.1 * 2 * p * (1 - p))
        side = math.ceil(math.sqrt(2 * n))
        side += side % 2
        mask = run.keep((side, side), p, dtype=dtype)
        _disagree(run, mask[0::2], mask[1::2], p, "neighbours in a column")
        _disagree(run, mask[:, 0::2], mask[:, 1::2], p, "neighbours in a row")
        _disagree(run, mask[: side // 2], mask[side // 2 :], p, "the two halves of the rows")
        flat = run.keep((8 * n,), p, dtype=dtype)
        # Every distance up to a thousand, so that no period hides between the round numbers.
        for lag in (*(range(1, 1025) if (p, dtype) == (0.5, "float32") else (1, 2)), 4096):
            whole = len(flat) // (2 * lag) * (2 * lag)
            pairs = flat[:whole].reshape(-1, 2, lag)
            _disagree(run, pairs[:, 0], pairs[:, 1], p, f"units {lag} apart")
        _disagree(run, flat[: 4 * n], flat[4 * n : 8 * n], p, "the two halves")


@clause
def examples_and_channels_are_independent(run: Run) -> None:
    """No axis of an image batch shares its mask: examples, channels, rows and columns."""
    p = 0.4
    n = sample_size(2 * p * (1 - p), 0.1 * 2 * p * (1 - p))
    for axes in (2, 3, 4, 5):
        side = 2 * math.ceil((2 * n) ** (1 / axes) / 2)
        mask = run.keep((side,) * axes, p)
        for axis in range(axes):
            a, b = (mask.take(range(start, side, 2), axis) for start in (0, 1))
            _disagree(run, a, b, p, f"neighbours along axis {axis} of {axes}")


@clause
def keep_rate(run: Run) -> None:
    """A unit is kept with probability 1 - p, for rates small and large, in every dtype.

    With x constant and values exact, this is also the statement that the mean is kept and that
    the variance added is x**2 p / (1 - p): both are functions of the number of units kept.
    """
    for dtype in run.backend.dtypes:
        for p, effect in RATE_GRID.items():
            n = sample_size(p, effect)
            kept = run.keep((n,), p, dtype=dtype)
            run.budget.check(kept.sum(), n, 1 - p, f"units kept at p = {p} in {dtype}")


@clause
def mean_and_variance(run: Run) -> None:
    """E[h'] = h and Var[h'] = h**2 p / (1 - p), measured on a fixed h over many draws.

    h' / h takes two values, 0 and 1 / (1 - p); by Hoeffding's inequality a mean of n numbers in
    an interval of that width is off by more than `margin` with probability at most ALPHA. The
    second moment, E[h'**2] = h**2 / (1 - p), is bounded likewise.
    """
    from tests.contract.statistics import ALPHA

    for p in (0.2, 0.5, 0.8):
        n, h = 200_000, 3.0
        run.budget.spend(2)
        out = run(np.full(n, h), p).astype(np.float64)
        margin = math.sqrt(math.log(2 / ALPHA) / (2 * n))
        scale = 1 / (1 - p)
        for power, expected in ((1, h), (2, h**2 * scale)):
            width = (h * scale) ** power
            off = abs((out**power).mean() - expected)
            assert off <= margin * width + 1e-5, f"E[h'**{power}] is off by {off:.4f} at p = {p}"


@clause
def rate_follows_each_call(run: Run) -> None:
    """Calls in a row with other rates have other rates, whatever came before."""
    for p in (0.2, 0.8, 0.2):
        n = sample_size(p, 0.05)
        kept = run.keep((n,), p)
        run.budget.check(kept.sum(), n, 1 - p, f"units kept at p = {p} after another rate")


@clause
def calls_are_independent(run: Run) -> None:
    """Masks of two calls, such as two layers or two steps, have nothing in common."""
    for p, q in ((0.5, 0.5), (0.2, 0.2), (0.2, 0.5)):
        apart = p * (1 - q) + q * (1 - p)
        n = sample_size(apart, 0.1 * math.sqrt(p * (1 - p) * q * (1 - q)))
        a, b = run.keep((n,), p), run.keep((n,), q)
        for shift in range(-4, 5):  # nor is one mask the other, moved on
            moved = np.roll(b, shift)
            run.budget.check((a != moved).sum(), n, apart, f"units that differ, shift {shift}")
        if run.backend.name != "jax":
            source, x = run.subject.source(run.new_seed()), run.backend.array(np.ones(n))
            a, b = (
                run.backend.numpy(run.subject.function(x, rate, training=True, **source)) != 0
                for rate in (p, q)
            )
            for shift in range(-4, 5):
                different = (a != np.roll(b, shift)).sum()
                run.budget.check(different, n, apart, f"units that differ next call, shift {shift}")


def _needs_gradient(run: Run) -> None:
    if not run.backend.has_gradient:
        raise NotApplicable("no gradients in this framework")


def _raises(kinds: Any, what: str, run: Run, x: Any, p: Any, training: bool) -> None:
    try:
        run.subject(x, p, training=training, seed=run.new_seed())
    except kinds:
        return
    except Exception as error:
        raise AssertionError(f"{what}: {type(error).__name__}: {error}") from error
    raise AssertionError(f"{what} was accepted, training = {training}")


def _disagree(run: Run, a: np.ndarray, b: np.ndarray, p: float, what: str) -> None:
    run.budget.check((a != b).sum(), a.size, 2 * p * (1 - p), f"disagreements of {what}")


def _no_transforms(run: Run) -> None:
    raise NotApplicable("NumPy transforms nothing")


def _jax_transforms(run: Run) -> None:
    import jax
    import jax.numpy as jnp

    def f(x: Any, key: Any) -> Any:
        return run.subject.function(x, 0.5, training=True, key=key)

    keys = jax.random.split(run.backend.source(run.new_seed()), 4)
    x = jnp.asarray(run.numbers(4, 256))
    plain = np.stack([np.asarray(f(*pair)) for pair in zip(x, keys, strict=True)])
    gradient = np.stack(
        [np.asarray(jax.grad(lambda x, k: f(x, k).sum())(*p)) for p in zip(x, keys, strict=True)]
    )
    assert len({row.tobytes() for row in plain != 0}) == 4, "keys that give one mask"
    results = {
        "jit": np.stack([jax.jit(f)(*pair) for pair in zip(x, keys, strict=True)]),
        "vmap": jax.vmap(f)(x, keys),
        "jit of vmap": jax.jit(jax.vmap(f))(x, keys),
        "scan": jax.lax.scan(lambda c, pair: (c, f(*pair)), 0, (x, keys))[1],
        "vmap of grad": jax.vmap(jax.grad(lambda x, k: f(x, k).sum()))(x, keys),
        "jit of grad": np.stack(
            [jax.jit(jax.grad(lambda x, k: f(x, k).sum()))(*p) for p in zip(x, keys, strict=True)]
        ),
        "jvp": jax.jvp(lambda x: jax.vmap(f)(x, keys), (x,), (jnp.ones_like(x),))[1],
    }
    for name, result in results.items():
        expected = gradient if "grad" in name or name == "jvp" else plain
        np.testing.assert_allclose(result, expected, rtol=1e-6, err_msg=name)
    evaluation = jax.jit(lambda x: run.subject.function(x, 0.5, training=False))(x)
    np.testing.assert_array_equal(evaluation, x)


def _torch_transforms(run: Run) -> None:
    import torch

    seed = run.new_seed()

    def f(x: Any) -> Any:
        return run.subject(x, 0.5, seed=seed)

    x = run.backend.array(run.numbers(16))
    plain = f(x)
    gradient = run.backend.gradient(f, x, torch.ones(16))
    results = {"func.grad": torch.func.grad(lambda x: f(x).sum())(x)}
    results["func.vjp"] = torch.func.vjp(f, x)[1](torch.ones(16))[0]
    results["func.jvp"] = torch.func.jvp(f, (x,), (torch.ones(16),))[1]
    for name, result in results.items():
        np.testing.assert_allclose(run.backend.numpy(result), gradient, rtol=1e-6, err_msg=name)
    # One mask for all examples is what vmap means by "same".
    batch = torch.stack([x, 2 * x])
    together = torch.func.vmap(f, randomness="same")(batch)
    np.testing.assert_allclose(together, torch.stack([plain, 2 * plain]), rtol=1e-6)
    # Compiled without a backend that generates code: what is traced is what is tested here.
    source = run.subject.source(seed)
    compiled = torch.compile(
        lambda x: run.subject.function(x, 0.5, training=True, **source), backend="eager"
    )
    np.testing.assert_array_equal(compiled(x), plain)
    torch._dynamo.reset()
