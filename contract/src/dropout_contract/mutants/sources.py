"""Mutants that use too little of their source, or remember what came before."""

import threading

import numpy as np

from dropout_contract.mutants.correct import WITH_STATE, Correct


class FewSeeds(Correct):
    """Only 8 bits of the source reach the generator: there are 256 masks and no more."""

    bits = 8

    def uniform(self, source, shape):
        number = self.xp.floor(2**self.bits * self.backend.uniform(source, ()))
        if self.framework == "jax":
            return self.backend.uniform(self.backend.jax.random.key(number.astype("uint32")), shape)
        return self.backend.uniform(self.backend.source(int(number)), shape)


class ElevenBits(FewSeeds):
    """Seeds from a table of 2,048."""

    bits = 11


class SixteenBits(FewSeeds):
    """A seed kept in a field of 16 bits."""

    bits = 16


class SecondWordIgnored(Correct):
    """Only the first word of a key is used, as if a key were one number."""

    frameworks = ("jax",)
    word = 0

    def uniform(self, source, shape):
        random = self.backend.jax.random
        data = self.backend.words(source)
        return self.backend.uniform(random.key(data[self.word]), shape)


class FirstWordIgnored(SecondWordIgnored):
    """Only the second word of a key is used: all that random.key(seed) ever fills."""

    word = 1


class WordsAdded(Correct):
    """The two words of a key are added up, so that keys that differ in both may meet."""

    frameworks = ("jax",)

    def uniform(self, source, shape):
        random = self.backend.jax.random
        data = self.backend.words(source)
        return self.backend.uniform(random.key(data[0] + data[1]), shape)


class RawKeyAsSeed(Correct):
    """A raw key is taken for a seed: its second word is lost."""

    frameworks = ("jax",)

    def uniform(self, source, shape):
        if "key" not in str(source.dtype):
            source = self.backend.jax.random.key(source[0])
        return self.backend.uniform(source, shape)


class KeyPlusPosition(Correct):
    """Counter-based numbers, hash(key + i): a neighbouring key has the same numbers, moved on."""

    frameworks = ("jax",)

    def uniform(self, source, shape):
        xp = self.xp
        data = self.backend.words(source)
        bits = data[1] + xp.arange(int(np.prod(shape)), dtype=xp.uint32)
        for factor in (0x85EBCA6B, 0xC2B2AE35):  # the finalizer of MurmurHash3
            bits = (bits ^ (bits >> 16) ^ data[0]) * xp.uint32(factor)
        bits = bits ^ (bits >> 16)
        return ((bits >> 8).astype(xp.float32) * xp.float32(2**-24)).reshape(shape)


