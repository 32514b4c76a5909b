"""The clauses that only statistics can decide. `budget.py` keeps their error rates."""

import math

import numpy as np
import scipy.stats

from dropout_contract.budget import ALPHA, sample_size
from dropout_contract.run import FRAGILE, WRONG, Run, clause, require

# Rates, and the errors in them that must be seen: a few per cent in general, a quarter at the ends,
# where uniform numbers of too few bits, clipped rates and rates with a built-in limit show.
RATE_GRID = {
    0.001: 0.00025, 0.02: 0.004, 0.2: 0.004, 0.3: 0.01, 0.5: 0.005, 0.8: 0.01,
    0.95: 0.004, 0.99: 0.002,
}  # fmt: skip
CORRELATION = 0.1  # between two units, which must be seen


@clause(WRONG, statistical=True)
def number_kept_is_free(run: Run) -> None:
    """The number kept in a row or a call varies as a binomial does: it is not fixed or balanced.

    The chance that exactly the usual number is kept is known. So is how often it happens.
    """
    rows = 4096
    (p,) = run.rates(0.5)
    usual, exactly = _usual(16, p)
    by_row, by_column = run.keep((rows, 16), p).sum(1), run.keep((16, rows), p).sum(0)
    for kept, what in ((by_row, "rows"), (by_column, "columns")):
        run.budget.check((kept == usual).sum(), rows, exactly, f"{what} with {usual} of 16 kept")
    for n, rate in ((16, 0.5), (17, 0.2), (300, 0.8), (2049, 0.3)):
        (p,) = run.rates(rate)
        usual, exactly = _usual(n, p)
        hits = sum(int(run.keep((n,), p).sum() == usual) for _ in range(200))
        run.budget.check(hits, 200, exactly, f"calls with {usual} of {n} kept")


def _usual(n: int, p: float) -> tuple[int, float]:
    usual = round(n * (1 - p))
    return usual, float(scipy.stats.binom.pmf(usual, n, 1 - p))


@clause(WRONG, statistical=True)
def every_position_and_every_call_counts(run: Run) -> None:
    """No position is favoured, first and last included, and no mask comes back.

    Of 1,500 calls, two that share a mask of 251 units at p = 0.5 have few sources between them:
    by chance it happens once in 2**230 times.
    """
    (p,) = run.rates(0.5)
    for shape, number in (((251,), 1500), ((13, 19), 200), ((5, 7, 7), 200), ((1301,), 200)):
        calls = np.stack([run.keep(shape, p).ravel() for _ in range(number)])
        for position, kept in enumerate(calls.sum(0)):
            run.budget.check(kept, number, 1 - p, f"calls that kept unit {position} of {shape}")
        if 0.1 <= p <= 0.9:  # else masks of a few hundred units come back by chance
            masks = {mask.tobytes() for mask in calls}
            require(len(masks) == number, f"{number} calls on {shape} gave {len(masks)} masks")


@clause(WRONG, statistical=True)
def neighbours_are_independent(run: Run) -> None:
    """Two units agree as often as independent ones: along each axis, and at many distances.

    The pairs do not overlap, so that agreements are independent, each with probability
    (1 - p)**2 + p**2.
    """
    for p in run.rates(0.5, 0.3, 0.8):
        _neighbours(run, p, "float32", lags=range(1, 1025) if p == run.rates(0.5)[0] else (1, 2))


