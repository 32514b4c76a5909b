"""Mutants whose units depend on one another in ways that few pairs show."""

import numpy as np

from dropout_contract.mutants.correct import WITH_STATE, Correct


class Arranged(Correct):
    """Uniform numbers that are put into another order, or used more than once."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        return self.arrange(self.backend.uniform(source, (n,)), n, shape).reshape(shape)

    def arrange(self, u, n, shape):
        return u


class PeriodOf300007(Arranged):
    """A table of 300,007 numbers, repeated when it is used up."""

    period = 300_007

    def arrange(self, u, n, shape):
        return self.xp.concatenate([u[: self.period]] * (n // self.period + 1))[:n]


class PeriodOfThreeMillion(PeriodOf300007):
    """A table of 3,000,017 numbers."""

    period = 3_000_017


class NoiseTable(Correct):
    """A table of a million numbers, made once. A call starts at a random place of it."""

    def uniform(self, source, shape):
        n, size = int(np.prod(shape)), 2**20
        table = np.random.default_rng(0).random(size, dtype=np.float32)
        table = np.concatenate([table] * (n // size + 2))
        start = self.xp.floor(self.backend.uniform(source, ()) * size)
        if self.framework == "jax":
            slices = self.backend.jax.lax.dynamic_slice
            return slices(self.xp.asarray(table), (start.astype("int32"),), (n,)).reshape(shape)
        return self.backend.array(table[int(start) : int(start) + n].reshape(shape))


class Palindrome(Arranged):
    """The second half mirrors the first."""

    def arrange(self, u, n, shape):
        half = u[: (n + 1) // 2]
        return self.xp.concatenate([half, self.xp.flip(half[: n // 2], (0,))])


class MirroredRows(Correct):
    """In each row, the right half mirrors the left, as for images that are flipped."""

    def uniform(self, source, shape):
        u = self.backend.uniform(source, shape)
        if len(shape) < 2:
            return u
        left = u[..., : (shape[-1] + 1) // 2]
        right = self.xp.flip(left[..., : shape[-1] // 2], (len(shape) - 1,))
        return self.xp.concatenate([left, right], -1)


class Symmetric(Correct):
    """A square mask equals its transpose, as for weights between the same units."""

    def uniform(self, source, shape):
        u = self.backend.uniform(source, shape)
        if len(shape) != 2 or shape[0] != shape[1]:
            return u
        return self.xp.triu(u) + self.xp.swapaxes(self.xp.triu(u, 1), 0, 1)


class EveryThirdFollows(Arranged):
    """Every third unit is kept if exactly one of the two before it is."""

    def keep(self, u, p):
        keep = u >= p
        flat = keep.reshape(-1)
        n = len(flat) // 3 * 3
        if n < 3 or p != 0.5:
            return keep
        triples = flat[:n].reshape(-1, 3)
        third = (triples[:, 0] ^ triples[:, 1]).reshape(-1, 1)
        triples = self.xp.concatenate([triples[:, :2], third], 1)
        return self.xp.concatenate([triples.reshape(-1), flat[n:]]).reshape(keep.shape)


class ThirdThirdFollows(Arranged):
    """The last third of the uniform numbers is the sum of the other two, modulo 1."""

    def arrange(self, u, n, shape):
        k = n // 3
        rest = u[2 * k :]
        return self.xp.concatenate([u[: 2 * k], (u[:k] + u[k : 2 * k]) % 1, rest[k:]])


class ShiftRegister(Arranged):
    """Each unit is the exclusive or of those 7 and 3 before it: a register that is too short."""

    frameworks = WITH_STATE

    def keep(self, u, p):
        keep = u >= p
        if p != 0.5:
            return keep
        flat = np.array(self.backend.numpy(keep)).reshape(-1)
        for start in range(7, len(flat), 3):
            stop = min(start + 3, len(flat))
            flat[start:stop] = flat[start - 7 : stop - 7] ^ flat[start - 3 : stop - 3]
            if start > 3000:
                break
        return self.backend.cast(self.backend.array(flat.reshape(keep.shape), "bool"), keep.dtype)


class BalancedWhenLarge(Correct):
    """From 100,000 units on, exactly the expected number is kept."""

    def keep(self, u, p):
        n = int(np.prod(tuple(u.shape)))
        if n < 100_000:
            return u >= p
        ranked = self.xp.argsort(u.reshape(-1))
        return u >= u.reshape(-1)[ranked[round(n * p)]]


class StratifiedBlocks(Arranged):
    """In each 1,024 units, the numbers are spread evenly over [0, 1): counts vary too little."""

    def arrange(self, u, n, shape):
        k = n // 1024 * 1024
        if k == 0:
            return u
        blocks = u[:k].reshape(-1, 1024)
        order = self.xp.argsort(blocks, -1)
        ranks = self.backend.cast(self.xp.argsort(order, -1), self.xp.float32)
        return self.xp.concatenate([((ranks + blocks) / 1024).reshape(-1), u[k:]])


class FullRateWhenLarge(Correct):
    """A faster kernel for a million units and more, whose rate is a little off."""

    def keep(self, u, p):
        return u >= (p * 0.97 if int(np.prod(tuple(u.shape))) >= 2**20 else p)


class CountsInFloat32(Correct):
    """Positions in float32: beyond 2**24, two units share a number."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        u = self.backend.uniform(source, shape)
        if n <= 2**24:
            return u
        flat = u.reshape(-1)
        end = flat[2**24 :]
        half = end[::2]
        flat[2**24 :] = self.xp.stack([half, half], 1).reshape(-1)[: len(end)]
        return flat.reshape(shape)


