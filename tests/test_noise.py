"""The other kinds of noise: mean, variance, independence, gradient, and the contract."""

import math

import jax
import numpy as np
import pytest
import scipy.stats
from dropout_contract import check
from dropout_contract.backends import backend
from dropout_contract.budget import ALPHA

from impls.numpy import prng
from tests.adapters import JAX, NUMPY, TORCH, Adapter

KINDS = {
    "dropout": {"kind": "masks", "masks": 1},
    "three values": {"kind": "masks", "masks": 2},
    "sixteen masks": {"kind": "masks", "masks": 16},
    "gaussian": {"kind": "gaussian"},
    "uniform": {"kind": "uniform"},
    "lognormal": {"kind": "lognormal"},
}


def sample(framework: Adapter, shape: tuple[int, ...], p: float, seed: int, **kind) -> np.ndarray:
    drawn = framework.noise.sample_noise(shape, p, **kind, **framework.source(seed))
    return framework.numpy(drawn)


def as_dropout(framework: Adapter, **kind):
    """Noise with the arguments of dropout, as the contract wants it."""

    def call(x, p, training, **source):
        return framework.noise.noise(x, p, training=training, **kind, **source)

    return {
        "torch": lambda x, p, *, training, generator=None: call(
            x, p, training, generator=generator),
        "jax": lambda x, p, *, training, key=None: call(x, p, training, key=key),
        "numpy": lambda x, p, *, training, rng=None: call(x, p, training, rng=rng),
    }[framework.name]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("p", [0.2, 0.5])
def test_mean_is_one_and_variance_is_that_of_dropout(framework: Adapter, kind: str, p: float):
    n = 2**18
    r = sample(framework, (n,), p, 7, **KINDS[kind]).astype(np.float64)
    v = p / (1 - p)
    z = scipy.stats.norm.isf(ALPHA / 2)
    # Each sum is normal to a good approximation. False alarm: 1e-11 for each of two z-tests. With
    # 2**18 numbers the mean is known to 0.013 sqrt(v), the variance to 0.013 sqrt(kurtosis - 1) v.
    assert abs(r.mean() - 1) < z * math.sqrt(v / n)
    squares = (r - 1) ** 2
    assert abs(squares.mean() - v) < z * squares.std() / math.sqrt(n) + 1e-6  # rounding
    assert r.shape == (n,)


@pytest.mark.parametrize("kind", KINDS)
def test_units_and_calls_are_independent(framework: Adapter, kind: str):
    first, second = (sample(framework, (512, 512), 0.5, seed, **KINDS[kind]) for seed in (1, 2))
    above = np.triu_indices(512, 1)
    pairs = {
        "rows": (first[1:], first[:-1]),
        "columns": (first[:, 1:], first[:, :-1]),
        "halves": (first[256:], first[:256]),
        "transposed": (first[above], first.T[above]),
        "calls": (first, second),
    }
    for name, (a, b) in pairs.items():
        # Under independence r sqrt(n) is standard normal. False alarm: 1e-11 a pair.
        r = np.corrcoef(a.ravel(), b.ravel())[0, 1]
        assert abs(r) * math.sqrt(a.size) < scipy.stats.norm.isf(ALPHA / 2), name


def test_one_mask_is_dropout_bit_for_bit(framework: Adapter):
    p = 0.3
    drawn = sample(framework, (64, 64), p, 5, kind="masks", masks=1)
    q = (p / (1 - p)) / (1 + p / (1 - p))
    shape = (1, 64, 64)  # one mask, of the rate q, which is p but for rounding
    keep = framework.numpy(framework.dropout.sample_keep(shape, q, **framework.source(5)))[0]
    assert abs(q - p) < 1e-15
    np.testing.assert_array_equal(drawn != 0, keep)
    np.testing.assert_allclose(drawn[keep], 1 / (1 - p), rtol=1e-6)


