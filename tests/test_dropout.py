"""Three tests of what dropout does, and tests of what the contract does not ask.

Everything else that any dropout must do is in contract/, and test_contract.py checks it.
"""

import math
import re
import types

import jax
import numpy as np
import pytest
import scipy.stats
import torch

from impls.numpy import prng
from tests.adapters import ALL, JAX, NUMPY, TORCH, Adapter

P = 0.2
FALSE_ALARM = 1e-9  # how often the test of the expectation may fail without a reason
# N is so large that a keep rate that is wrong by 0.005 is missed no more often than that.
DEVIATIONS = scipy.stats.norm.isf(FALSE_ALARM / 2)
N = math.ceil((2 * DEVIATIONS / 0.005) ** 2 * P * (1 - P))
SPECIAL = np.array([1.0, -2.0, np.inf, np.nan], np.float32)


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
    result = call(framework, framework.array(SPECIAL), 1.0)
    np.testing.assert_array_equal(framework.numpy(result), np.zeros(4))


def test_nothing_changes_at_p_0(framework: Adapter):
    result = call(framework, framework.array(SPECIAL), 0.0)
    np.testing.assert_array_equal(framework.numpy(result), SPECIAL)


def test_a_unit_is_kept_where_u_is_p(framework: Adapter, monkeypatch: pytest.MonkeyPatch):
    u = framework.array(np.array([0, 0.25, 0.5, 0.75], np.float32))
    owner, name = {
        "torch": (torch, "rand"), "jax": (jax.random, "uniform"), "numpy": (prng, "random"),
    }[framework.name]  # fmt: skip
    monkeypatch.setattr(owner, name, lambda *_, **__: u)
    for p, kept in ((0.0, [1, 1, 1, 1]), (0.25, [0, 1, 1, 1]), (0.5, [0, 0, 1, 1])):
        keep = framework.keep((4,), p, seed=0)
        np.testing.assert_array_equal(framework.numpy(keep), np.bool(kept))


def test_inf_and_nan_are_dropped_to_exactly_0_and_at_p_1_whatever_the_mask(framework: Adapter):
    # A product with the mask would be NaN there: 0 * inf is NaN.
    x, keep = framework.array(SPECIAL), framework.array(np.array([True, False, False, False]))
    for p, expected in ((0.5, [2, 0, 0, 0]), (1.0, [0, 0, 0, 0])):
        result = framework.dropout.apply_keep(x, keep, p)
        np.testing.assert_array_equal(framework.numpy(result), expected)


@pytest.mark.parametrize("mask", [[True] * 4, [True, False] * 2])
def test_at_p_1_a_mask_keeps_nothing_and_no_gradient_is_nan(trainable: Adapter, mask: list[bool]):
    x, keep = trainable.array(SPECIAL), trainable.array(np.array(mask))
    functions = [
        lambda x: call(trainable, x, 1.0),
        lambda x: trainable.dropout.apply_keep(x, keep, 1.0),
    ]
    if trainable is JAX:
        functions.append(jax.jit(lambda x: JAX.dropout.apply_keep(x, keep, 1.0)))
    for function in functions:
        np.testing.assert_array_equal(trainable.numpy(function(x)), np.zeros(4))
        np.testing.assert_array_equal(trainable.gradient(function, x), np.zeros(4))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5, 4)], ids=str)
def test_dtype_and_shape_are_those_of_x(framework: Adapter, dtype: str, shape: tuple[int, ...]):
    jax.config.update("jax_enable_x64", dtype == "float64")
    x = framework.array(np.ones(shape), dtype)
    keep = framework.keep(shape, 0.5, seed=0)
    for p in (0.0, 0.5, 1.0):
        for training in (True, False):
            result = call(framework, x, p, training=training)
            assert (result.dtype, result.shape) == (x.dtype, x.shape)
            if p == 0.5 and training:
                expected = np.where(framework.numpy(keep), 2, 0)
                np.testing.assert_array_equal(framework.numpy(result), expected)