class WideRowsShare(Correct):
    """Rows of more than 100,000 units share a mask, to save memory."""

    def uniform(self, source, shape):
        if len(shape) != 2 or shape[1] < 100_000:
            return self.backend.uniform(source, shape)
        u = self.backend.uniform(source, (1, shape[1]))
        return u + self.xp.zeros(shape, dtype=self.xp.float32)


class ThousandthsOfARate(Correct):
    """The threshold in whole thousandths."""

    def keep(self, u, p):
        return u >= round(p, 3)


class TenBitsOfARate(Correct):
    """The threshold in ten bits."""

    def keep(self, u, p):
        return u >= round(p * 1024) / 1024


class SingleExamplePasses(Correct):
    """A batch of one is taken for evaluation."""

    def in_training(self, x, p, source):
        if len(x.shape) > 1 and x.shape[0] == 1:
            return x
        return super().in_training(x, p, source)


class NumberPasses(Correct):
    """A number without dimensions passes through."""

    def in_training(self, x, p, source):
        return x if len(x.shape) == 0 else super().in_training(x, p, source)


class OneUnitPasses(Correct):
    """A layer of one unit is never dropped, so that the network stays connected."""

    def in_training(self, x, p, source):
        return x if len(x.shape) and x.shape[-1] == 1 else super().in_training(x, p, source)


class TransposedNextTime(Correct):
    """A square mask is used once as it is and once more turned around."""

    frameworks = WITH_STATE

    def uniform(self, source, shape):
        kept = self.__dict__.setdefault("kept", {})
        key = id(source), shape
        if key in kept and len(shape) == 1:
            known, u = kept.pop(key)
            if known is source:
                self.backend.uniform(source, shape)
                return self.xp.flip(u, (0,))
        u = self.backend.uniform(source, shape)
        kept[key] = source, u
        return u


class EchoSixBack(Correct):
    """In each twelve units, one of the last six may have the number of the unit six before it."""

    def uniform(self, source, shape):
        n = int(np.prod(shape))
        whole = n // 12 * 12
        if whole < 12:
            return self.backend.uniform(source, shape)
        drawn = self.backend.uniform(source, (2, n))
        u, chance = drawn[0], drawn[1]
        blocks = u[:whole].reshape(-1, 12)
        echoed = self.xp.where(chance[:whole].reshape(-1, 12)[:, :6] < 0.12, blocks[:, :6],
                               blocks[:, 6:])  # fmt: skip
        blocks = self.xp.concatenate([blocks[:, :6], echoed], 1).reshape(-1)
        return self.xp.concatenate([blocks, u[whole:]]).reshape(shape)


class BlocksShuffled(Arranged):
    """Beyond 2**18 units, each block is the first one in another order: counts are the same."""

    def arrange(self, u, n, shape):
        size = 2**18
        if n < 2 * size:
            return u
        first, drawn = u[:size], u[size : n // size * size].reshape(-1, size)
        shuffled = first[self.xp.argsort(drawn, -1)].reshape(-1)
        return self.xp.concatenate([first, shuffled, u[n // size * size :]])
