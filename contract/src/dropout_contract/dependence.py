"""The clauses about independence: of units, of axes, of calls and of seeds.

Most count disagreements of pairs of units. Pairs that do not overlap are independent, so that the
count is binomial, each pair with probability 2 p (1 - p).
"""

import math
from collections.abc import Iterable
from itertools import combinations, permutations
from typing import Any

import numpy as np
import scipy.fft

from dropout_contract.budget import RESOLUTION, p_value
from dropout_contract.run import FRAGILE, WRONG, Deviation, Run, clause

CORRELATION = 0.1  # between two units, which must be seen
LONG = 2**22  # units of the mask in which periods are looked for
SHARE = 100  # tests of the budget that the shifts of one pair of masks may use, all together


@clause(WRONG, statistical=True)
def neighbours_are_independent(run: Run) -> None:
    """Two units agree as often as independent ones: along each axis, and at many distances."""
    for p in run.rates(0.5, 0.3, 0.8):
        _neighbours(run, p, "float32", lags=range(1, 1025) if p == run.rates(0.5)[0] else (1, 2))


@clause(FRAGILE, statistical=True)
def neighbours_in_every_dtype(run: Run) -> None:
    """In float16, bfloat16 and float64, too, neighbouring units are independent."""
    (p,) = run.rates(0.5)
    for dtype in run.backend.dtypes:
        if dtype != "float32":
            _neighbours(run, p, dtype, lags=(1, 2))


def _neighbours(run: Run, p: float, dtype: str, lags: range | tuple[int, ...]) -> None:
    n = _pairs(run, p)
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
    """No two examples, channels, rows or columns share a mask, in wide arrays too."""
    (p,) = run.rates(0.4)
    n = _pairs(run, p)
    for axes in (2, 3, 4, 5):
        side = 2 * math.ceil((2 * n) ** (1 / axes) / 2)
        mask = run.keep((side,) * axes, p)
        for axis in range(axes):
            a, b = (mask.take(range(start, side, 2), axis) for start in (0, 1))
            _disagree(run, a, b, p, f"neighbours along axis {axis} of {axes}")
    for shape in ((6, 2**17), (2**17, 6)):
        rows = run.keep(shape, p)
        rows = rows if shape[0] == 6 else rows.T
        for i, j in combinations(range(6), 2):
            _disagree(run, rows[i], rows[j], p, f"lines {i} and {j} of the shape {shape}")


