"""The dropouts, their noise and the PRNG as functions, with odd arguments."""

import decimal
import fractions
import functools
import importlib
import random
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np

from impls.numpy import prng
from tests.reliability.inputs.attempts import Attempt, function

FRAMEWORKS = ("torch", "jax", "numpy")
SHAPE = (3, 4)
Make = Callable[[Any], Any]  # from the tools of a framework to an odd value


@functools.cache
def tools(framework: str) -> SimpleNamespace:
    """Return what a framework has. Called in the process of the attempt only."""
    import jax
    import jax.numpy as jnp
    import torch

    arrays = {"torch": torch.tensor, "jax": jnp.asarray, "numpy": np.asarray}
    modules = {
        name: importlib.import_module(f"impls.{framework}.{name}") for name in ("dropout", "noise")
    }
    sources = {
        "torch": ("generator", lambda: torch.Generator().manual_seed(0)),
        "jax": ("key", lambda: jax.random.key(0)),
        "numpy": ("rng", lambda: np.random.default_rng(0)),
    }
    array, (source_name, source) = arrays[framework], sources[framework]
    values = np.arange(12, dtype=np.float32).reshape(SHAPE)
    return SimpleNamespace(
        name=framework, array=array, x=array(values), keep=array(values % 2 == 0), 
        source_name=source_name, source=source, jax=jax, jnp=jnp, torch=torch, **modules,
    )  # fmt: skip


class Real(float):
    """A float that is more than one."""


class Floatable:
    """Something that float() takes."""

    def __float__(self) -> float:
        return 0.5