def _neighbours(run: Run, p: float, dtype: str, lags: range | tuple[int, ...]) -> None:
    n = sample_size(2 * p * (1 - p), CORRELATION * 2 * p * (1 - p))
    side = math.ceil(math.sqrt(2 * n))
    side += side % 2
    mask = run.keep((side, side), p, dtype=dtype)
    _disagree(run, mask[0::2], mask[1::2], p, "neighbours in a column")
    _disagree(run, mask[:, 0::2], mask[:, 1::2], p, "neighbours in a row")
    _disagree(run, mask[: side // 2], mask[side // 2 :], p, "the two halves of the rows")
    flat = run.keep((8 * n,), p, dtype=dtype)
    # Every distance up to a thousand, so that no period hides between the round numbers.
    for lag in (*lags, 4096):
        whole = len(flat) // (2 * lag) * (2 * lag)
        pairs = flat[:whole].reshape(-1, 2, lag)
        _disagree(run, pairs[:, 0], pairs[:, 1], p, f"units {lag} apart")
    _disagree(run, flat[: 4 * n], flat[4 * n : 8 * n], p, "the two halves")


@clause(WRONG, statistical=True)
def examples_and_channels_are_independent(run: Run) -> None:
    """No axis of a batch of images shares its mask: examples, channels, rows and columns."""
    (p,) = run.rates(0.4)
    n = sample_size(2 * p * (1 - p), CORRELATION * 2 * p * (1 - p))
    for axes in (2, 3, 4, 5):
        side = 2 * math.ceil((2 * n) ** (1 / axes) / 2)
        mask = run.keep((side,) * axes, p)
        for axis in range(axes):
            a, b = (mask.take(range(start, side, 2), axis) for start in (0, 1))
            _disagree(run, a, b, p, f"neighbours along axis {axis} of {axes}")


@clause(WRONG, statistical=True)
def keep_rate(run: Run) -> None:
    """A unit is kept with probability 1 - p, for rates and inputs small and large.

    With x constant and values exact, this is also the statement that the mean is kept and that
    the variance added is x**2 p / (1 - p): both are functions of the number of units kept.
    """
    _keep_rate(run, "float32")
    for units, rate in ((1, 0.5), (2, 0.9), (4, 0.9)):  # small inputs are no exception
        (p,) = run.rates(rate)
        calls = 100
        kept = sum(int(run.keep((units,), p).sum()) for _ in range(calls))
        run.budget.check(kept, calls * units, 1 - p, f"units kept in calls on {units} at p = {p:g}")


@clause(FRAGILE, statistical=True)
def keep_rate_in_every_dtype(run: Run) -> None:
    """In float16, bfloat16 and float64, too, a unit is kept with probability 1 - p."""
    for dtype in run.backend.dtypes:
        if dtype != "float32":
            _keep_rate(run, dtype)


def _keep_rate(run: Run, dtype: str) -> None:
    for p in run.rates(*RATE_GRID):
        n = sample_size(p, RATE_GRID.get(p, 0.02 * min(p, 1 - p)))
        kept = run.keep((n,), p, dtype=dtype)
        run.budget.check(kept.sum(), n, 1 - p, f"units kept at p = {p:g} in {dtype}")


@clause(FRAGILE, statistical=True)
def neighbours_in_every_dtype(run: Run) -> None:
    """In float16, bfloat16 and float64, too, neighbouring units are independent."""
    (p,) = run.rates(0.5)
    for dtype in run.backend.dtypes:
        if dtype != "float32":
            _neighbours(run, p, dtype, lags=(1, 2))


@clause(WRONG, statistical=True)
def mean_and_variance(run: Run) -> None:
    """E[h'] = h and Var[h'] = h**2 p / (1 - p), measured on a fixed h over many draws.

    h' / h takes two values, 0 and 1 / (1 - p). By Hoeffding's inequality, a mean of n numbers in
    an interval of that width is off by more than `margin` with probability at most ALPHA. The
    second moment, E[h'**2] = h**2 / (1 - p), is bounded likewise.
    """
    for p in run.rates(0.2, 0.5, 0.8):
        n, h = 2**18, 3.0
        run.budget.spend(2)
        out = run(np.full(n, h), p).astype(np.float64)
        margin = math.sqrt(math.log(2 / ALPHA) / (2 * n))
        scale = 1 / (1 - p)
        for power, expected, what in ((1, h, "mean"), (2, h**2 * scale, "second moment")):
            width = (h * scale) ** power
            seen = (out**power).mean()
            close = abs(seen - expected) <= margin * width + 1e-5
            require(close, f"the {what} is {seen:.4f} instead of {expected:.4f} at p = {p:g}")


@clause(WRONG, statistical=True)
def rate_follows_each_call(run: Run) -> None:
    """Calls in a row with other rates have other rates, whatever came before."""
    for p in run.rates(0.2, 0.8, 0.2):
        n = sample_size(p, 0.05 if run.subject.p is None else 0.05 * min(p, 1 - p))
        kept = run.keep((n,), p)
        run.budget.check(kept.sum(), n, 1 - p, f"units kept at p = {p:g} after another rate")


@clause(WRONG, statistical=True)
def calls_are_independent(run: Run) -> None:
    """Masks of two calls, such as two layers or two steps, have nothing in common."""
    pairs: tuple[tuple[float, ...], ...] = ((0.5, 0.5), (0.2, 0.2), (0.2, 0.5))
    if run.subject.p is not None:
        pairs = (run.rates(0) * 2,)
    for p, q in pairs:
        apart = p * (1 - q) + q * (1 - p)
        n = sample_size(apart, CORRELATION * math.sqrt(p * (1 - p) * q * (1 - q)))
        a, b = run.keep((n,), p), run.keep((n,), q)
        for shift in range(-4, 5):  # nor is one mask the other, moved on
            moved = np.roll(b, shift)
            run.budget.check((a != moved).sum(), n, apart, f"units that differ, shift {shift}")
        if run.backend.has_state:
            source, x = run.subject.source(run.new_seed()), run.backend.array(np.ones(n))
            a, b = (run.backend.numpy(run.subject.call(x, rate, **source)) != 0 for rate in (p, q))
            for shift in range(-4, 5):
                different = (a != np.roll(b, shift)).sum()
                run.budget.check(different, n, apart, f"units that differ next call, shift {shift}")


def _disagree(run: Run, a: np.ndarray, b: np.ndarray, p: float, what: str) -> None:
    run.budget.check((a != b).sum(), a.size, 2 * p * (1 - p), f"disagreements of {what}")