def message(error: type[Exception], function, *args, **kwargs) -> str:
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    return str(caught.value)


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    ("p", "error"),
    [(-0.1, ValueError), (1.1, ValueError), (math.nan, ValueError), (math.inf, ValueError),
     ("0.5", TypeError), (None, TypeError), (True, TypeError), (0.5j, TypeError),
     (np.array([0.5]), TypeError), (np.timedelta64(0, "s"), TypeError)],
)  # fmt: skip
def test_a_bad_p_has_the_same_message_everywhere(p, error: type[Exception], training: bool):
    messages = set()
    for framework in ALL:
        x, source = framework.array(np.ones(2, np.float32)), framework.source(0)
        dropout, keep = framework.dropout, framework.keep((2,), 0.5, seed=0)
        messages.add(message(error, dropout.dropout, x, p, training=training, **source))
        messages.add(message(error, dropout.sample_keep, (2,), p, **source))
        messages.add(message(error, dropout.apply_keep, x, keep, p))
        if framework is not NUMPY:
            messages.add(message(error, dropout.Dropout, p))
    assert len(messages) == 1
    assert "p must be" in messages.pop()


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize("mode", ["eval", None, 1, 0, np.True_, len], ids=repr)
def test_a_mode_that_is_no_bool_has_the_same_message_everywhere(mode):
    messages = set()
    for framework in ALL:
        x, source = framework.array(np.ones((2, 2), np.float32)), framework.source(0)
        p_and_mode = {"p": 0.5, "training": mode}
        messages.add(message(TypeError, framework.dropout.dropout, x, **p_and_mode, **source))
        network = framework.mlp.MLP(2, 2, 2, 2)
        if framework is NUMPY:
            messages.add(message(TypeError, network, x, training=mode, **source))
            continue
        noise = framework.noise.Noise(0.5)
        network.dropout_2 = layer = framework.dropout.Dropout(0.5)
        for one in (layer, noise):
            setattr(one, "training" if framework is TORCH else "deterministic", mode)
            messages.add(message(TypeError, one, x, **source))
        messages.add(message(TypeError, network, x, **source))
    assert messages == {f"training must be True or False, got {type(mode).__name__}"}


@pytest.mark.usefixtures("unannotated")
def test_a_missing_source_has_the_same_message_everywhere_but_for_its_name():
    for framework in ALL:
        x = framework.array(np.ones(4, np.float32))
        (name,) = framework.source(0)
        told = message(ValueError, framework.dropout.dropout, x, 0.5, training=True)
        assert told == message(ValueError, framework.dropout.sample_keep, (4,), 0.5, **{name: None})
        # A JAX key must be new at each call. A generator must not be made again at each call.
        how = "a new one at each call" if framework is JAX else "made once before the loop"
        assert told == f"pass {name}=, {how}: dropout in training needs randomness"
        for wrong in (0, np.random, object()):
            kind = type(wrong).__name__
            told_of_it = message(
                TypeError, framework.dropout.dropout, x, 0.5, training=True, **{name: wrong}
            )
            assert told_of_it == f"{kind} is no source of randomness: {told}"


def test_a_traced_p_is_told_to_be_static(unannotated):
    x, key = JAX.array(np.ones(4, np.float32)), JAX.source(0)
    traced = jax.jit(lambda p: JAX.dropout.dropout(x, p, training=True, **key))
    with pytest.raises(TypeError, match=r"Under jax\.jit, pass it as a constant"):
        traced(0.5)


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "complex64"])
def test_a_bad_dtype_has_the_same_message_everywhere(dtype: str):
    messages = {
        message(TypeError, f.dropout.dropout, f.array(np.ones(4), dtype), 0.5, training=False)
        for f in ALL
    }
    assert messages == {f"x must be float16, bfloat16, float32 or float64, got {dtype}"}


@pytest.mark.usefixtures("unannotated")
def test_what_is_no_array_of_the_framework_is_refused(framework: Adapter):
    other = (TORCH if framework is NUMPY else NUMPY).array(np.ones(2))
    for x in (None, 1.0, [1.0, 2.0], np.float32(1), other):
        for training in (True, False):
            with pytest.raises(TypeError, match=r"^x must be a \w+, got \w+$"):
                call(framework, x, 0.5, training=training)


def layouts() -> dict[str, torch.Tensor]:
    """Return a tensor of each layout that PyTorch has here, but for the ordinary one."""
    x = torch.eye(4)
    found = {
        "sparse_coo": x.to_sparse(),
        "nested": torch.nested.nested_tensor([torch.ones(2), torch.ones(3)]),
        "nested, jagged": torch.nested.nested_tensor([torch.ones(2)], layout=torch.jagged),
        "masked": torch.masked.masked_tensor(torch.ones(2), torch.arange(2) == 0),
        "float8": torch.ones(3).to(torch.float8_e5m2),
    }
    for name in ("csr", "csc", "bsr", "bsc"):
        found[name] = getattr(x, f"to_sparse_{name}")(*[(2, 2)] * name.startswith("b"))
    if torch.backends.mkldnn.is_available():
        found["mkldnn"] = x.to_mkldnn()
    return found