XS: dict[str, Make] = {
    "None": lambda f: None,
    "a float": lambda f: 1.0,
    "a list": lambda f: [1.0, 2.0],
    "text": lambda f: "x",
    "an object": lambda f: object(),
    "the class": lambda f: type(f.x),
    "a NumPy array": lambda f: np.ones(SHAPE, np.float32),
    "a tensor": lambda f: f.torch.ones(SHAPE),
    "an array of JAX": lambda f: f.jnp.ones(SHAPE),
    "whole numbers": lambda f: f.array(np.ones(SHAPE, np.int32)),
    "booleans": lambda f: f.array(np.ones(SHAPE, bool)),
    "complex": lambda f: f.array(np.ones(SHAPE, np.complex64)),
    "0-d": lambda f: f.array(np.float32(3)),
    "empty": lambda f: f.array(np.ones((0,), np.float32)),
    "empty in a dimension": lambda f: f.array(np.ones((3, 0, 2), np.float32)),
    "float16": lambda f: f.array(np.ones(SHAPE, np.float16)),
    "float8": lambda f: (
        f.torch.ones(SHAPE).to(f.torch.float8_e4m3fn)
        if f.name == "torch" else f.array(np.ones(SHAPE, ml_dtypes.float8_e4m3fn))
    ),
    "transposed": lambda f: f.x.T,
    "strided": lambda f: f.x[:, ::2],
    "expanded": lambda f: (
        f.torch.ones(1, 4).expand(3, 4)
        if f.name == "torch" else f.array(np.broadcast_to(np.ones(4, np.float32), SHAPE))
    ),
    "not finite": lambda f: f.array(np.float32([np.nan, np.inf, -np.inf, 0])),
    "a scalar of NumPy": lambda f: np.float32(1),
    "longdouble": lambda f: np.ones(SHAPE, np.longdouble),
    "objects": lambda f: np.array([1.0, None], object),
    "text in an array": lambda f: np.array(["a", "b"]),
    "records": lambda f: np.zeros(3, [("a", np.float32)]),
    "a matrix": lambda f: np.ones(SHAPE, np.float32).view(np.matrix),
    "masked": lambda f: np.ma.masked_array(np.ones(SHAPE, np.float32), True),
    "sparse": lambda f: f.torch.ones(SHAPE).to_sparse(),
    "nested": lambda f: f.torch.nested.nested_tensor([f.torch.ones(2), f.torch.ones(3)]),
    "quantized": lambda f: f.torch.quantize_per_tensor(f.torch.ones(3), 0.1, 0, f.torch.qint8),
    "a parameter": lambda f: f.torch.nn.Parameter(f.torch.ones(SHAPE)),
}  # fmt: skip
ONLY_NUMPY: dict[str, Make] = {
    "read-only": lambda f: np.frombuffer(np.ones(12, np.float32).tobytes(), np.float32),
    "big-endian": lambda f: np.ones(SHAPE, ">f4"),
    "bfloat16": lambda f: np.ones(SHAPE, ml_dtypes.bfloat16),
    "larger than the memory": lambda f: np.broadcast_to(np.float32(1), (2**40,)),
    "65 dimensions and more": lambda f: np.ones((1,) * 64, np.float32),
}
PS: dict[str, Make] = {
    "None": lambda f: None,
    "text": lambda f: "0.5",
    "NaN": lambda f: float("nan"),
    "infinite": lambda f: float("inf"),
    "negative": lambda f: -0.1,
    "the least negative": lambda f: -5e-324,
    "the least": lambda f: 5e-324,
    "almost 1": lambda f: 1 - 2**-53,
    "more than 1": lambda f: 1 + 2**-52,
    "True": lambda f: True,
    "complex": lambda f: 0.5 + 0j,
    "a fraction": lambda f: fractions.Fraction(1, 2),
    "a tiny fraction": lambda f: fractions.Fraction(1, 10**400),
    "a decimal": lambda f: decimal.Decimal("0.5"),
    "float16": lambda f: np.float16(0.5),
    "float32": lambda f: np.float32(0.5),
    "longdouble": lambda f: np.longdouble(0.5),
    "an int64": lambda f: np.int64(1),
    "an array": lambda f: f.array(np.float32(0.5)),
    "a list": lambda f: [0.5],
    "a huge number": lambda f: 10**400,
    "an object": lambda f: object(),
    "something with __float__": lambda f: Floatable(),
    "a subclass of float": lambda f: Real(0.5),
    "a time": lambda f: np.timedelta64(0),
}
SHAPES: dict[str, Make] = {
    "None": lambda f: None, "5": lambda f: 5, "-1": lambda f: -1, "(-1,)": lambda f: (-1,),
    "(2.5,)": lambda f: (2.5,), "text": lambda f: "ab", "text in it": lambda f: ("a",),
    "a list": lambda f: [3, 4], "()": lambda f: (), "(0,)": lambda f: (0,),
    "(2**40,)": lambda f: (2**40,), "(2**70,)": lambda f: (2**70,), "True": lambda f: (True, 2),
    "an array": lambda f: np.array([3, 4]), "an object": lambda f: object(),
    "None in it": lambda f: (None,), "70 dimensions": lambda f: (1,) * 70,
    "(2**40, 0)": lambda f: (2**40, 0), "nested": lambda f: ((2,), 3),
}  # fmt: skip
SOURCES: dict[str, Make] = {
    "None": lambda f: None,
    "a seed": lambda f: 0,
    "text": lambda f: "seed",
    "an object": lambda f: object(),
    "random.Random": lambda f: random.Random(0),
    "numpy.random": lambda f: np.random,
    "a RandomState": lambda f: np.random.RandomState(0),
    "a generator of NumPy": lambda f: np.random.default_rng(0),
    "a class": lambda f: np.random.Generator,
    "a generator of PyTorch": lambda f: f.torch.Generator(),
    "a key": lambda f: f.jax.random.key(0),
    "a key of the old kind": lambda f: f.jax.random.PRNGKey(0),
    "two keys": lambda f: f.jax.random.split(f.jax.random.key(0)),
    "a key in NumPy": lambda f: prng.key(0),
    "two keys in NumPy": lambda f: prng.split(prng.key(0)),
    "a float array": lambda f: np.ones(2, np.float32),
    "an empty array": lambda f: np.ones(0, np.uint32),
    "a 0-d array": lambda f: np.uint32(0).reshape(()),
    "a replay of PyTorch's": lambda f: prng.Generator(),
}
KEEPS: dict[str, Make] = {
    "a list": lambda f: [[True] * 4] * 3,
    "True": lambda f: True,
    "text": lambda f: "keep",
    "an object": lambda f: object(),
    "floats": lambda f: f.array(np.ones(SHAPE, np.float32)),
    "halves": lambda f: f.array(np.full(SHAPE, 0.5, np.float32)),
    "whole numbers": lambda f: f.array(np.ones(SHAPE, np.int64)),
    "bytes": lambda f: f.array(np.ones(SHAPE, np.uint8)),
    "a row": lambda f: f.array(np.ones(4, bool)),
    "a column": lambda f: f.array(np.ones((3, 1), bool)),
    "transposed": lambda f: f.array(np.ones((4, 3), bool)),
    "0-d": lambda f: f.array(np.ones((), bool)),
    "strided": lambda f: f.array(np.ones((3, 8), bool))[:, ::2],
    "a mask of NumPy": lambda f: np.ones(SHAPE, bool),
    "a mask of PyTorch": lambda f: f.torch.ones(SHAPE, dtype=f.torch.bool),
    "a mask of JAX": lambda f: f.jnp.ones(SHAPE, bool),
    "objects": lambda f: np.full(SHAPE, None, object),
    "a masked mask": lambda f: np.ma.masked_array(np.ones(SHAPE, bool), True),
    "sparse": lambda f: f.torch.ones(SHAPE, dtype=f.torch.bool).to_sparse(),
}


