"""Mutants that mistreat what they are given: dtypes, memory, rates, a missing source."""

import numpy as np

from dropout_contract.mutants.correct import WITH_STATE, Correct


class InPlace(Correct):
    """Writes the result into the input."""

    frameworks = WITH_STATE

    def apply(self, x, keep, p):
        result = super().apply(x, keep, p)
        if self.framework == "torch":
            x.data.copy_(result.detach())
        elif x.flags.writeable:
            x[...] = result
        return result


class ResultOverwritten(Correct):
    """One output buffer for each shape, used again by the next call."""

    frameworks = WITH_STATE

    def apply(self, x, keep, p):
        out = super().apply(x, keep, p)
        if getattr(out, "requires_grad", False):
            return out
        buffers = self.__dict__.setdefault("buffers", {})
        buffer = buffers.setdefault((tuple(x.shape), str(x.dtype)), self.xp.empty_like(out))
        buffer[...] = out
        return buffer


class Upcast(Correct):
    """Half precision comes back as float32, from arithmetic with a float32 mask."""

    def in_training(self, x, p, source):
        wide = x if str(x.dtype).endswith("64") else self.backend.cast(x, self.xp.float32)
        return super().in_training(wide, p, source)


class Downcast(Correct):
    """float64 comes back as float32."""

    def in_training(self, x, p, source):
        return super().in_training(self.backend.cast(x, self.xp.float32), p, source)


class Float64Mask(Correct):
    """A mask of doubles, from a default dtype, turns everything into doubles."""

    frameworks = WITH_STATE

    def apply(self, x, keep, p):
        mask = self.backend.cast(keep, self.xp.float64)
        return self.select(keep, x / self.scalar(x, 1 - p)) * self.xp.ones_like(mask)


class IntegersTruncated(Correct):
    """Integers are accepted, and the result cast back to integers."""

    def validate_dtype(self, x):
        pass

    def in_training(self, x, p, source):
        if self.backend.is_floating(x):
            return super().in_training(x, p, source)
        return self.backend.cast(
            super().in_training(self.backend.cast(x, self.xp.float32), p, source), x.dtype
        )


class ReadsMemoryOrder(Correct):
    """Goes through the elements as they lie in memory, but writes them in rows."""

    frameworks = WITH_STATE

    def apply(self, x, keep, p):
        if self.framework == "torch":
            flat = x.as_strided((x.numel(),), (1,)) if x._is_view() or x.dim() > 3 else x
        else:
            flat = x.ravel(order="K")
        if flat.shape != x.shape:
            x = flat.reshape(x.shape)
        return super().apply(x, keep, p)


class LosesStrides(Correct):
    """The result comes back in rows: channels-last networks slow down to half their speed."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        return super().apply(x, keep, p).contiguous()


class Flattens(Correct):
    """A shape of no dimensions comes back with one."""

    def in_training(self, x, p, source):
        result = super().in_training(x, p, source)
        return result.reshape(1) if len(x.shape) == 0 else result


class AssertsRate(Correct):
    """assert for validation: gone under python -O, and the wrong exception without it."""

    def validate(self, x, p, training):
        assert isinstance(p, int | float | np.number)
        assert 0 <= p <= 1
        self.validate_dtype(x)
        return float(p)


class NanPasses(Correct):
    """p < 0 or p > 1 is False for NaN (PyTorch's own first check)."""

    def validate(self, x, p, training):
        if p < 0 or p > 1:
            raise ValueError("p must be in [0, 1]")
        self.validate_dtype(x)
        return float(p)


class OneAndAHalf(Correct):
    """Only the lower limit is checked."""

    def validate(self, x, p, training):
        return super().validate(x, min(p, 1.0) if isinstance(p, float | int) else p, training)


class ChecksOnlyInTraining(Correct):
    """A bad rate goes unnoticed until the model trains."""

    def validate(self, x, p, training):
        return super().validate(x, p, training) if training else 0.5


class SilentWithoutSource(Correct):
    """No source: no dropout, and no word about it."""

    def in_training(self, x, p, source):
        return x if source is None else super().in_training(x, p, source)

    def need(self, source):
        return source


class MaskFollowsMemory(Correct):
    """The mask is drawn as x lies in memory: a transposed x has another mask than its copy."""

    frameworks = WITH_STATE

    def in_training(self, x, p, source):
        shape = tuple(x.shape)
        if self.framework == "torch":
            u = self.xp.empty_like(x, dtype=self.xp.float32).uniform_(generator=source)
            return self.apply(x, self.keep(u, p), p)
        order = sorted(range(len(shape)), key=lambda axis: -abs(x.strides[axis]))
        u = self.backend.uniform(source, tuple(shape[axis] for axis in order))
        return self.apply(x, self.keep(u.transpose(np.argsort(order)), p), p)


class MaskFollowsOffset(Correct):
    """Numbers are looked up by address: a view that starts further on has a shifted mask."""

    frameworks = WITH_STATE

    def in_training(self, x, p, source):
        u = self.backend.uniform(source, tuple(x.shape))
        if self.framework == "torch":
            shift = x.storage_offset()
        else:
            base = x.base if x.base is not None else x
            start = x.__array_interface__["data"][0] - base.__array_interface__["data"][0]
            shift = start // x.itemsize
        u = self.xp.roll(u.reshape(-1), shift).reshape(u.shape)
        return self.apply(x, self.keep(u, p), p)


class DefaultDtypeOfScale(Correct):
    """The scale is a tensor of the default dtype, which may be float64."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        out = super().apply(x, keep, p)
        wide = self.xp.get_default_dtype() == self.xp.float64
        return out * self.xp.ones(1) if wide else out


class DrawnInTheDefaultDtype(Correct):
    """Uniform numbers of the default dtype: another default, another mask."""

    frameworks = ("torch",)

    def uniform(self, source, shape):
        return self.xp.rand(shape, generator=source)


class NativeBytesOnly(Correct):
    """Bytes of the other order are read as if they were native."""

    frameworks = ("numpy",)

    def apply(self, x, keep, p):
        return super().apply(x.view(x.dtype.newbyteorder("=")), keep, p)


class BackwardsForwards(Correct):
    """Negative strides are read from the front."""

    frameworks = ("numpy",)

    def apply(self, x, keep, p):
        for axis, stride in enumerate(x.strides):
            if stride < 0:
                x = np.flip(x, axis)
        return super().apply(x, keep, p)


class WidenedByTheRate(Correct):
    """A rate that is a scalar of NumPy makes doubles of everything."""

    frameworks = ("numpy",)

    def validate(self, x, p, training):
        super().validate(x, p, training)
        return p

    def scalar(self, x, value):
        return value if isinstance(value, np.float64) else super().scalar(x, value)


class OffsetInPlace(Correct):
    """From the third call on, and at small rates only, it works in place."""

    frameworks = WITH_STATE
    calls = 0

    def apply(self, x, keep, p):
        result = super().apply(x, keep, p)
        self.calls += 1
        if self.calls % 4 == 3 and p < 0.01 and int(np.prod(tuple(x.shape))) == 64:
            if self.framework == "torch":
                x.data.copy_(result.detach())
            else:
                x[...] = result
        return result
