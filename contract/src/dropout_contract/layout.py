"""The clauses about arrays that are not plain rows in memory, and about numbers of other kinds."""

import contextlib
from collections.abc import Iterator

import numpy as np

from dropout_contract.exact import keeps_shape_and_dtype, refused
from dropout_contract.run import (
    CONVENTION,
    FRAGILE,
    NotApplicable,
    Run,
    clause,
    require,
    same,
)
from dropout_contract.subjects import Raised


@clause(FRAGILE)
def edge_shapes(run: Run) -> None:
    """An x without dimensions or without elements keeps its shape."""
    (p,) = run.rates(0.5)
    for shape in ((), (0,), (3, 0, 2)):
        keeps_shape_and_dtype(run, shape, p, "float32")


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


@clause(FRAGILE)
def where_x_lies_does_not_matter(run: Run) -> None:
    """The mask of a view that starts inside another array is that of its copy."""
    if run.backend.name == "jax":
        raise NotApplicable("arrays of JAX are no views")
    run.needs_replay()
    (p,) = run.rates(0.5)
    whole = run.backend.array(np.ones(8194, np.float32))
    rows = run.backend.array(np.ones((65, 128), np.float32))
    for view, name in ((whole[1:8193], "x[1:]"), (whole[2:], "x[2:]"), (rows[1:], "rows[1:]")):
        seed = run.new_seed()
        out = run.backend.numpy(run.subject(view, p, seed=seed))
        same(out != 0, run.keep(tuple(view.shape), p, seed=seed), f"the mask of {name}")


@clause(CONVENTION)
def layout_does_not_change_the_mask(run: Run) -> None:
    """The mask belongs to positions, not to memory: a transposed x has the mask of its copy."""
    if run.backend.name == "jax":
        raise NotApplicable("arrays of JAX have no strides")
    (p,) = run.rates(0.5)
    for name, (x, numbers) in run.backend.strided(run.numbers(20, 3, 4, 5)).items():
        if name == "the second half":  # whose layout is plain
            continue
        seed = run.new_seed()
        out = run.backend.numpy(run.subject(x, p, seed=seed))
        same(out != 0, run.keep(numbers.shape, p, seed=seed), f"the mask of an x that is {name}")


@clause(FRAGILE)
def default_dtype_does_not_matter(run: Run) -> None:
    """In PyTorch, a default dtype of float64 changes no dtype, value or rate."""
    with _default_dtype_of_float64(run):
        for p in run.rates(0.3, 0.5):
            x = run.numbers(4096)
            out = run(x, p)
            kept = out != 0
            same(out[kept], x[kept] / (1 - p), "kept units, default dtype float64", rtol=3e-7)
            n = run.size(p, 0.1 * min(p, 1 - p))
            count = run.keep((n,), p).sum()
            run.budget.check(count, n, 1 - p, f"units kept at p = {p:g}, default dtype float64")
            keeps_shape_and_dtype(run, (3, 5), p, "float32")


@clause(CONVENTION)
def default_dtype_does_not_change_the_mask(run: Run) -> None:
    """A source gives the same float32 mask for any default dtype, in JAX with 64 bits or not."""
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    expected = run.keep((4096,), p, seed=seed)
    run.needs_replay()
    x = run.backend.array(np.ones(4096, np.float32))
    wide = (
        run.backend.precision("float64")
        if run.backend.name == "jax"
        else (_default_dtype_of_float64(run))
    )
    with wide:
        seen = run.backend.numpy(run.subject(x, p, seed=seed)) != 0
    same(seen, expected, "the mask under a default dtype of float64")


@contextlib.contextmanager
def _default_dtype_of_float64(run: Run) -> Iterator[None]:
    if run.backend.name != "torch":
        raise NotApplicable("only PyTorch has a default dtype")
    torch = run.backend.xp
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@clause(FRAGILE)
def powers_of_two_are_exact(run: Run) -> None:
    """At p = 1 / 2 and 3 / 4, kept units are exactly 2 x and 4 x: no digit is lost on the way."""
    for dtype in run.backend.dtypes:
        for p in (0.5, 0.75) if run.subject.p is None else (run.subject.p,):
            if 1 / (1 - p) not in (2, 4):
                raise NotApplicable(f"the layer has p = {p:g}")
            x = _all_magnitudes(run, dtype, 2**16)
            seed = run.new_seed()
            kept = run.keep(x.shape, p, seed=seed, dtype=dtype)
            with np.errstate(over="ignore"):
                expected = np.where(kept, run.exactly(x / np.float64(1 - p), dtype), 0)
            out = run(x, p, seed=seed, dtype=dtype)
            finite = np.isfinite(expected)  # what overflows is another clause's
            same(out[finite], expected[finite], f"values in {dtype} at p = {p:g}")


