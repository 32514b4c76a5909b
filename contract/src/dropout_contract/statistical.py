"""The clauses about how many units are kept. `budget.py` keeps their error rates."""

import numpy as np
import scipy.stats

from dropout_contract.run import FRAGILE, WRONG, Run, clause, require

# Rates, and the errors in them that must be seen: a few per cent in general, a quarter at the ends,
# where uniform numbers of too few bits, clipped rates and rates with a built-in limit show. A rate
# of 0.0025 lies between two thousandths, and between two multiples of 1 / 1024.
RATE_GRID = {
    0.0005: 0.0004, 0.001: 0.00025, 0.0025: 0.0004, 0.02: 0.004, 0.2: 0.004, 0.3: 0.01, 0.5: 0.005,
    0.8: 0.01, 0.95: 0.004, 0.99: 0.002,
}  # fmt: skip
# The error in the rate of one position that must be seen. It takes a call for each event, and calls
# are slow in JAX.
POSITION = {"torch": 0.1, "numpy": 0.1, "jax": 0.2}
LARGE = 2**24  # float32 cannot count further


@clause(WRONG, statistical=True)
def number_kept_is_free(run: Run) -> None:
    """The number kept in a row or a call varies as a binomial does: it is not fixed or balanced.

    The chance that exactly the usual number is kept is known. So is how often it happens: seen is
    half of that or twice that in rows, and balancing in half of the calls, or in nine of ten large
    ones.
    """
    (p,) = run.rates(0.5)
    usual, exactly = _usual(16, p)
    rows = run.size(exactly, exactly / 2)
    by_row, by_column = run.keep((rows, 16), p).sum(1), run.keep((16, rows), p).sum(0)
    for kept, what in ((by_row, "rows"), (by_column, "columns")):
        run.budget.check((kept == usual).sum(), rows, exactly, f"{what} with {usual} of 16 kept")
    cases = [(16, 0.5, 0.5), (17, 0.2, 0.5), (300, 0.8, 0.5), (2049, 0.3, 0.5)]
    cases += [(2**14, 0.5, 0.9), (2**17, 0.5, 0.9), (2**20, 0.5, 0.9)]
    for n, rate, effect in cases:
        (p,) = run.rates(rate)
        usual, exactly = _usual(n, p)
        calls = run.calls(exactly, effect)
        hits = sum(int(mask.sum() == usual) for mask in run.masks((n,), p, calls))
        run.budget.check(hits, calls, exactly, f"calls with {usual} of {n} kept")
    _blocks(run)


def _blocks(run: Run) -> None:
    """In blocks of a large mask, the number kept is near the mean as often as it should be."""
    (p,) = run.rates(0.5)
    size = 1024
    blocks = run.size(0.5, 0.1)
    near = int(scipy.stats.binom.std(size, p) * 0.67)
    middle = round(size * (1 - p))
    rate = float(
        scipy.stats.binom.cdf(middle + near, size, 1 - p)
        - scipy.stats.binom.cdf(middle - near - 1, size, 1 - p)
    )
    kept = run.keep((blocks * size,), p).reshape(blocks, size).sum(1)
    hits = (abs(kept - middle) <= near).sum()
    run.budget.check(hits, blocks, rate, f"blocks of {size} units with {middle} +- {near} kept")
    # Nor is the number the same in blocks that follow one another, as if one were shuffled.
    mask = run.keep((2**22,), p)
    for size in (2**12, 2**15, 2**18):
        kept = mask.reshape(-1, 2, size).sum(2)
        equal = float((scipy.stats.binom.pmf(np.arange(size + 1), size, p) ** 2).sum())
        hits = int((kept[:, 0] == kept[:, 1]).sum())
        run.budget.check(hits, len(kept), equal, f"pairs of blocks of {size} with the same number")


def _usual(n: int, p: float) -> tuple[int, float]:
    usual = round(n * (1 - p))
    return usual, float(scipy.stats.binom.pmf(usual, n, 1 - p))