class SeedPlusPosition(Correct):
    """The same in PyTorch, where neighbouring seeds of a generator show it."""

    frameworks = ("torch",)

    def uniform(self, source, shape):
        seed = source.initial_seed()
        used = self.backend.state(source) != self.backend.state(self.backend.source(seed))
        start = (seed + used * int(self.xp.randint(2**50, (), generator=source))) % 2**63
        bits = np.arange(int(np.prod(shape)), dtype=np.uint64) + np.uint64(start)
        with np.errstate(over="ignore"):
            for factor in (0xBF58476D1CE4E5B9, 0x94D049BB133111EB):  # as in SplitMix64
                bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(factor)
        bits ^= bits >> np.uint64(31)
        u = (bits >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
        return self.backend.array(u.reshape(shape))


class HashedName(Correct):
    """A Python hash of text in the seed: another mask in each process."""

    def uniform(self, source, shape):
        salt = hash("dropout") % 2**20
        if self.framework == "jax":
            return self.backend.uniform(self.backend.jax.random.fold_in(source, salt), shape)
        if self.framework == "torch":
            seed = int(self.xp.randint(2**31, (), generator=source)) ^ salt
        else:
            seed = int(source.integers(2**31)) ^ salt
        return self.backend.uniform(self.backend.source(seed), shape)


class LeftoversServed(Correct):
    """Numbers are drawn in blocks, and what is left is served first, whatever the source is now."""

    frameworks = WITH_STATE
    block = 1000

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        left = getattr(self, "left", np.empty(0, np.float32))
        while len(left) < n:
            size = self.block * (1 + (n - len(left)) // self.block)
            left = np.concatenate([left, self.backend.numpy(self.backend.uniform(source, (size,)))])
        self.left = left[n:]
        return self.backend.array(left[:n].reshape(shape))


class LeftoversOfThisSource(LeftoversServed):
    """Leftovers are kept for each generator, and survive when it is put back or seeded again."""

    def uniform(self, source, shape):
        of = self.__dict__.setdefault("of", {})
        known, left = of.get(id(source), (None, np.empty(0, np.float32)))
        self.left = left if known is source else np.empty(0, np.float32)
        u = super().uniform(source, shape)
        of[id(source)] = source, self.left
        return u


class SharedScratch(Correct):
    """Uniform numbers are drawn into one buffer, which threads overwrite for each other."""

    frameworks = WITH_STATE

    def in_training(self, x, p, source):
        buffers = self.__dict__.setdefault("buffers", {})
        shape = tuple(x.shape)
        if shape not in buffers:
            buffers[shape] = self.xp.zeros(shape, dtype=self.xp.float32)
        u = buffers[shape]
        u[...] = self.backend.uniform(source, shape)
        return self.apply(x, self.keep(u, p), p)


class OwnBufferReused(Correct):
    """Each thread has three output buffers in turn, so that a result lives for two calls more."""

    frameworks = WITH_STATE
    buffers = threading.local()

    def apply(self, x, keep, p):
        out = super().apply(x, keep, p)
        if getattr(out, "requires_grad", False):
            return out
        self.turn = (getattr(self, "turn", 0) + 1) % 3
        where = f"{self.turn} {tuple(x.shape)} {x.dtype} {getattr(x, 'strides', '')}"
        buffer = vars(self.buffers).setdefault(where, self.xp.empty_like(out))
        buffer[...] = out
        return buffer


class ScaleCachedInInference(Correct):
    """The tensor 1 / (1 - p) is kept for reuse, and made in inference mode if that comes first."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        cache = self.__dict__.setdefault("cache", {})
        if (p, x.dtype) not in cache:
            cache[p, x.dtype] = self.xp.tensor(1 - p, dtype=x.dtype)
        return self.select(keep, x / cache[p, x.dtype])

    def in_evaluation(self, x, p, source):
        if 0 < p < 1:
            self.__dict__.setdefault("cache", {}).setdefault(
                (p, x.dtype), self.xp.tensor(1 - p, dtype=x.dtype)
            )
        return x


class SeedsPerThread(Correct):
    """The number of threads is mixed into the seed, as in a loop that seeds each thread."""

    frameworks = ("torch",)

    def uniform(self, source, shape):
        seed = int(self.xp.randint(2**31, (), generator=source)) ^ self.xp.get_num_threads()
        return self.backend.uniform(self.backend.source(seed), shape)


class DrawnByManyThreads(Correct):
    """Large masks are drawn in as many parts as there are threads, each with its own seed."""

    frameworks = ("torch",)

    def uniform(self, source, shape):
        n, parts = int(np.prod(shape)), self.xp.get_num_threads()
        if n < 2**15 or n % parts:
            return self.backend.uniform(source, shape)
        seeds = [int(self.xp.randint(2**31, (), generator=source)) for _ in range(parts)]
        drawn = [self.backend.uniform(self.backend.source(s), (n // parts,)) for s in seeds]
        return self.xp.cat(drawn).reshape(shape)


class OneGeneratorForTheProcess(Correct):
    """The first source that is ever passed is kept, and later ones are ignored."""

    frameworks = WITH_STATE

    def need(self, source):
        self.first = getattr(self, "first", None) or super().need(source)
        return self.first


class CountsCalls(Correct):
    """A counter of calls is mixed into the numbers: the source alone says too little."""

    frameworks = WITH_STATE
    calls = 0

    def uniform(self, source, shape):
        self.calls += 1
        return (self.backend.uniform(source, shape) + (self.calls % 2) * 0.5) % 1


class StreamMovesOnByOne(Correct):
    """An offset that advances by one instead of by the size of the draw."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        sources = {self.backend.source_name: source}
        state = self.backend.saved(sources)
        u = self.backend.uniform(source, shape)
        self.backend.put_back(sources, state)
        self.backend.uniform(source, (self.moves_on_by(int(np.prod(shape))),))
        return u

    def moves_on_by(self, n):
        return 2


class MovesOnByHalf(StreamMovesOnByOne):
    """The stream moves on by half of what was drawn: the next call starts in the middle."""

    def moves_on_by(self, n):
        return max(2, n // 4 * 2)


class TopBitsIgnored(Correct):
    """The first bit of each word of a key is lost, in whole numbers that have a sign."""

    frameworks = ("jax",)

    def uniform(self, source, shape):
        random = self.backend.jax.random
        data = self.backend.words(source)
        data = data & self.xp.uint32(0x7FFFFFFF)
        return self.backend.uniform(random.wrap_key_data(data), shape)


class SpareServed(Correct):
    """Numbers are made in pairs. A large call that follows an odd one begins with the spare one."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.backend.uniform(source, shape)
        spare, self.spare = getattr(self, "spare", None), u.reshape(-1)[-1:] if n % 2 else None
        if spare is None or n < 10_000:
            return u
        return self.xp.concatenate([spare, u.reshape(-1)[:-1]]).reshape(shape)


class DrawsGloballyToo(Correct):
    """One number of the global generator is drawn and thrown away."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        self.backend.global_uniform((1,))
        return self.backend.uniform(source, shape)


class OneBitIgnored(Correct):
    """One bit in the middle of a key is lost."""

    frameworks = ("jax",)

    def uniform(self, source, shape):
        data = self.backend.words(source)
        lost = self.xp.zeros_like(data).at[0].set(1 << 17)
        return self.backend.uniform(self.backend.jax.random.wrap_key_data(data & ~lost), shape)
