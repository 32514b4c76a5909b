"""The clauses that only statistics can decide; `budget.py` keeps their error rates."""

import math

import numpy as np
import scipy.stats

from tests.contract.budget import ALPHA, sample_size
from tests.contract.run import Run

# Rates and the errors in them that must be seen: a few per cent in general, a quarter at the ends,
# where uniforms of too few bits, clipped rates and rates with a built-in limit show.
RATE_GRID = {
    0.001: 0.00025, 0.02: 0.004, 0.2: 0.004, 0.3: 0.01, 0.5: 0.005, 0.8: 0.01,
    0.95: 0.004, 0.99: 0.002,
}  # fmt: skip


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


def mean_and_variance(run: Run) -> None:
    """E[h'] = h and Var[h'] = h**2 p / (1 - p), measured on a fixed h over many draws.

    h' / h takes two values, 0 and 1 / (1 - p); by Hoeffding's inequality a mean of n numbers in
    an interval of that width is off by more than `margin` with probability at most ALPHA. The
    second moment, E[h'**2] = h**2 / (1 - p), is bounded likewise.
    """
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


def rate_follows_each_call(run: Run) -> None:
    """Calls in a row with other rates have other rates, whatever came before."""
    for p in (0.2, 0.8, 0.2):
        n = sample_size(p, 0.05)
        kept = run.keep((n,), p)
        run.budget.check(kept.sum(), n, 1 - p, f"units kept at p = {p} after another rate")


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


def _disagree(run: Run, a: np.ndarray, b: np.ndarray, p: float, what: str) -> None:
    run.budget.check((a != b).sum(), a.size, 2 * p * (1 - p), f"disagreements of {what}")
