"""The mathematics that several exercises use: many passes, all masks, exact shapes, gradients."""

import itertools
import math

import numpy as np
import pytest
import scipy.stats
from scipy.special import softmax

from experiments.study import gradients, masks, passes, shapes
from experiments.study.runs import Setting
from impls.numpy.mlp import MLP
from impls.numpy.noise import sample_noise
from shared.randomness import initial_weights
from tests.adapters import Adapter

SIZES = (20, 64, 48, 10)
SETTING = Setting(seed=3, p1=0.3, p2=0.4)
WEIGHTS = {name: 2 * w for name, w in initial_weights(*SIZES, seed=1).items()}
IMAGES = np.random.default_rng(0).random((30, 20), np.float32)


def network() -> MLP:
    model = MLP(*SIZES, SETTING.p1, SETTING.p2)
    model.set_weights(WEIGHTS)
    return model


def test_passes_are_those_of_the_network_with_dropout_on():
    rng = np.random.default_rng(SETTING.seed)
    for p in passes.passes(SETTING, WEIGHTS, IMAGES, 3):
        expected = softmax(network()(IMAGES, training=True, rng=rng), axis=1)
        np.testing.assert_allclose(p, expected, rtol=1e-4)


def test_logits_are_those_of_the_network_with_dropout_off():
    np.testing.assert_allclose(passes.logits(WEIGHTS, IMAGES), network()(IMAGES), rtol=1e-5)
    doubled = WEIGHTS | {"linear_3.weight": 2 * WEIGHTS["linear_3.weight"]}
    np.testing.assert_allclose(
        passes.logits(WEIGHTS, IMAGES, s2=2), passes.logits(doubled, IMAGES), rtol=1e-5
    )


def test_moment_matching_is_nearer_to_the_mean_of_many_passes_than_rescaling():
    setting = SETTING.but(p2=0.7)
    mean = np.mean(list(passes.passes(setting, WEIGHTS, IMAGES, 5000)), axis=0)
    matched = passes.moment_matching(setting, WEIGHTS, IMAGES)
    rescaled = softmax(passes.logits(WEIGHTS, IMAGES).astype(float), axis=1)
    np.testing.assert_allclose(matched.sum(1), 1, rtol=1e-6)
    # A mean of 5,000 probabilities is off by at most 0.5 / sqrt(5000) = 0.007, one standard error.
    assert np.abs(matched - mean).max() < 0.02
    assert np.abs(matched - mean).mean() < 0.5 * np.abs(rescaled - mean).mean()


def test_entropy_and_auroc():
    np.testing.assert_allclose(
        passes.entropy(np.array([[0.25] * 4, [1, 0, 0, 0]])), [math.log(4), 0], atol=1e-12
    )
    rng = np.random.default_rng(2)
    low, high = rng.integers(0, 5, 40), rng.integers(1, 7, 30)
    pairs = [(a < b) + 0.5 * (a == b) for a, b in itertools.product(low, high)]
    assert passes.auroc(low, high) == pytest.approx(np.mean(pairs))


def test_images_are_turned_by_a_quarter():
    image = np.arange(9.0).reshape(1, 9)
    np.testing.assert_array_equal(passes.turned(image), [[2, 5, 8, 1, 4, 7, 0, 3, 6]])


def test_all_masks_have_their_probabilities(framework: Adapter):
    keep, chance = masks.all_masks(6, 0.3)
    assert len({row.tobytes() for row in keep}) == 2**6
    assert chance.sum() == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(chance @ keep, 0.7, rtol=1e-12)
    x = np.linspace(-1, 2, 6)
    dropped = masks.apply_keep(framework.name, x, keep, 0.3)
    assert dropped.dtype == np.float64
    np.testing.assert_allclose(dropped, np.where(keep, x / 0.7, 0), rtol=1e-14)
    np.testing.assert_allclose(chance @ dropped, x, rtol=1e-12)


def test_the_geometric_mean_over_all_masks_is_the_rescaled_softmax(framework: Adapter, monkeypatch):
    assert masks.geometric_mean(framework.name) < 1e-12
    forgotten = masks.apply_keep
    monkeypatch.setattr(masks, "apply_keep", lambda f, x, k, p: (1 - p) * forgotten(f, x, k, p))
    assert masks.geometric_mean(framework.name) > 0.01


@pytest.mark.parametrize("kind", ["masks-1", "masks-2", "masks-16", "gaussian", "uniform"])
def test_shapes_are_those_of_the_noise(kind: str):
    name, _, k = kind.partition("-")
    n, p = 2**18, 1 / 3
    r = sample_noise((n,), p, kind=name, masks=int(k or 1), rng=np.random.default_rng(4))
    shape = shapes.shape_of(kind, p / (1 - p))
    # Standard errors are about sqrt(6 / n) and sqrt(24 / n), several times that for these kinds.
    assert scipy.stats.skew(r) == pytest.approx(shape["skewness"], abs=0.1)
    assert scipy.stats.kurtosis(r) == pytest.approx(shape["kurtosis"], abs=0.3)
    for share, expected in (((r == 0).mean(), shape["zero"]), ((r < 0).mean(), shape["negative"])):
        spread = math.sqrt(max(expected * (1 - expected), 1e-12) / n)
        assert abs(share - expected) < 7 * spread + 1e-6  # false alarm: 3e-12


def test_many_masks_approach_a_poisson_number_and_not_a_normal_one():
    found = [shapes.distances(k, 1.0) for k in (1, 4, 16, 64, 256)]
    poisson = [f["poisson"] for f in found]
    assert poisson == sorted(poisson, reverse=True)
    assert poisson[-1] < 2e-3
    assert found[-1]["normal"] > 0.2
    assert found[-1]["normal_fixed"] < 0.05
    assert found[-1]["skewness"] == pytest.approx(1, abs=0.01)  # of Poisson(1)


def test_both_frameworks_find_the_same_directions():
    rng = np.random.default_rng(5)
    batches = [(IMAGES[i : i + 8], rng.integers(0, 10, 8)) for i in (0, 8, 16)]
    of_torch, of_jax = (
        function(SIZES, WEIGHTS, batches, (0.0, 0.0), 0)
        for function in (gradients._torch_gradients, gradients._jax_gradients)
    )
    # In the order of their parts, which differs, so the angles between the rows are compared.
    np.testing.assert_allclose(of_torch @ of_torch.T, of_jax @ of_jax.T, atol=1e-5)
    np.testing.assert_allclose(np.diag(of_torch @ of_torch.T), 1, atol=1e-5)
    for function in (gradients._torch_gradients, gradients._jax_gradients):
        same = function(SIZES, WEIGHTS, batches[:1] * 2, (0.2, 0.5), 0)
        assert same[0] @ same[1] < 0.999  # the masks differ
