"""The mission's three, and the rest of the dropout contract, on every framework alike.

Statistical tests here use fixed seeds, so they cannot fail now and then; their false-alarm rate
says how likely the chosen seed was to be an unlucky one.
"""

import contextlib
import math
import re

import jax
import numpy as np
import pytest
import scipy.stats
import torch

from tests.adapters import ALL, JAX, NUMPY, TORCH, Adapter

DTYPES = ("float16", "bfloat16", "float32", "float64")
FALSE_ALARM = 1e-9


def call(framework: Adapter, x, p, *, training=True, seed=0):
    return framework.dropout.dropout(x, p, training=training, **framework.source(seed))


def x64(dtype: str) -> contextlib.AbstractContextManager[None]:
    """JAX has float64 only where it is asked for."""
    return jax.enable_x64(True) if dtype == "float64" else contextlib.nullcontext()


def sample_size(p: float, effect: float) -> int:
    """Draws at which a rate that is off by `effect` is missed once in 1 / FALSE_ALARM times."""
    z = scipy.stats.norm.isf(FALSE_ALARM / 2)
    return math.ceil((2 * z) ** 2 * max(p * (1 - p), 0.25 * effect) / effect**2)


@pytest.mark.parametrize("p", [0.01, 0.2, 0.5, 0.9])
def test_expectation_is_kept(framework: Adapter, p: float):
    # The mean of n units of 1 is kept / n / (1 - p): it matches 1 as far as the number kept is
    # binomial. A keep rate off by 0.01 (u > p, randn, p and 1 - p swapped) is found out.
    n = sample_size(p, effect=0.01)
    out = framework.numpy(call(framework, framework.array(np.ones(n, np.float32)), p))
    kept = np.count_nonzero(out)
    assert scipy.stats.binomtest(kept, n, 1 - p).pvalue > FALSE_ALARM
    assert out.mean(dtype=np.float64) == pytest.approx(kept / n / (1 - p), rel=1e-6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_zeros_at_one(framework: Adapter, dtype: str):
    with x64(dtype):
        x = framework.array([1.0, -2.0, np.inf, np.nan], dtype)
        out = framework.dropout.dropout(x, 1.0, training=True)  # and needs no randomness
    np.testing.assert_array_equal(framework.numpy(out), np.zeros(4))
    assert out.dtype == x.dtype


def test_zero_gradient_at_one(trainable: Adapter):
    x = trainable.array(np.array([1.0, -2.0, np.inf], np.float32))
    gradient = trainable.gradient(lambda x: trainable.dropout.dropout(x, 1.0, training=True), x)
    np.testing.assert_array_equal(gradient, np.zeros(3))


@pytest.mark.parametrize("training", [True, False])
def test_identity_at_zero(framework: Adapter, training: bool):
    x = framework.array(np.array([0.0, -1.0, np.inf, np.nan], np.float32))
    assert framework.dropout.dropout(x, 0.0, training=training) is x


def test_a_uniform_of_zero_is_kept_at_zero(framework: Adapter, monkeypatch: pytest.MonkeyPatch):
    class Zero:
        def random(self, shape, dtype):
            return np.zeros(shape, dtype)

    monkeypatch.setattr("torch.rand", lambda shape, **_: torch.zeros(shape))
    monkeypatch.setattr("jax.random.uniform", lambda key, shape, dtype: JAX.array(np.zeros(shape)))
    source = {"rng": Zero()} if framework is NUMPY else framework.source(0)
    device = {"device": "cpu"} if framework is TORCH else {}
    keep = framework.dropout.sample_keep((8,), 0.0, **source, **device)
    assert framework.numpy(keep).all()


def test_evaluation_is_the_identity_and_draws_nothing(framework: Adapter):
    x = framework.array(np.ones(8, np.float32))
    assert framework.dropout.dropout(x, 0.5, training=False) is x
    source = framework.source(0)
    before = framework.array(np.ones(64, np.float32))
    framework.dropout.dropout(x, 0.5, training=False, **source)
    after_eval = framework.dropout.dropout(before, 0.5, training=True, **source)
    np.testing.assert_array_equal(
        framework.numpy(after_eval), framework.numpy(call(framework, before, 0.5))
    )


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3, 0), (7,), (5, 3), (2, 3, 4)])
def test_values_shape_and_dtype(framework: Adapter, dtype: str, shape: tuple[int, ...]):
    p = 0.3
    with x64(dtype):
        x = framework.array(np.random.default_rng(1).normal(size=shape), dtype)
        out = call(framework, x, p)
    assert out.dtype == x.dtype
    assert tuple(out.shape) == shape
    values, inputs = framework.numpy(out), framework.numpy(x).astype(np.float64)
    keep = framework.numpy(framework.keep(shape, p, seed=0))
    assert (values[~keep] == 0).all()
    # 1 - p, or with XLA 1 / (1 - p), may be rounded first, which adds half a unit.
    unit = {"float16": 2**-10, "bfloat16": 2**-7, "float32": 2**-23, "float64": 2**-52}[dtype]
    np.testing.assert_allclose(values[keep], inputs[keep] / (1 - p), rtol=1.5 * unit)


