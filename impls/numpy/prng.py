"""What a PRNG key is: the random sources of JAX and PyTorch, replayed in NumPy bit for bit.

In JAX, a random number is a function of a key and an index. The function is `threefry2x32`, a hash
of a 64-bit key and a 64-bit counter. Its results look random to anybody who does not know the key.
The i-th number of a draw is the hash of i. A key is 64 bits and nothing else, so the same key
always gives the same numbers. Other numbers need another key: `split` and `fold_in` derive new keys
by hashing. `key`, `split`, `fold_in`, `bits`, `uniform` and `bernoulli` have the names that they
have in `jax.random`.

In PyTorch, a generator has a state, and each draw changes it. On the CPU, the generator is
the Mersenne Twister, with a state of 19937 bits. `Generator` and `rand` are named as in `torch`.

Sources: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011;
Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998).
"""

import math
import operator
from typing import TypeAlias

import numpy as np
from numpy import ndarray

from shared.checks import check_probability

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry2x32(key: ndarray, high: ndarray, low: ndarray) -> tuple[ndarray, ndarray]:
    """Hash 64-bit counters, given as two halves, with a key.

    Args:
        key: uint32 (2,).
        high, low: uint32 of one shape.

    Returns:
        Two uint32 arrays of that shape. All sums are modulo 2**32.

    Raises:
        TypeError: the key is not uint32 (2,).
    """
    if not isinstance(key, ndarray) or key.dtype != np.uint32 or key.shape != (2,):
        got = f"{key.dtype} {key.shape}" if isinstance(key, ndarray) else type(key).__name__
        raise TypeError(f"a key is uint32 (2,), got {got}")
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x0, x1 = high + keys[0], low + keys[1]
    for group in range(5):  # four rounds in each. After a group, a part of the key is added
        for distance in ROTATIONS[group % 2]:
            x0 = x0 + x1
            x1 = (x1 << np.uint32(distance)) | (x1 >> np.uint32(32 - distance))
            x1 = x1 ^ x0
        x0 = x0 + keys[(group + 1) % 3]
        x1 = x1 + keys[(group + 2) % 3] + np.uint32(group + 1)
    return x0, x1


def _hash_counters(key: ndarray, shape: tuple[int, ...]) -> tuple[ndarray, ndarray]:
    """Hash 0, 1, 2, ..., the row-major indices of an array of that shape."""
    index = np.arange(math.prod(shape), dtype=np.uint64).reshape(shape)
    with np.errstate(over="ignore"):  # NumPy warns of overflow in a 0-d sum
        return threefry2x32(key, (index >> 32).astype(np.uint32), index.astype(np.uint32))


def key(seed: int) -> ndarray:
    """Return the key uint32 (2,) of the lower 32 bits of a seed, as JAX does by default."""
    return np.array([0, operator.index(seed) % 2**32], np.uint32)


def split(key: ndarray, num: int = 2) -> ndarray:
    """Return `num` new keys, uint32 (num, 2): the hashes of 0, 1, ..."""
    return np.stack(_hash_counters(key, (num,)), axis=-1)


def fold_in(key: ndarray, data: int) -> ndarray:
    """Return a new key uint32 (2,) for a number, for example for the step of training."""
    high, low = np.zeros(1, np.uint32), np.array([operator.index(data) % 2**32], np.uint32)
    return np.concatenate(threefry2x32(key, high, low))


def bits(key: ndarray, shape: tuple[int, ...] = (), dtype: type = np.uint32) -> ndarray:
    """Return random bits as unsigned integers of a dtype of 8, 16, 32 or 64 bits."""
    if np.dtype(dtype).kind != "u":
        raise TypeError(f"bits are unsigned integers, got the dtype {np.dtype(dtype)}")
    high, low = _hash_counters(key, shape)
    if np.dtype(dtype) == np.uint64:
        return (high.astype(np.uint64) << np.uint64(32)) | low
    return (high ^ low).astype(dtype)


def uniform(key: ndarray, shape: tuple[int, ...] = (), dtype: type = np.float32) -> ndarray:
    """Return uniform random numbers in [0, 1), float16, float32 or float64.

    Random bits become the mantissa of a number in [1, 2), and then 1 is subtracted. So a float32
    is a multiple of 2**-23, and it can be 0.
    """
    info = np.finfo(dtype)
    word = np.dtype(f"uint{info.bits}")
    mantissa = bits(key, shape, word.type) >> word.type(info.bits - info.nmant)
    one = np.ones((), dtype).view(word)
    return (mantissa | one).view(dtype) - info.dtype.type(1)


def bernoulli(key: ndarray, p: float = 0.5, shape: tuple[int, ...] = ()) -> ndarray:
    """Return booleans, True with probability p.

    The uniforms have the dtype of p. For a Python float that is float32.
    """
    check_probability(p)
    dtype = type(p) if isinstance(p, np.floating) else np.float32
    return uniform(key, shape, dtype) < dtype(p)


class Generator:
    """`torch.Generator("cpu")`. NumPy's Mersenne Twister gives the same 32-bit words."""

    def __init__(self) -> None:
        self.manual_seed(67280421310721)  # that of a new torch.Generator

    def manual_seed(self, seed: int) -> "Generator":
        """Set the state from a seed. PyTorch uses the lower 32 bits of it."""
        self._words = np.random.RandomState(operator.index(seed) % 2**32)
        return self

    def words(self, n: int) -> ndarray:
        """Return the next n words of 32 bits, as uint64 (n,)."""
        return self._words.randint(0, 2**32, n, dtype=np.uint32).astype(np.uint64)


def rand(shape: tuple[int, ...], *, generator: Generator, dtype: type = np.float32) -> ndarray:
    """Return uniform random numbers in [0, 1): float32 from 24 bits, float64 from 53 bits."""
    if not isinstance(generator, Generator):
        raise TypeError(f"generator must be a Generator of prng.py, got {type(generator).__name__}")
    n = math.prod(shape)
    if np.dtype(dtype) == np.float64:
        high, low = generator.words(2 * n).reshape(n, 2).T
        return (((high << np.uint64(32)) | low) % 2**53 * 2.0**-53).reshape(shape)
    return (generator.words(n) % 2**24).astype(np.float32).reshape(shape) * np.float32(2**-24)


# NumPy's own generator, the replay of PyTorch's above, or a key of JAX's as two uint32.
Source: TypeAlias = np.random.Generator | Generator | ndarray
SOURCES = (np.random.Generator, Generator, ndarray)


def random(rng: Source, shape: tuple[int, ...]) -> ndarray:
    """Return float32 uniforms in [0, 1) from any of the three sources."""
    if isinstance(rng, ndarray):
        return uniform(rng, shape)
    if isinstance(rng, Generator):
        return rand(shape, generator=rng)
    return np.asarray(rng.random(shape, dtype=np.float32))


def for_layers(rng: Source | None, layers: int) -> list[Source | None]:
    """Return a source for each layer. A key is split, but layers can share a generator."""
    return list(split(rng, layers)) if isinstance(rng, ndarray) else [rng] * layers