def test_two_masks_have_the_three_values_of_the_article(framework: Adapter):
    drawn = sample(framework, (2**16,), 0.5, 3, kind="masks", masks=2)
    values, counts = np.unique(drawn, return_counts=True)
    # v = 1, so q = 2 / 3 and g = 3. False alarm: 1e-11 for each of three binomial tests.
    np.testing.assert_allclose(values, [0, 1.5, 3], rtol=1e-6)
    for count, rate in zip(counts, (4 / 9, 4 / 9, 1 / 9), strict=True):
        assert scipy.stats.binomtest(int(count), 2**16, rate).pvalue > ALPHA


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("replayed", [TORCH, JAX], ids=lambda adapter: adapter.name)
def test_numpy_replays_the_noise_of_the_others(replayed: Adapter, kind: str):
    theirs = sample(replayed, (33, 65), 0.4, 11, **KINDS[kind])
    source = prng.Generator().manual_seed(11) if replayed is TORCH else prng.key(11)
    ours = NUMPY.noise.sample_noise((33, 65), 0.4, **KINDS[kind], rng=source)
    # The same uniform numbers, so only the rounding of log, cos and exp differs.
    np.testing.assert_allclose(ours, theirs, rtol=3e-5, atol=3e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_is_that_of_the_noise_of_the_forward_pass(trainable: Adapter, kind: str):
    x = trainable.array(np.linspace(-2, 3, 4096), "float32")
    noise = as_dropout(trainable, **KINDS[kind])
    factors = sample(trainable, (4096,), 0.5, 9, **KINDS[kind])

    def function(x):
        return noise(x, 0.5, training=True, **trainable.source(9))

    np.testing.assert_array_equal(trainable.numpy(function(x)), trainable.numpy(x) * factors)
    np.testing.assert_array_equal(trainable.gradient(function, x), factors)


# What speaks of no particular values.
OF_ANY_NOISE = {
    "identity_at_zero", "shape_and_dtype", "identity_in_evaluation", "input_unchanged",
    "gradient_where_it_is_off", "mask_does_not_depend_on_the_input", "every_derivative_agrees",
    "same_mask_for_the_same_source", "a_source_put_back_repeats_itself", "edge_shapes",
    "result_is_not_overwritten", "global_random_state_is_left_alone", "threads_do_not_mix",
    "infinities_and_nan_pass_where_it_is_off", "where_x_lies_does_not_matter",
    "bad_rate_is_refused", "only_floating_point", "a_truth_value_is_no_rate",
    "missing_source_is_refused",
}  # fmt: skip


@pytest.mark.usefixtures("unannotated")  # beartype draws from Python's global generator
@pytest.mark.slow  # each clause is compiled
@pytest.mark.parametrize("kind", ["three values", "gaussian"])
def test_noise_keeps_the_clauses_that_apply(framework: Adapter, kind: str):
    noise = as_dropout(framework, **KINDS[kind])
    with backend(framework.name).quick_compilation():
        report = check(noise, framework.name, strict=True, only=OF_ANY_NOISE)
    assert report.ok, str(report)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [("gaussian", scipy.stats.norm(1, 1)),
     ("uniform", scipy.stats.uniform(1 - math.sqrt(3), 2 * math.sqrt(3))),
     ("lognormal", scipy.stats.lognorm(math.sqrt(math.log(2)), scale=1 / math.sqrt(2)))],
    ids=["gaussian", "uniform", "lognormal"],
)  # fmt: skip
def test_continuous_noise_has_its_distribution(framework: Adapter, kind: str, expected):
    drawn = sample(framework, (2**16,), 0.5, 3, kind=kind).astype(np.float64)
    # The Kolmogorov-Smirnov test. False alarm: 1e-11.
    assert scipy.stats.kstest(drawn, expected.cdf).pvalue > ALPHA


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("shape", [(), (3, 2)], ids=str)
def test_dtype_and_shape_are_those_of_x(framework: Adapter, dtype: str, shape: tuple[int, ...]):
    jax.config.update("jax_enable_x64", dtype == "float64")
    x = framework.array(np.ones(shape), dtype)
    for kind in KINDS.values():
        for training in (True, False):
            r = framework.noise.noise(x, 0.5, training=training, **kind, **framework.source(0))
            assert (type(r), r.shape, r.dtype) == (type(x), x.shape, x.dtype)
            factors = sample(framework, shape, 0.5, 0, **kind) if training else np.ones(shape)
            rtol = {"float16": 1e-3, "bfloat16": 1e-2}.get(dtype, 1e-6)
            np.testing.assert_allclose(framework.numpy(r), factors, rtol=rtol)


