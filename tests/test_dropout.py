"""Three tests of what dropout does, and tests of what the contract does not ask.

Everything else that any dropout must do is in contract/, and test_contract.py checks it.
"""

import math
import re

import jax
import numpy as np
import pytest
import scipy.stats

from tests.adapters import ALL, JAX, NUMPY, TORCH, Adapter

P = 0.2
FALSE_ALARM = 1e-9  # how often the test of the expectation may fail without a reason
# N is so large that a keep rate that is wrong by 0.005 is missed no more often than that.
DEVIATIONS = scipy.stats.norm.isf(FALSE_ALARM / 2)
N = math.ceil((2 * DEVIATIONS / 0.005) ** 2 * P * (1 - P))


def call(framework: Adapter, x, p, *, training=True, seed=0):
    return framework.dropout.dropout(x, p, training=training, **framework.source(seed))


def test_the_expectation_is_kept(framework: Adapter):
    # A unit of 1 becomes 0 with probability p and 1 / (1 - p) otherwise. The number of units kept
    # is binomial, and the mean of the result is that number / n / (1 - p).
    result = framework.numpy(call(framework, framework.array(np.ones(N, np.float32)), P))
    kept = np.count_nonzero(result)
    assert scipy.stats.binomtest(kept, N, 1 - P).pvalue > FALSE_ALARM
    assert result.mean(dtype=np.float64) == pytest.approx(kept / N / (1 - P), rel=1e-6)


def test_everything_is_zero_at_p_1(framework: Adapter):
    x = framework.array(np.array([1.0, -2.0, np.inf, np.nan], np.float32))
    result = call(framework, x, 1.0)
    np.testing.assert_array_equal(framework.numpy(result), np.zeros(4))


def test_nothing_changes_at_p_0(framework: Adapter):
    x = framework.array(np.array([1.0, -2.0, np.inf, np.nan], np.float32))
    result = call(framework, x, 0.0)
    np.testing.assert_array_equal(framework.numpy(result), framework.numpy(x))


def message(error: type[Exception], function, *args, **kwargs) -> str:
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
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
        (np.timedelta64(0, "s"), TypeError),
    ],
)
def test_a_bad_p_has_the_same_message_everywhere(p, error: type[Exception], training: bool):
    messages = set()
    for framework in ALL:
        x = framework.array(np.ones(2, np.float32))
        dropout = framework.dropout.dropout
        messages.add(message(error, dropout, x, p, training=training, **framework.source(0)))
        sample_keep = framework.dropout.sample_keep
        messages.add(message(error, sample_keep, (2,), p, **framework.source(0)))
    assert len(messages) == 1
    assert "p must be" in messages.pop()


def test_a_missing_source_has_the_same_message_everywhere_but_for_its_name():
    messages = set()
    for framework in ALL:
        x = framework.array(np.ones(4, np.float32))
        (name,) = framework.source(0)
        told = message(ValueError, framework.dropout.dropout, x, 0.5, training=True)
        assert told == message(ValueError, framework.dropout.sample_keep, (4,), 0.5, **{name: None})
        # A JAX key must be new at each call. A generator must not be made again at each call.
        how = "a new one at each call" if framework is JAX else "made once before the loop"
        assert told.startswith(f"pass {name}=, {how}: ")
        messages.add(told.split(": ")[1])
    assert messages == {"dropout in training needs randomness"}


def test_a_traced_p_is_told_to_be_static():
    x, key = JAX.array(np.ones(4, np.float32)), JAX.source(0)
    traced = jax.jit(lambda p: JAX.dropout.dropout(x, p, training=True, **key))
    with pytest.raises(TypeError, match=r"Under jax\.jit, pass it as a constant"):
        traced(0.5)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_a_bad_dtype_has_the_same_message_everywhere(dtype: str):
    messages = {
        message(TypeError, f.dropout.dropout, f.array(np.ones(4), dtype), 0.5, training=False)
        for f in ALL
    }
    assert {m.replace("torch.", "") for m in messages} == {
        f"x must be float16, bfloat16, float32 or float64, got {dtype}"
    }


def test_what_is_no_array_of_the_framework_is_refused(framework: Adapter):
    others = {NUMPY: TORCH, JAX: NUMPY, TORCH: NUMPY}
    for x in (None, 1.0, [1.0, 2.0], np.float32(1), others[framework].array(np.ones(2))):
        for training in (True, False):
            with pytest.raises(TypeError, match=r"^x must be of the class \w+, got \w+$"):
                call(framework, x, 0.5, training=training)


