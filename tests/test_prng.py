"""NumPy replays both random sources bit for bit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from impls.numpy import prng
from tests.adapters import JAX, NUMPY, TORCH

# Many shapes are compiled. And NumPy makes scalars of arrays without dimensions, which the
# annotations do not say.
pytestmark = pytest.mark.usefixtures("unannotated")
SEEDS = st.integers(0, 2**32 - 1)
# No dimensions, no elements, odd numbers, several dimensions, and beyond the 624 words that the
# Mersenne Twister computes at a time. Only a few: JAX compiles each shape.
SHAPES = st.sampled_from([(), (0,), (7,), (2, 3, 5), (1301,)])
RATES = st.floats(0, 1)
QUICK = settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def words(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.uint32)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers published with the generator (Random123, threefry2x32, 20 rounds)
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((0xFFFFFFFF, 0xFFFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x1CB996FC, 0xBB002BE7)),
        ((0x243F6A88, 0x85A308D3), (0x13198A2E, 0x03707344), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_known_answers(counter, key, expected):
    x0, x1 = prng.threefry2x32(words(*key), words(counter[0]), words(counter[1]))
    assert (x0[0], x1[0]) == expected


def test_known_words_of_the_mersenne_twister():
    # The first outputs for the reference seed 5489 (Matsumoto and Nishimura).
    assert prng.Generator().manual_seed(5489).words(3).tolist() == [
        3499211612,
        581869302,
        3890346734,
    ]


def data(key) -> np.ndarray:
    return np.asarray(jax.random.key_data(key))


@given(SEEDS, st.integers(0, 2**32 - 1), st.integers(1, 9))
@QUICK
def test_keys(seed: int, number: int, num: int):
    np.testing.assert_array_equal(prng.key(seed), data(jax.random.key(seed)))
    folded = jax.random.fold_in(jax.random.key(seed), np.uint32(number))
    np.testing.assert_array_equal(prng.fold_in(prng.key(seed), number), data(folded))
    np.testing.assert_array_equal(
        prng.split(data(folded), num), data(jax.random.split(folded, num))
    )


@given(SEEDS, SHAPES, st.sampled_from([8, 16, 32, 64]))
@QUICK
def test_bits(seed: int, shape: tuple[int, ...], width: int):
    with jax.enable_x64(True):
        theirs = jax.random.bits(jax.random.key(seed), shape, f"uint{width}")
    ours = prng.bits(prng.key(seed), shape, getattr(np, f"uint{width}"))
    assert ours.dtype == theirs.dtype
    np.testing.assert_array_equal(ours, theirs, strict=True)


@given(SEEDS, SHAPES, st.sampled_from([np.float16, np.float32, np.float64]))
@QUICK
def test_uniform(seed: int, shape: tuple[int, ...], dtype: type):
    with jax.enable_x64(True):
        theirs = jax.random.uniform(jax.random.key(seed), shape, dtype)
    np.testing.assert_array_equal(prng.uniform(prng.key(seed), shape, dtype), theirs, strict=True)


@given(SEEDS, SHAPES, RATES)
@QUICK
def test_bernoulli(seed: int, shape: tuple[int, ...], p: float):
    theirs = jax.random.bernoulli(jax.random.key(seed), p, shape)
    np.testing.assert_array_equal(prng.bernoulli(prng.key(seed), p, shape), theirs, strict=True)
    with jax.enable_x64(True):
        theirs = jax.random.bernoulli(jax.random.key(seed), p, shape)
    ours = prng.bernoulli(prng.key(seed), np.float64(p), shape)
    np.testing.assert_array_equal(ours, theirs, strict=True)


@given(st.integers(0, 2**63 - 1), st.lists(SHAPES, min_size=1, max_size=3), st.booleans())
@QUICK
def test_torch_rand(seed: int, shapes: list[tuple[int, ...]], double: bool):
    ours, theirs = prng.Generator().manual_seed(seed), torch.Generator().manual_seed(seed)
    for shape in shapes:  # one after the other, because each draw changes the state
        a = prng.rand(shape, generator=ours, dtype=np.float64 if double else np.float32)
        b = torch.rand(shape, generator=theirs, dtype=torch.float64 if double else torch.float32)
        np.testing.assert_array_equal(a, b.numpy(), strict=True)


@given(SEEDS, SHAPES, RATES)
@QUICK
def test_masks(seed: int, shape: tuple[int, ...], p: float):
    from_key = NUMPY.dropout.sample_keep(shape, p, rng=prng.key(seed))
    from_generator = NUMPY.dropout.sample_keep(shape, p, rng=prng.Generator().manual_seed(seed))
    np.testing.assert_array_equal(from_key, JAX.numpy(JAX.keep(shape, p, seed)), strict=True)
    np.testing.assert_array_equal(from_generator, TORCH.numpy(TORCH.keep(shape, p, seed)))


@pytest.mark.parametrize("twin", [TORCH, JAX], ids=lambda twin: twin.name)
def test_a_network_draws_the_same_masks_for_both_layers(twin):
    sizes = (20, 13, 11, 10)
    x = np.random.default_rng(0).random((7, 20), np.float32)
    rng = prng.key(5) if twin is JAX else prng.Generator().manual_seed(5)
    theirs = twin.numpy(twin.mlp.MLP(*sizes)(twin.array(x), **twin.source(5)))
    ours = NUMPY.mlp.MLP(*sizes)(x, training=True, rng=rng)
    np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_an_array_as_p_of_bernoulli_keeps_its_dtype():
    key = prng.key(1)
    expected = jax.random.bernoulli(jax.random.key(1), jnp.float16(0.3), (99,))
    np.testing.assert_array_equal(prng.bernoulli(key, np.float16(0.3), (99,)), expected)


def test_counters_beyond_32_bits_have_a_high_word(monkeypatch):
    # JAX counts elements with 64 bits. An array of 2**32 elements is too large for a test, so the
    # counting starts just below.
    start, key = 2**32 - 2, prng.key(5)
    high, low = np.array([0, 0, 1, 1], np.uint32), np.array([2**32 - 2, 2**32 - 1, 0, 1], np.uint32)
    expected = prng.threefry2x32(key, high, low)
    real = np.arange
    monkeypatch.setattr(
        np, "arange", lambda n, dtype: real(np.uint64(start), np.uint64(start + n), dtype=dtype)
    )
    found = prng._hash_counters(key, (4,))
    monkeypatch.undo()
    np.testing.assert_array_equal(found, expected)


def test_seeds_and_numbers_beyond_32_bits_and_below_0():
    for number in (2**32 + 5, 2**40 + 2**33 + 7, -1):
        np.testing.assert_array_equal(prng.key(number), data(jax.random.key(number)))
        folded = jax.random.fold_in(jax.random.key(1), np.uint32(number % 2**32))
        np.testing.assert_array_equal(prng.fold_in(prng.key(1), number), data(folded))


def test_a_new_generator_is_that_of_pytorch():
    ours = prng.rand((5,), generator=prng.Generator())
    np.testing.assert_array_equal(ours, torch.rand(5, generator=torch.Generator()).numpy())


@pytest.mark.parametrize(
    "key", [np.array([0, 1]), np.zeros(4, np.uint32), np.zeros((2, 2), np.uint32)]
)
def test_a_key_of_another_dtype_or_shape_is_refused(key):
    for draw in (prng.uniform, prng.split, prng.bernoulli):
        with pytest.raises(TypeError, match=r"a key is uint32 \(2,\), got"):
            draw(key)
    with pytest.raises(TypeError, match="a key is"):
        prng.fold_in(key, 1)