def as_numpy(array: Any) -> np.ndarray:
    """Return an array of any framework as float64."""
    if hasattr(array, "detach"):
        array = array.detach().double().numpy()
    return np.asarray(array).astype(np.float64)


def same_shape(result: Any, x: Any) -> None:
    """Check that a result has the shape and the dtype of x."""
    assert (result.shape, result.dtype) == (x.shape, x.dtype), (result.shape, result.dtype)


def check(result: Any, x: Any, p: Any, keep: Any = None) -> None:
    """Check that a result is what dropout of x may return."""
    same = type(result) is type(x) or type(x).__name__ == "Parameter"
    assert same or keep is not None, type(result)  # apply_keep converts what NumPy or JAX can
    same_shape(result, x)
    values, inputs = as_numpy(result), as_numpy(x)
    kept = inputs / (1 - float(p)) if p < 1 else np.zeros_like(inputs)
    close = np.isclose(values, kept, rtol=1e-2, equal_nan=True)
    assert (close | (values == 0)).all(), values
    if keep is not None:
        assert (values[~as_numpy(keep).astype(bool)] == 0).all(), values
        assert close[as_numpy(keep).astype(bool)].all(), values


def mask_for(f: SimpleNamespace, x: Any) -> Any:
    """Return a mask of the shape of x, or any mask if x has none."""
    try:
        return f.array(np.ones(x.shape, bool))
    except Exception:
        return f.keep


def tries(f: SimpleNamespace) -> dict[str, tuple[dict[str, Make], Callable[[Any], Any]]]:
    """Return what is called with which odd values."""
    source = {f.source_name: f.source()} if f.source_name else {}
    on = {"training": True, **source}
    d, n, x, keep = f.dropout, f.noise, f.x, f.keep

    def mask(m: Any, shape: tuple[int, ...] | None = None) -> None:
        assert "bool" in str(m.dtype)
        assert shape is None or tuple(m.shape) == shape

    xs = XS | (ONLY_NUMPY if f.name == "numpy" else {})
    found = {
        "dropout of x": (xs, lambda v: check(d.dropout(v, 0.5, **on), v, 0.5)),
        "dropout of x, p = 1": (xs, lambda v: check(d.dropout(v, 1, training=True), v, 1)),
        "dropout of x, off": (xs, lambda v: check(d.dropout(v, 0.5, training=False), v, 0)),
        "dropout with p": (PS, lambda v: check(d.dropout(x, v, **on), x, v)),
        "dropout with the source": (
            SOURCES,
            lambda v: check(d.dropout(x, 0.5, training=True, **{f.source_name: v}), x, 0.5),
        ),
        "sample_keep of the shape": (SHAPES, lambda v: mask(d.sample_keep(v, 0.5, **source))),
        "sample_keep with p": (PS, lambda v: mask(d.sample_keep(SHAPE, v, **source), SHAPE)),
        "sample_keep with the source": (
            SOURCES, lambda v: mask(d.sample_keep(SHAPE, 0.5, **{f.source_name: v}), SHAPE),
        ),
        "apply_keep to x": (
            xs,
            lambda v: check(d.apply_keep(v, mask_for(f, v), 0.5), v, 0.5, mask_for(f, v)),
        ),
        "apply_keep with keep": (KEEPS, lambda v: check(d.apply_keep(x, v, 0.5), x, 0.5, v)),
        "apply_keep with p": (
            {name: make for name, make in PS.items() if name != "an int64"},  # 1 needs another mask
            lambda v: check(d.apply_keep(x, keep, v), x, v, keep),
        ),
        "noise of x": (
            xs, lambda v: same_shape(n.noise(v, 0.5, kind="gaussian", **on), v),
        ),
        "noise with p": (
            PS, lambda v: same_shape(n.noise(x, v, kind="masks", masks=2, **on), x),
        ),
        "noise of the kind": (
            PS | SHAPES,
            lambda v: same_shape(n.noise(x, 0.5, kind=v, **on), x),
        ),
        "noise with masks": (
            PS | SHAPES,
            lambda v: same_shape(n.noise(x, 0.5, kind="masks", masks=v, **on), x),
        ),
        "sample_noise of the shape": (
            SHAPES, lambda v: n.sample_noise(v, 0.5, kind="uniform", **source).shape,
        ),
        "sample_noise with the source": (
            SOURCES,
            lambda v: n.sample_noise(SHAPE, 0.5, kind="lognormal", **{f.source_name: v}).shape,
        ),
        "dropconnect of x": (xs, lambda v: connect(f, x=v)),
        "dropconnect with the weight": (xs, lambda v: connect(f, weight=v)),
        "dropconnect with the bias": (xs, lambda v: connect(f, bias=v)),
        "dropconnect with p": (PS, lambda v: connect(f, p=v)),
    }  # fmt: skip
    if hasattr(d, "Dropout"):  # the layers
        found |= {
            "Dropout of p": (PS, lambda v: check(d.Dropout(v)(x, **source), x, v)),
            "Dropout of x": (xs, lambda v: check(d.Dropout(0.5)(v, **source), v, 0.5)),
            "Dropout with keep": (KEEPS, lambda v: check(d.Dropout(0.5)(x, keep=v), x, 0.5, v)),
            "Noise of p": (PS, lambda v: same_shape(n.Noise(v)(x, **source), x)),
            "Noise with keep": (KEEPS | xs, lambda v: same_shape(n.Noise(0.5)(x, keep=v), x)),
        }
    return found