@clause(WRONG, statistical=True)
def every_position_and_every_call_counts(run: Run) -> None:
    """No position is favoured, first and last included, and no mask is used twice.

    Two calls that share a mask of 251 units at p = 0.5 have few sources between them: by chance it
    happens once in 2**220 times.
    """
    (p,) = run.rates(0.5)
    effect = POSITION[run.backend.name]
    shapes = {(251,): effect, (13, 19): 0.25, (5, 7, 7): 0.25, (1301,): 0.25}
    for shape, effect in shapes.items():
        number = run.calls(1 - p, effect)
        calls = np.stack([mask.ravel() for mask in run.masks(shape, p, number)])
        for position, kept in enumerate(calls.sum(0)):
            run.budget.check(kept, number, 1 - p, f"calls that kept unit {position} of {shape}")
        if 0.1 <= p <= 0.9:  # else masks of a few hundred units come back by chance
            masks = {mask.tobytes() for mask in calls}
            require(len(masks) == number, f"{number} calls on {shape} gave {len(masks)} masks")


@clause(WRONG, statistical=True)
def keep_rate(run: Run) -> None:
    """A unit is kept with probability 1 - p, so that the mean of x is kept.

    With x constant and values exact, this is also the statement that the variance added is
    x**2 p / (1 - p): mean and variance are functions of the number of units kept.
    """
    _keep_rate(run, "float32")


@clause(FRAGILE, statistical=True)
def small_inputs_are_no_exception(run: Run) -> None:
    """A batch of one, a single row or unit, and a number without dimensions are dropped, too."""
    effect = 0.4
    for shape in ((), (1,), (2,), (4,), (1, 1), (1, 5), (5, 1), (1, 1, 3), (1, 1, 2, 2)):
        for rate in (0.5, 0.9):
            (p,) = run.rates(rate)
            units = int(np.prod(shape))
            calls = -(-run.calls(1 - p, effect) // units)
            kept = sum(int(mask.sum()) for mask in run.masks(shape, p, calls))
            what = f"units kept in calls on the shape {shape} at p = {p:g}"
            run.budget.check(kept, calls * units, 1 - p, what)


@clause(FRAGILE, statistical=True)
def large_inputs_are_no_exception(run: Run) -> None:
    """Beyond unit 2**24, where float32 cannot count, units have the rate and are independent."""
    (p,) = run.rates(0.5)
    n = run.size(2 * p * (1 - p), 0.1 * 2 * p * (1 - p))
    mask = run.keep((LARGE + n,), p)
    end = mask[LARGE:]
    run.budget.check(end.sum(), n, 1 - p, "units kept beyond the unit 2**24")
    pairs = {
        "neighbours": (end[0::2], end[1::2]),
        "the units at the beginning and": (mask[:n], end),
        "the units before and": (mask[LARGE - n : LARGE], end),
    }
    for name, (a, b) in pairs.items():
        what = f"disagreements of {name} beyond the unit 2**24"
        run.budget.check((a != b).sum(), a.size, 2 * p * (1 - p), what)


@clause(FRAGILE, statistical=True)
def keep_rate_in_every_dtype(run: Run) -> None:
    """In float16, bfloat16 and float64, too, a unit is kept with probability 1 - p."""
    for dtype in run.backend.dtypes:
        if dtype != "float32":
            _keep_rate(run, dtype)


def _keep_rate(run: Run, dtype: str) -> None:
    for p in run.rates(*RATE_GRID):
        n = run.size(p, RATE_GRID.get(p, 0.02 * min(p, 1 - p)), most=2**22)
        kept = run.keep((n,), p, dtype=dtype)
        run.budget.check(kept.sum(), n, 1 - p, f"units kept at p = {p:g} in {dtype}")


@clause(WRONG, statistical=True)
def rate_follows_each_call(run: Run) -> None:
    """When the rate changes from call to call, each call uses its own."""
    for p in run.rates(0.2, 0.8, 0.2):
        n = run.size(p, 0.05 if run.subject.p is None else 0.05 * min(p, 1 - p))
        kept = run.keep((n,), p)
        run.budget.check(kept.sum(), n, 1 - p, f"units kept at p = {p:g} after another rate")