@pytest.mark.filterwarnings("ignore")  # PyTorch warns that these kinds of tensors may change
@pytest.mark.parametrize(
    ("of", "make"),
    [
        (TORCH, lambda torch: torch.eye(3).to_sparse()),
        (TORCH, lambda torch: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
        (TORCH, lambda torch: torch.masked.masked_tensor(torch.ones(2), torch.arange(2) == 0)),
        (TORCH, lambda torch: torch.ones(3).to(torch.float8_e5m2)),
        (JAX, lambda _: jax.numpy.ones(3, "float8_e5m2")),
        (NUMPY, lambda _: np.ones(3, "float8_e5m2")),
        (NUMPY, lambda _: np.ma.masked_array(np.ones(2), [True, False])),
    ],
)
def test_an_array_that_would_lose_what_makes_it_special_is_refused(of: Adapter, make):
    with pytest.raises(TypeError, match=r"^x must be [^\n]+$"):
        call(of, make(TORCH.dropout.torch), 0.5)


def test_numpy_keeps_the_byte_order():
    x = np.arange(64, dtype=">f4")
    assert call(NUMPY, x, 0.5).dtype == x.dtype


def test_a_mask_has_to_fit(framework: Adapter):
    x = framework.array(np.ones((2, 3), np.float32))
    for shape in ((3,), (2, 1), (4, 2, 3)):
        with pytest.raises(ValueError, match="the mask has the shape"):
            framework.dropout.apply_keep(x, framework.array(np.ones(shape, bool)), 0.5)


def test_a_rate_that_was_changed_is_checked_with_a_mask_too(trainable: Adapter):
    layer = trainable.dropout.Dropout(0.5)
    layer.p = -1
    x, keep = trainable.array(np.ones(4, np.float32)), trainable.array(np.ones(4, bool))
    with pytest.raises(ValueError, match="p must be in"):
        layer(x, keep=keep)


@pytest.mark.filterwarnings("error")
def test_float16_near_p_1(framework: Adapter):
    # The largest float16 is 65504, so x / (1 - p) needs p <= 1 - 1 / 65504 = 0.99998, or p = 1.
    x = framework.array(np.array([0, 1, 2, 60000]), "float16")
    keep = framework.array(np.array([True, True, True, False]))
    result = framework.numpy(framework.dropout.apply_keep(x, keep, 0.9999))
    np.testing.assert_allclose(result, [0, 10000, 20000, 0], rtol=1e-3)
    with pytest.raises(ValueError, match="float16 cannot hold"):
        framework.dropout.apply_keep(x, keep, 0.99999)
    assert not framework.numpy(call(framework, x, 1.0)).any()


def test_arguments_are_checked_once(framework: Adapter, monkeypatch: pytest.MonkeyPatch):
    checked = []
    for name in ("check_probability", "check_array", "check_keep"):
        monkeypatch.setattr(framework.dropout, name, lambda *args, name=name: checked.append(name))
    call(framework, framework.array(np.ones(4, np.float32)), 0.5)
    assert checked == ["check_probability", "check_array", "check_keep"]


@pytest.mark.parametrize("p", [np.float32(0.25), np.float64(0.25), 0, 1])
def test_numpy_numbers_and_integers_are_rates_and_do_not_change_the_dtype(framework: Adapter, p):
    for dtype in ("float16", "float32"):
        x = framework.array(np.arange(1, 65), dtype)
        keep = framework.keep((64,), p, seed=0)
        for result in (call(framework, x, p), framework.dropout.apply_keep(x, keep, p)):
            assert result.dtype == x.dtype
            expected = framework.numpy(call(framework, x, float(p)))
            np.testing.assert_array_equal(framework.numpy(result), expected)


def test_numpy_drops_bfloat16():  # in NumPy, the contract tests the other dtypes only
    x = NUMPY.array(np.arange(1, 65), "bfloat16")
    result = call(NUMPY, x, 0.5)
    assert result.dtype == x.dtype
    keep = NUMPY.keep((64,), 0.5, seed=0)
    np.testing.assert_array_equal(NUMPY.numpy(result), np.where(keep, 2 * np.arange(1, 65), 0))


def test_a_layer_takes_a_mask_in_training_only(trainable: Adapter):
    layer = trainable.dropout.Dropout(0.5)
    x, keep = trainable.array(np.ones(4, np.float32)), trainable.array(np.arange(4) % 2 == 0)
    np.testing.assert_array_equal(trainable.numpy(layer(x, keep=keep)), [2, 0, 2, 0])
    layer.eval()
    assert layer(x, keep=keep) is x
    layer.train()
    with pytest.raises(ValueError, match="needs randomness"):
        layer(x)


def test_pytorch_draws_the_mask_where_the_generator_is(monkeypatch: pytest.MonkeyPatch):
    seen = []
    real = TORCH.dropout.torch.rand
    monkeypatch.setattr("torch.rand", lambda *a, **k: seen.append(k["device"]) or real(*a, **k))
    generator = TORCH.source(0)["generator"]
    TORCH.dropout.sample_keep((4,), 0.5, generator=generator)
    assert seen == [generator.device]


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