@pytest.mark.filterwarnings("ignore")  # PyTorch warns that these kinds of tensors may change
@pytest.mark.usefixtures("unannotated")
def test_every_array_that_is_not_an_ordinary_one_is_refused():
    others = {
        "float8 of JAX": (JAX, jax.numpy.ones(3, "float8_e5m2")),
        "float8 of NumPy": (NUMPY, np.ones(3, "float8_e5m2")),
        "masked of NumPy": (NUMPY, np.ma.masked_array(np.ones(2), [True, False])),
    }
    for name, (of, x) in ({n: (TORCH, x) for n, x in layouts().items()} | others).items():
        for p, training in ((0.5, True), (0.0, True), (0.5, False)):
            told = message(TypeError, call, of, x, p, training=training)
            assert re.fullmatch(r"x must be [^\n]+", told), name


@pytest.mark.usefixtures("unannotated")
def test_a_mask_has_to_fit(framework: Adapter):
    x = framework.array(np.ones((2, 3), np.float32))
    for shape in ((3,), (2, 1), (4, 2, 3)):
        with pytest.raises(ValueError, match="the mask has the shape"):
            framework.dropout.apply_keep(x, framework.array(np.ones(shape, bool)), 0.5)
    for mask, words in (([[True] * 3] * 2, "booleans, got list"), (x, "booleans, got float32")):
        with pytest.raises(TypeError, match=words):
            framework.dropout.apply_keep(x, mask, 0.5)


@pytest.mark.filterwarnings("ignore:overflow")  # by NumPy, for a unit that is dropped
def test_float16_near_p_1(framework: Adapter):
    # The largest float16 is 65504, so x / (1 - p) needs p <= 1 - 1 / 65504 = 0.99998, or p = 1.
    x = framework.array(np.array([0, 1, 2, 60000]), "float16")
    keep = framework.array(np.array([True, True, True, False]))
    result = framework.numpy(framework.dropout.apply_keep(x, keep, 0.9999))
    np.testing.assert_allclose(result, [0, 10000, 20000, 0], rtol=1e-3)
    with pytest.raises(ValueError, match="float16 cannot hold"):
        framework.dropout.apply_keep(x, keep, 0.99999)


@pytest.mark.usefixtures("unannotated")
@pytest.mark.parametrize("p", [np.float32(0.25), np.float64(0.25), 0, 1])
def test_numpy_numbers_and_integers_are_rates_and_do_not_change_the_dtype(framework: Adapter, p):
    for dtype in ("float16", "float32"):
        x = framework.array(np.arange(1, 65), dtype)
        keep = framework.keep((64,), p, seed=0)
        for result in (call(framework, x, p), framework.dropout.apply_keep(x, keep, p)):
            assert result.dtype == x.dtype
            expected = framework.numpy(call(framework, x, float(p)))
            np.testing.assert_array_equal(framework.numpy(result), expected)


def test_a_layer_takes_a_mask_in_training_only_and_checks_its_rate(trainable: Adapter):
    layer = trainable.dropout.Dropout(0.5)
    x, keep = trainable.array(np.ones(4, np.float32)), trainable.array(np.arange(4) % 2 == 0)
    np.testing.assert_array_equal(trainable.numpy(layer(x, keep=keep)), [2, 0, 2, 0])
    layer.eval()
    assert layer(x, keep=keep) is x
    layer.train()
    with pytest.raises(ValueError, match="needs randomness"):
        layer(x)
    layer.p = -1
    with pytest.raises(ValueError, match="p must be in"):
        layer(x, keep=keep)


def test_pytorch_draws_the_mask_where_the_generator_is(unannotated, monkeypatch):
    monkeypatch.setattr(TORCH.dropout, "Generator", types.SimpleNamespace)
    generator = types.SimpleNamespace(device="meta")
    monkeypatch.setattr(torch, "rand", lambda *a, generator, **k: torch.zeros(*a, **k))
    assert TORCH.dropout.sample_keep((4,), 0.5, generator=generator).device.type == "meta"


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
