"""What a PRNG key is: the random sources of JAX and PyTorch, replayed in NumPy bit for bit.

JAX's source is a function without memory. Its heart is the hash `threefry2x32`: it stirs a
64-bit counter with a 64-bit key, and whoever does not know the key cannot tell the result from
chance. The i-th number of a draw is the hash of i. A key is those 64 bits and nothing else, so the
same key gives the same numbers for ever; to get others, derive another key: `split` and `fold_in`
hash the key's children into being. Names and arguments below are those of `jax.random`.

PyTorch's source is a machine with memory, the Mersenne Twister: 19937 bits of state that each
draw moves on. Names at the end are those of `torch`.

Sources: Salmon, Moraes, Dror and Shaw, "Parallel Random Numbers: As Easy as 1, 2, 3", SC 2011;
Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998).
"""

import math
from typing import TypeAlias

import numpy as np
from numpy import ndarray

ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))


def threefry2x32(key: ndarray, high: ndarray, low: ndarray) -> tuple[ndarray, ndarray]:
    """Hash 64-bit counters, given as two halves, with a key.

    Args:
        key: uint32 (2,).
        high, low: uint32 of one shape.

    Returns:
        Two uint32 arrays of that shape. All sums are modulo 2**32.
    """
    keys = (key[0], key[1], key[0] ^ key[1] ^ np.uint32(0x1BD11BDA))
    x0, x1 = high + keys[0], low + keys[1]
    for group in range(5):  # five groups of four rounds, a part of the key after each
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
    """Return the key uint32 (2,) of a seed, modulo 2**32 as in JAX without 64-bit types."""
    return np.array([0, seed % 2**32], np.uint32)


def split(key: ndarray, num: int = 2) -> ndarray:
    """Return `num` new keys, uint32 (num, 2): the hashes of 0, 1, ..."""
    return np.stack(_hash_counters(key, (num,)), axis=-1)


def fold_in(key: ndarray, data: int) -> ndarray:
    """Return the new key uint32 (2,) that belongs to a number, such as the step of training."""
    high, low = np.zeros(1, np.uint32), np.array([data % 2**32], np.uint32)
    return np.concatenate(threefry2x32(key, high, low))


def bits(key: ndarray, shape: tuple[int, ...] = (), dtype: type = np.uint32) -> ndarray:
    """Return random bits as unsigned integers of 8, 16, 32 or 64 bits."""
    high, low = _hash_counters(key, shape)
    if np.dtype(dtype) == np.uint64:
        return (high.astype(np.uint64) << np.uint64(32)) | low
    return (high ^ low).astype(dtype)


def uniform(key: ndarray, shape: tuple[int, ...] = (), dtype: type = np.float32) -> ndarray:
    """Return uniforms in [0, 1), float16, float32 or float64.

    Random bits become the mantissa of a number in [1, 2), from which 1 is subtracted: a float32
    is a multiple of 2**-23, and 0 is possible.
    """
    info = np.finfo(dtype)
    word = np.dtype(f"uint{info.bits}")
    mantissa = bits(key, shape, word.type) >> word.type(info.bits - info.nmant)
    one = np.ones((), dtype).view(word)
    return (mantissa | one).view(dtype) - info.dtype.type(1)


def bernoulli(key: ndarray, p: float = 0.5, shape: tuple[int, ...] = ()) -> ndarray:
    """Return booleans, True with probability p, from uniforms in p's own dtype (float: float32)."""
    dtype = type(p) if isinstance(p, np.floating) else np.float32
    return uniform(key, shape, dtype) < dtype(p)


class Generator:
    """`torch.Generator("cpu")`: NumPy's own Mersenne Twister gives the very same words."""

    def __init__(self) -> None:
        self.manual_seed(0)

    def manual_seed(self, seed: int) -> "Generator":
        """Start anew; PyTorch takes the lower 32 bits of a seed."""
        self._words = np.random.RandomState(seed % 2**32)
        return self

    def words(self, n: int) -> ndarray:
        """Return the next n words of 32 bits as uint64, and move on."""
        return self._words.randint(0, 2**32, n, dtype=np.uint32).astype(np.uint64)


def rand(shape: tuple[int, ...], *, generator: Generator, dtype: type = np.float32) -> ndarray:
    """Return uniforms in [0, 1): 24 bits of a word make a float32, 53 bits of two a float64."""
    n = math.prod(shape)
    if np.dtype(dtype) == np.float64:
        high, low = generator.words(2 * n).reshape(n, 2).T
        return (((high << np.uint64(32)) | low) % 2**53 * 2.0**-53).reshape(shape)
    return (generator.words(n) % 2**24).astype(np.float32).reshape(shape) * np.float32(2**-24)


Source: TypeAlias = (
    np.random.Generator | Generator | ndarray
)  # NumPy's own, PyTorch's, or a key of JAX's


def random(rng: Source, shape: tuple[int, ...]) -> ndarray:
    """Return float32 uniforms in [0, 1) from any of the three sources."""
    if isinstance(rng, ndarray):
        return uniform(rng, shape)
    if isinstance(rng, Generator):
        return rand(shape, generator=rng)
    return np.asarray(rng.random(shape, dtype=np.float32))


def for_layers(rng: Source | None, layers: int) -> list[Source | None]:
    """Return a source for each layer: a key is split, what has a memory can be shared."""
    return list(split(rng, layers)) if isinstance(rng, ndarray) else [rng] * layers