@clause(WRONG, statistical=True)
def mirrored_units_are_independent(run: Run) -> None:
    """A mask is not its own mirror image along any axis, and not its own transpose."""
    (p,) = run.rates(0.5)
    n = _pairs(run, p)
    for axes in (1, 2, 3, 4):
        side = 2 * math.ceil((4 * n) ** (1 / axes) / 2)
        mask = run.keep((side,) * axes, p)
        half = side // 2
        for axis in range(axes):
            a, b = mask.take(range(half), axis), np.flip(mask, axis).take(range(half), axis)
            _disagree(run, a, b, p, f"units and their mirror images along axis {axis} of {axes}")
            for other in set(range(axes)) - {axis}:
                a, b = (mask.take(range(start, side, 2), other) for start in (0, 1))
                what = f"neighbours along axis {other}, one mirrored along axis {axis}, of {axes}"
                _disagree(run, a, np.flip(b, axis), p, what)
        if axes > 1:
            flat = mask.ravel()
            _disagree(run, flat[: flat.size // 2], flat[::-1][: flat.size // 2], p,
                      f"units and those turned by 180 degrees in {axes} axes")  # fmt: skip
        for first, second in combinations(range(axes), 2):
            index = np.indices(mask.shape, sparse=True)
            above: np.ndarray = np.broadcast_to(index[first] < index[second], mask.shape)
            turned = mask.swapaxes(first, second)
            what = f"units and those of the transpose of axes {first} and {second} of {axes}"
            _disagree(run, mask[above], turned[above], p, what)


@clause(WRONG, statistical=True)
def no_part_comes_again(run: Run) -> None:
    """No part of a mask of four million units is like another part, forwards or backwards."""
    for p, n in zip(run.rates(0.5, 0.3), (LONG, LONG // 4), strict=False):
        mask = run.keep((n,), p)
        at_every_shift(run, mask[: n // 2], mask[n // 2 :], 2 * p * (1 - p), "the halves of a mask")
        pairs = mask.reshape(-1, 2)
        at_every_shift(run, pairs[:, 0], pairs[:, 1], 2 * p * (1 - p), "even and odd units")


@clause(WRONG, statistical=True)
def triples_are_independent(run: Run) -> None:
    """No unit is a function of two others: of its neighbours, or of units at many distances.

    At p = 0.5, with kept as +1 and dropped as -1, the product of three units is +1 half of the
    time. Products at i, i + a and i + b are independent for all i, even though they overlap: no
    product of some of them is constant. At other rates, triples that do not overlap are taken.
    """
    for p in run.rates(0.5, 0.3, 0.8):
        n = 2**18
        mask = run.keep((3 * n,), p)
        parts = {"neighbours": mask.reshape(n, 3).T, "thirds": mask.reshape(3, n)}
        for shape, axis in (((3 * 2**8, 2**10), 0), ((2**10, 3 * 2**8), 1),
                            ((48, 4, 64, 64), 0), ((2**7, 3 * 2**5, 8, 8), 1)):  # fmt: skip
            other = run.keep(shape, p)
            triples = (other.take(range(start, shape[axis], 3), axis).ravel() for start in range(3))
            parts[f"neighbours along axis {axis} of {shape}"] = np.stack(list(triples))
        for name, (a, b, c) in parts.items():
            odd, n = (a ^ b ^ c).sum(), a.size
            keep = 1 - p
            rate = keep**3 + 3 * keep * p**2
            run.budget.check(odd, n, rate, f"triples of {name} with 1 or 3 kept")
        if p == 0.5:
            for lag in (1, 2, 3, 4, 8, 16, 28, 32, 64, 128, 256):
                pairs = mask[lag:] ^ mask[:-lag]
                what = f"pairs {lag} apart and a third unit"
                at_every_shift(run, ~pairs[: 2**19], mask[: 2**19], 0.5, what, backwards=False)


@clause(WRONG, statistical=True)
def calls_are_independent(run: Run) -> None:
    """Masks of two calls, such as two layers or two steps, have nothing in common."""
    pairs: tuple[tuple[float, ...], ...] = ((0.5, 0.5), (0.2, 0.2), (0.2, 0.5))
    if run.subject.p is not None:
        pairs = (run.rates(0) * 2,)
    for p, q in pairs:
        apart = p * (1 - q) + q * (1 - p)
        n = run.size(apart, CORRELATION * math.sqrt(p * (1 - p) * q * (1 - q)))
        masks: dict[str, Iterable[np.ndarray]] = {
            "of two seeds": (run.keep((n,), p), run.keep((n,), q))
        }
        if run.backend.has_state:
            masks["in a row"] = run.in_a_row((n,), (p, q))
        for name, (a, b) in masks.items():
            for shift in range(-4, 5):  # nor is one mask the other, moved on
                what = f"disagreements of two calls {name}, shift {shift}"
                run.budget.check((a != np.roll(b, shift)).sum(), n, apart, what)


@clause(WRONG, statistical=True)
def calls_share_no_part(run: Run) -> None:
    """No part of the mask of one call comes again in the mask of another, at any shift."""
    (p,) = run.rates(0.5)
    n = LONG // 16
    groups = {"with other seeds": [run.keep((n,), p) for _ in range(8)]}
    if run.backend.has_state:
        groups["in a row"] = run.in_a_row((n,), (p,) * 8)
    if run.backend.name == "jax" and run.subject.must_refuse:
        from jax import random

        key = run.backend.source(run.new_seed())
        parent = run.keep_with((n // 2,), p, {"key": key})
        for child in (random.fold_in(key, 1), *random.split(key)):
            mask = run.keep_with((n // 2,), p, {"key": child})
            at_every_shift(run, parent, mask, 2 * p * (1 - p), "masks of a key and its child")
    for name, masks in groups.items():
        one, other = np.concatenate(masks[0::2]), np.concatenate(masks[1::2])
        at_every_shift(run, one, other, 2 * p * (1 - p), f"the masks of calls {name}")


@clause(WRONG, statistical=True)
def neighbouring_seeds_are_independent(run: Run) -> None:
    """Seeds or keys that are neighbours give masks that have nothing in common."""
    for p, q in ((0.5, 0.5), (0.2, 0.5)) if run.subject.p is None else (run.rates(0) * 2,):
        apart = p * (1 - q) + q * (1 - p)
        n = run.size(apart, CORRELATION * math.sqrt(p * (1 - p) * q * (1 - q)))
        for name, sources in run.neighbouring_sources().items():
            of = {rate: [run.keep_with((n,), rate, s()) for s in sources] for rate in {p, q}}
            for other in of[q][1:3]:
                at_every_shift(run, of[p][0], other, apart, f"masks of {name}")
            for i, j in (
                permutations(range(len(sources)), 2)
                if p != q
                else combinations(range(len(sources)), 2)
            ):
                for shift in range(-8, 9):
                    different = (of[p][i] != np.roll(of[q][j], shift)).sum()
                    what = f"disagreements of {name} at p = {p:g} and {q:g}, shift {shift}"
                    run.budget.check(different, n, apart, what)


def at_every_shift(
    run: Run, a: np.ndarray, b: np.ndarray, rate: float, what: str, *, backwards: bool = True
) -> None:
    """Check that two masks disagree at the rate given, at every shift, b forwards and backwards.

    At each shift, each unit is in one pair, so the pairs are independent. A Fourier transform
    counts the disagreements of all shifts at once. The shifts share a part of the budget.
    """
    n = len(a)
    shifts = np.arange(-n + 1, n)
    pairs = n - abs(shifts)
    run.budget.spend(2 * SHARE)
    alpha = run.budget.alpha * SHARE / len(shifts)
    size = scipy.fft.next_fast_len(2 * n, real=True)
    signs = [np.where(mask, np.float32(1), np.float32(-1)) for mask in (a, b)]
    spectra = [scipy.fft.rfft(s, size) for s in signs]
    for name, other in (("", np.conj(spectra[0])), (", one of them backwards", spectra[0])):
        if name and not backwards:
            continue
        sums = scipy.fft.irfft(spectra[1] * other, size)
        # Correlations lie around 0, negative shifts at the end. Those of the reversed one do not.
        sums = sums[: 2 * n - 1] if name else np.concatenate([sums[-n + 1 :], sums[:n]])
        apart = np.rint((pairs - sums) / 2).clip(0, pairs)
        spread = np.sqrt(pairs * rate * (1 - rate))
        for index in np.flatnonzero(abs(apart - pairs * rate) > 5 * spread + RESOLUTION * pairs):
            if float(p_value(int(apart[index]), int(pairs[index]), rate)) <= alpha:
                seen = apart[index] / pairs[index]
                raise Deviation(
                    f"disagreements of {what}{name}, moved on by {shifts[index]}: {seen:.5f}"
                    f" instead of {rate:.5f} ({pairs[index]} seen)"
                )


def _pairs(run: Run, p: float) -> int:
    return run.size(2 * p * (1 - p), CORRELATION * 2 * p * (1 - p))


def _disagree(run: Run, a: Any, b: Any, p: float, what: str) -> None:
    run.budget.check((a != b).sum(), a.size, 2 * p * (1 - p), f"disagreements of {what}")