def test_input_is_not_changed_and_may_have_any_strides(framework: Adapter):
    x = framework.array(np.arange(12, dtype=np.float32).reshape(3, 4)).T
    copy = framework.numpy(x).copy()
    out = framework.numpy(call(framework, x, 0.5))
    np.testing.assert_array_equal(framework.numpy(x), copy)
    keep = framework.numpy(framework.keep((4, 3), 0.5, seed=0))
    np.testing.assert_array_equal(out, np.where(keep, copy * 2, 0))


def test_dropped_infinity_and_nan_become_zero(framework: Adapter):
    x = framework.array(np.full(64, np.inf, np.float32))
    assert set(framework.numpy(call(framework, x, 0.5))) == {0.0, np.inf}
    x = framework.array(np.full(64, np.nan, np.float32))
    keep = framework.numpy(framework.keep((64,), 0.5, seed=0))
    np.testing.assert_array_equal(np.isnan(framework.numpy(call(framework, x, 0.5))), keep)


def test_gradient_goes_through_the_same_mask(trainable: Adapter):
    x = trainable.array(np.ones(64, np.float32))
    gradient = trainable.gradient(lambda x: call(trainable, x, 0.2), x)
    keep = trainable.numpy(trainable.keep((64,), 0.2, seed=0))
    np.testing.assert_allclose(gradient, keep / 0.8, rtol=1e-6)


def test_same_source_same_mask_another_source_another_mask(framework: Adapter):
    a, b, c = (framework.numpy(framework.keep((64,), 0.5, seed=seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert (a != c).any()


def message(framework: Adapter, error: type[Exception], *args, **kwargs) -> str:
    with pytest.raises(error) as caught:
        framework.dropout.dropout(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("p", "error"),
    [
        (-0.1, ValueError),
        (1.1, ValueError),
        (math.nan, ValueError),
        (math.inf, ValueError),
        ("0.5", TypeError),
        (None, TypeError),
        (True, TypeError),
        (0.5j, TypeError),
        (np.array([0.5]), TypeError),
    ],
)
def test_bad_p_has_one_wording(p, error: type[Exception], training: bool):
    messages = {
        message(f, error, f.array(np.ones(2, np.float32)), p, training=training) for f in ALL
    }
    assert len(messages) == 1
    assert "p must be" in messages.pop()


@pytest.mark.parametrize("p", [0, 1, np.float32(0.5), np.float64(0.5)])
def test_any_real_number_is_a_p(framework: Adapter, p):
    x = framework.array(np.ones(4), "float16")
    assert call(framework, x, p).dtype == x.dtype


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_only_real_floating_point(framework: Adapter, dtype: str, training: bool):
    x = framework.array(np.ones(4), dtype)
    assert dtype in message(framework, TypeError, x, 0.5, training=training)


def test_missing_source_says_what_to_pass(framework: Adapter):
    x = framework.array(np.ones(4, np.float32))
    (name,) = framework.source(0)
    assert f"pass {name}=" in message(framework, ValueError, x, 0.5, training=True)
    device = {"device": "cpu"} if framework is TORCH else {}
    with pytest.raises(ValueError, match=f"pass {name}="):
        framework.dropout.sample_keep((4,), 0.5, **{name: None}, **device)


def test_global_random_state_is_neither_read_nor_written(framework: Adapter):
    x = framework.array(np.ones(64, np.float32))
    outs = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        outs.append(framework.numpy(call(framework, x, 0.5)))
        framework.mlp.MLP(4, 3, 2, 2)
        assert torch.equal(torch.get_rng_state(), before[0])
        assert (np.random.get_state()[1] == before[1]).all()
    np.testing.assert_array_equal(*outs)


def test_demonstration_shows_the_idea(framework: Adapter, capsys: pytest.CaptureFixture[str]):
    framework.dropout.main()
    blocks = capsys.readouterr().out.split("\n\n")
    x, at_0, at_half, at_1 = (
        np.array([float(n) for n in re.findall(r"\d+\.\d*", block.split("=\n")[1])])
        for block in blocks
    )
    np.testing.assert_array_equal(x, np.arange(16))
    np.testing.assert_array_equal(at_0, x)
    np.testing.assert_array_equal(at_1, 0 * x)
    assert ((at_half == 0) | (at_half == 2 * x)).all()
    assert 0 < np.count_nonzero(at_half) < 15