def test_each_example_drops_weights_of_its_own(framework: Adapter):
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.normal(size=shape) for shape in ((7, 5), (3, 5), (3,)))
    p, shape = 0.4, (7, 3, 5)
    keep = framework.numpy(framework.keep(shape, p, 4))
    expected = np.stack([(keep[i] * weight / (1 - p)) @ x[i] for i in range(7)]) + bias
    arrays = [framework.array(array, "float32") for array in (x, weight, bias)]
    for training, result in ((True, expected), (False, x @ weight.T + bias)):
        out = framework.noise.dropconnect(*arrays, p, training=training, **framework.source(4))
        np.testing.assert_allclose(framework.numpy(out), result, rtol=2e-5, atol=2e-5)


@pytest.mark.usefixtures("unannotated")
def test_bad_arguments_are_refused(framework: Adapter):
    noise = framework.noise
    x, w, b = (framework.array(np.ones(s, np.float32)) for s in ((4, 3), (2, 3), (2,)))
    half = framework.array(np.ones((2, 3), np.float16))
    for p, kind, words in (
        (1.0, {"kind": "gaussian"}, "less than 1"),
        (0.5, {"kind": "cauchy"}, "masks, gaussian, uniform, lognormal"),
        (0.5, {"kind": "gaussian", "masks": 2}, "1 except for the kind masks"),
        (0.5, {"kind": "masks", "masks": 0}, "at least 1"),
        (0.5, {"kind": "masks", "masks": 1.5}, "a whole number"),
    ):
        for training in (True, False):
            with pytest.raises((ValueError, TypeError), match=words):
                noise.noise(x, p, **kind, training=training, **framework.source(0))
    for arguments, words in (
        ((x, w, b, "0.5"), "p must be a real number"),
        ((x, [1], b, 0.5), "weight must be a "),
        ((x, half, b, 0.5), "the dtype of x"),
        ((x, b, b, 0.5), "do not fit"),
    ):
        with pytest.raises((ValueError, TypeError), match=words):
            noise.dropconnect(*arguments, training=True, **framework.source(0))
    for keep, words in (([1], "keep must be"), (w, "keep has the shape")):
        if framework is not NUMPY:
            with pytest.raises((ValueError, TypeError), match=words):
                noise.Noise(0.5)(x, keep=keep)


def test_a_network_takes_noise_as_an_argument(trainable: Adapter):
    sizes = {"inputs": 6, "hidden_1": 5, "hidden_2": 4, "outputs": 3}
    model = trainable.mlp.MLP(**sizes, noise=lambda p: trainable.noise.Noise(p, kind="uniform"))
    plain = trainable.mlp.MLP(**sizes)
    x = trainable.array(np.random.default_rng(0).normal(size=(8, 6)), "float32")
    kinds = {type(layer) for layer in (model.dropout_1, model.dropout_2)}
    assert kinds == {trainable.noise.Noise}
    assert not np.array_equal(
        trainable.numpy(model(x, **trainable.source(1))),
        trainable.numpy(plain(x, **trainable.source(1))),
    )
    layer, ones = model.dropout_1, trainable.array(np.ones((8, 6)), "float32")
    assert not np.array_equal(trainable.numpy(layer(ones, **trainable.source(1))), np.ones((8, 6)))
    np.testing.assert_array_equal(trainable.numpy(layer(x, keep=ones)), trainable.numpy(x))
    model.eval()
    assert layer(x, keep=2 * ones) is x


def test_numpy_network_takes_noise_as_a_function():
    noise = as_dropout(NUMPY, kind="gaussian")
    model = NUMPY.mlp.MLP(6, 5, 4, 3, noise=noise)
    x = np.random.default_rng(0).normal(size=(8, 6)).astype(np.float32)
    drawn = model(x, training=True, rng=np.random.default_rng(1))
    rng, weights = np.random.default_rng(1), model.get_weights()
    h = x
    for layer, p in ((1, 0.2), (2, 0.5)):
        h = np.maximum(h @ weights[f"linear_{layer}.weight"].T + weights[f"linear_{layer}.bias"], 0)
        h = noise(h, p, training=True, rng=rng)
    expected = h @ weights["linear_3.weight"].T + weights["linear_3.bias"]
    np.testing.assert_allclose(drawn, expected, rtol=1e-5)