def connect(f: SimpleNamespace, **changed: Any) -> None:
    """Call dropconnect with one odd argument, and check the shape."""
    arguments = {
        "x": f.array(np.ones(SHAPE, np.float32)), "weight": f.array(np.ones((2, 4), np.float32)),
        "bias": f.array(np.ones(2, np.float32)), "p": 0.5, "training": True,
        f.source_name: f.source(),
    }  # fmt: skip
    result = f.noise.dropconnect(**{**arguments, **changed})
    assert tuple(result.shape) == (3, 2), result.shape
    assert result.dtype == f.x.dtype, result.dtype


def prng_tries() -> dict[str, tuple[dict[str, Make], Callable[[Any], Any]]]:
    """Return what of prng.py is called with which odd values."""
    k = prng.key(0)
    numbers = PS | SHAPES
    dtypes = PS | {
        str(t): (lambda f, t=t: t) for t in ("f2", "f4", "f8", "i4", "u1", "u8", "c8", "x")
    }
    return {
        "key": (numbers, lambda v: prng.split(prng.key(v))),
        "split a key": (SOURCES, lambda v: prng.split(v)),
        "split into": (numbers, lambda v: prng.split(k, v)),
        "fold_in": (numbers, lambda v: prng.fold_in(k, v)),
        "fold_in a key": (SOURCES, lambda v: prng.fold_in(v, 1)),
        "bits of the shape": (SHAPES, lambda v: prng.bits(k, v)),
        "bits of the dtype": (dtypes, lambda v: prng.bits(k, (3,), v)),
        "uniform of the dtype": (dtypes, lambda v: prng.uniform(k, (3,), v)),
        "bernoulli with p": (PS, lambda v: prng.bernoulli(k, v, (3,))),
        "manual_seed": (numbers, lambda v: prng.Generator().manual_seed(v)),
        "rand of the shape": (SHAPES, lambda v: prng.rand(v, generator=prng.Generator())),
        "rand with the source": (SOURCES, lambda v: prng.rand((3,), generator=v)),
        "rand of the dtype": (
            dtypes,
            lambda v: prng.rand((3,), generator=prng.Generator(), dtype=v),
        ),
        "random with the source": (SOURCES, lambda v: prng.random(v, (3,))),
        "for_layers": (numbers, lambda v: prng.for_layers(k, v)),
    }


def one(framework: str, name: str, odd: str) -> None:
    """Call one function with one odd value."""
    f = tools(framework)
    odds, call = (tries(f) if name in tries(f) else prng_tries())[name]
    try:
        with warnings.catch_warnings(action="ignore"):
            value = odds[odd](f)
    except Exception:  # the framework does not even make such a thing
        return
    try:
        call(value)
    except (MemoryError, RuntimeError) as error:
        if "alloc" in str(error).lower() or "memory" in str(error).lower():
            raise ValueError(str(error).splitlines()[0]) from None
        raise


def attempts(folder: Path) -> Iterator[Attempt]:
    """Yield what to try."""
    rng = random.Random(0)
    blank = SimpleNamespace(
        dropout=SimpleNamespace(Dropout=None), noise=None, x=None, keep=None, source_name=""
    )
    for framework in FRAMEWORKS:
        blank.name = framework
        blank.dropout = SimpleNamespace() if framework == "numpy" else SimpleNamespace(Dropout=None)
        found = {name: odds for name, (odds, _) in tries(blank).items()}
        if framework == "numpy":
            found |= {f"prng: {name}": odds for name, (odds, _) in prng_tries().items()}
        for name, odds in found.items():
            for odd in odds:
                if framework == "jax" and rng.random() > 0.2:
                    continue
                call = functools.partial(one, framework, name.removeprefix("prng: "), odd)
                yield Attempt(f"{framework}, {name}: {odd}", function(call))