def _all_magnitudes(run: Run, dtype: str, n: int) -> np.ndarray:
    """Return numbers with all digits that a dtype has, from its smallest normal to its largest."""
    # float16 has no small exponents, and 16-bit floats reach NumPy as float32.
    smallest, largest = {"float16": (-14, 15), "float64": (-1022, 1023)}.get(dtype, (-126, 127))
    exponents = np.arange(n) % (largest - smallest + 1) + smallest
    digits = run.numbers(n).astype(np.float64) + 2.0**-40 * np.arange(n)
    digits = np.sign(digits) * (1 + abs(digits) % 1)
    x = run.exactly(np.ldexp(digits, exponents), dtype)
    return np.where(np.isfinite(x), x, 1)  # the largest may be rounded up to infinity


@clause(FRAGILE)
def long_doubles_stay_long(run: Run) -> None:
    """In NumPy, the digits of a long double beyond those of a double survive."""
    double = np.finfo(np.longdouble).eps == np.finfo(np.float64).eps
    if run.backend.name != "numpy" or double:
        raise NotApplicable("there are no long doubles" if double else "only NumPy has them")
    if run.subject.p not in (None, 0.5):
        raise NotApplicable(f"the layer has p = {run.subject.p:g}, not 0.5")
    x = np.longdouble(1) + np.finfo(np.longdouble).eps * np.arange(1, 257).astype(np.longdouble)
    try:
        out = np.asarray(run.subject(x.copy(), 0.5, seed=run.new_seed()))
    except Raised as error:
        raise NotApplicable(f"it takes no long doubles: {error}") from error
    require(out.dtype == x.dtype, f"{x.dtype} became {out.dtype}")
    kept = out != 0
    require((out[kept] == 2 * x[kept]).all(), "the last digits of a long double are lost")


@clause(FRAGILE)
def any_byte_order(run: Run) -> None:
    """In NumPy, an array with the other byte order gives the right values."""
    if run.backend.name != "numpy":
        raise NotApplicable("only NumPy has byte orders")
    (p,) = run.rates(0.5)
    numbers = run.numbers(256)
    x = numbers.astype(numbers.dtype.newbyteorder())
    out = np.asarray(run.subject(x, p, seed=run.new_seed()))
    kept = out != 0
    same(out[kept], numbers[kept] / np.float32(1 - p), "an x of the other byte order", rtol=3e-7)
    same(x, numbers, "an x of the other byte order, after the call")


@clause(CONVENTION)
def numpy_scalars_are_rates(run: Run) -> None:
    """A rate may be a scalar of NumPy, and does not change the dtype of the result."""
    if run.subject.p is not None:
        raise NotApplicable(f"the layer has p = {run.subject.p:g}")
    for kind in (np.float64, np.float32, np.float16):
        p, x = kind(0.25), run.numbers(256)
        keeps_shape_and_dtype(run, (2, 3), p, "float32")
        with run.backend.precision("float64"):  # in JAX, a wide scalar is made narrow otherwise
            wide = run.subject(run.backend.array(x), p, seed=run.new_seed())
            require(run.backend.dtype(wide) == "float32", f"float32 became {wide.dtype}")
        out = run(x, p)
        kept = out != 0
        same(out[kept], x[kept] / 0.75, f"p = {kind.__name__}(0.25)", rtol=3e-7)


@clause(CONVENTION)
def a_truth_value_is_no_rate(run: Run) -> None:
    """True and False are not taken for the rates 1 and 0: they are a TypeError or ValueError."""
    if run.subject.p is not None:
        raise NotApplicable(f"the layer has p = {run.subject.p:g}")
    x = run.backend.array(np.ones(4))
    for p in (True, False, np.True_, np.False_):
        refused((TypeError, ValueError), f"p = {p!r}", run, x, p, training=True)


@clause(CONVENTION)
def zeros_keep_their_sign(run: Run) -> None:
    """A kept -0.0 stays -0.0, and a dropped unit is +0.0 even if it was negative."""
    (p,) = run.rates(0.5)
    seed = run.new_seed()
    kept = run.keep((256,), p, seed=seed)
    numbers = run.numbers(256)
    for x, what in ((np.full(256, -0.0), "x = -0.0"), (numbers, "x of both signs")):
        minus = np.signbit(run(x, p, seed=seed))
        same(minus, kept & np.signbit(x), f"where the result has a minus sign, {what}")
