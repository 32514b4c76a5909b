"""Mutants whose forward pass is right and whose gradient is not."""

import numpy as np

from dropout_contract.mutants.correct import WITH_GRADIENT, Correct


class AnotherMaskInBackward(Correct):
    """The backward pass draws again instead of remembering."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        here, there = super().apply(x, keep, p), super().apply(x, ~keep, p)
        finite = self.xp.where(self.xp.isfinite(here), here, self.scalar(x, 0))
        other = self.xp.where(self.xp.isfinite(there), there, self.scalar(x, 0))
        return self.backend.stop_gradient(finite) + other - self.backend.stop_gradient(other)


class GradientLost(Correct):
    """A detach too many."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        return self.backend.stop_gradient(super().apply(x, keep, p))


class StraightThrough(Correct):
    """The gradient of the identity, as for a quantizer."""

    frameworks = WITH_GRADIENT

    def apply(self, x, keep, p):
        return self._gradient_of(x, super().apply(x, keep, p))

    def _gradient_of(self, other, result):
        finite = self.xp.where(self.xp.isfinite(other), other, self.scalar(other, 0))
        return self.backend.stop_gradient(result) + finite - self.backend.stop_gradient(finite)


class UnscaledGradient(StraightThrough):
    """A custom backward without the 1 / (1 - p) of its forward."""

    def apply(self, x, keep, p):
        return self._gradient_of(self.select(keep, x), Correct.apply(self, x, keep, p))


class GradientScaledTwice(StraightThrough):
    """A custom backward that scales a gradient that was scaled before."""

    def apply(self, x, keep, p):
        result = Correct.apply(self, x, keep, p)
        return self._gradient_of(result / self.scalar(x, 1 - p), result)


class BackwardGuessesMask(StraightThrough):
    """Backward takes output != 0 for the mask: a kept unit that was 0 gets no gradient."""

    def apply(self, x, keep, p):
        result = Correct.apply(self, x, keep, p)
        return self._gradient_of(Correct.apply(self, x, keep & (x != 0), p), result)


class GradientStopsInEvaluation(Correct):
    """Evaluation taken to mean that no gradient is wanted."""

    frameworks = WITH_GRADIENT

    def in_evaluation(self, x, p, source):
        return self.backend.stop_gradient(x)


def _function(forward, backward):
    """Return a torch.autograd.Function that saves the mask, with these two methods."""
    import torch

    class Written(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, keep, scale):
            ctx.save_for_backward(keep)
            ctx.scale = scale
            return forward(x, keep, scale)

        @staticmethod
        def backward(ctx, gradient):
            return backward(ctx, gradient, *ctx.saved_tensors), None, None

    return Written


class WithOwnBackward(Correct):
    """An autograd.Function: the classes below get its backward pass wrong."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        def forward(x, keep, scale):
            return self.select(keep, x / (1 - p))

        return _function(forward, self.backward).apply(x, keep, 1 / (1 - p))

    def backward(self, ctx, gradient, keep):
        return self.xp.where(keep, gradient * ctx.scale, 0)


class BackwardDetaches(WithOwnBackward):
    """The gradient has no gradient of its own, so that a gradient penalty is silently 0."""

    def backward(self, ctx, gradient, keep):
        return self.xp.where(keep, gradient.detach() * ctx.scale, 0)


class BackwardOverwrites(WithOwnBackward):
    """The incoming gradient is scaled in place: whoever holds it sees another one."""

    def backward(self, ctx, gradient, keep):
        gradient.detach().mul_(keep * ctx.scale)
        return gradient.clone()


class MaskConsumed(WithOwnBackward):
    """The mask is given up in the first backward pass. A second one takes all units for kept."""

    def backward(self, ctx, gradient, keep):
        if getattr(ctx, "used", False):
            return gradient * ctx.scale
        ctx.used = True
        return super().backward(ctx, gradient, keep)


class GradientInRows(WithOwnBackward):
    """Goes through mask and gradient as they lie in memory, which differs for channels last."""

    def backward(self, ctx, gradient, keep):
        plain = keep.is_contiguous() == gradient.is_contiguous() or 0 in gradient.stride()
        if gradient.dim() != 4 or plain:
            return super().backward(ctx, gradient, keep)
        flat = gradient.as_strided((gradient.numel(),), (1,))
        return self.xp.where(keep.reshape(-1), flat * ctx.scale, 0).view(gradient.shape)


class MaskOfTheLastCall(Correct):
    """The mask is kept on the layer: after two forward passes, both gradients use the second."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        import torch

        self.last = keep

        def forward(x, keep, scale):
            return self.select(keep, x / (1 - p))

        def backward(ctx, gradient, keep):
            last = self.last if self.last.shape == keep.shape else keep
            return torch.where(last, gradient * ctx.scale, 0)

        return _function(forward, backward).apply(x, keep, 1 / (1 - p))


class MaskBufferReused(Correct):
    """The mask lives in one buffer for each shape, and backward reads what is in it by then."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        buffers = self.__dict__.setdefault("buffers", {})
        buffer = buffers.setdefault(x.shape, self.xp.zeros(x.shape, dtype=self.xp.bool))
        buffer.data.copy_(keep)
        return self.select(buffer.data, x / (1 - p))


class SecondDerivativeSquared(Correct):
    """In JAX: a custom gradient that scales once more when it is differentiated itself."""

    frameworks = ("jax",)

    def apply(self, x, keep, p):
        jax, xp = self.backend.jax, self.xp
        scale = 1 / (1 - p)

        @jax.custom_vjp
        def masked(x):
            return xp.where(keep, x * scale, 0)

        def forward(x):
            return masked(x), None

        def backward(_, gradient):
            once = xp.where(keep, gradient * scale, 0)
            return (jax.lax.stop_gradient(once),)

        masked.defvjp(forward, backward)
        return masked(x)


class ForwardModeUnscaled(Correct):
    """In JAX: a custom forward mode without the scale, which reverse mode takes over too late."""

    frameworks = ("jax",)

    def apply(self, x, keep, p):
        jax, xp = self.backend.jax, self.xp
        scale = 1 / (1 - p)

        @jax.custom_jvp
        def masked(x):
            return xp.where(keep, x / xp.asarray(1 - p, x.dtype), 0)

        @masked.defjvp
        def _(primals, tangents):
            once = jax.custom_derivatives.linear_call(
                lambda _, t: xp.where(keep, t, 0), lambda _, t: xp.where(keep, t * scale, 0),
                (), tangents[0],
            )  # fmt: skip
            return masked(*primals), once

        return masked(x)


class TangentUnscaled(Correct):
    """In PyTorch: an autograd.Function whose forward mode, the jvp, forgets the scale."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        import torch

        select = self.select

        class Written(torch.autograd.Function):
            generate_vmap_rule = True

            @staticmethod
            def forward(x, keep, scale):
                return select(keep, x / (1 - p))

            @staticmethod
            def setup_context(ctx, inputs, output):
                ctx.save_for_backward(inputs[1])
                ctx.save_for_forward(inputs[1])
                ctx.scale = inputs[2]

            @staticmethod
            def backward(ctx, gradient):
                return select(ctx.saved_tensors[0], gradient * ctx.scale), None, None

            @staticmethod
            def jvp(ctx, tangent, *_):
                return select(ctx.saved_tensors[0], tangent)

        return Written.apply(x, keep, 1 / (1 - p))


class ResidualOverwritten(Correct):
    """Works in place on what is no leaf, so that h + dropout(h) adds the result to itself."""

    frameworks = ("torch",)

    def apply(self, x, keep, p):
        out = super().apply(x, keep, p)
        return x.copy_(out) if x.grad_fn is not None and not self.xp.is_inference(x) else out


class DrawnAgainWhenRecomputed(Correct):
    """A counter of calls decides which half of the numbers is used: recomputed, it is another."""

    frameworks = ("torch",)
    calls = 0

    def uniform(self, source, shape):
        u = self.backend.uniform(source, (2, *shape))
        self.calls += self.xp.is_grad_enabled()
        return u[self.calls % 2] if self.xp.is_grad_enabled() else u[0]


class SameUnderEachCompiledCall(Correct):
    """Under torch.compile the mask becomes a constant of the program."""

    frameworks = ("torch",)

    def uniform(self, source, shape):
        if not self.xp.compiler.is_compiling():
            return self.backend.uniform(source, shape)
        places = self.xp.arange(int(np.prod(shape)), dtype=self.xp.float32).reshape(shape)
        return (self.xp.sin(places * 12.9898) * 43758.5453) % 1  # a shader's random numbers


class OneMaskUnderVmap(Correct):
    """Under vmap with randomness="different", one mask is drawn and used for all."""

    frameworks = ("torch",)

    def uniform(self, source, shape):
        functorch = self.xp._C._functorch
        level = functorch.peek_interpreter_stack()
        if level is None or level.key() != functorch.TransformType.Vmap:
            return self.backend.uniform(source, shape)
        return self.backend.array(
            np.random.default_rng(source.initial_seed()).random(shape, dtype=np.float32)
        )


class NegativeZeroGetsNoGradient(StraightThrough):
    """Backward reads the mask off the sign of the output: a kept -0.0 looks dropped."""

    def apply(self, x, keep, p):
        result = Correct.apply(self, x, keep, p)
        lost = (x == 0) & self.xp.signbit(x)
        return self._gradient_of(Correct.apply(self, x, keep & ~lost, p), result)


class StraightThroughInHalf(WithOwnBackward):
    """The fast kernel for half precision has a backward of its own, and a wrong one."""

    def backward(self, ctx, gradient, keep):
        if "16" in str(gradient.dtype):
            return gradient * ctx.scale
        return super().backward(ctx, gradient, keep)


class BackwardMultipliesMask(WithOwnBackward):
    """Right forward, but an overflowed gradient of a dropped unit becomes NaN."""

    def backward(self, ctx, gradient, keep):
        return gradient * keep * ctx.scale


class ScaleOfGradientLimited(WithOwnBackward):
    """The scale of the gradient is at most 5, against gradients that explode."""

    def backward(self, ctx, gradient, keep):
        return self.xp.where(keep, gradient * min(ctx.scale, 5.0), 0)


class DrawnAgainInBackward(Correct):
    """In the backward pass, where a checkpoint computes again, numbers come in another order."""

    frameworks = ("torch",)

    def uniform(self, source, shape):
        u = self.backend.uniform(source, shape)
        again = self.xp._C._current_graph_task_id() != -1
        return self.xp.flip(u, tuple(range(len(shape)))) if again else u


class OneMaskUnderJaxVmap(Correct):
    """Under vmap in JAX, the first key serves all rows."""

    frameworks = ("jax",)

    def uniform(self, source, shape):
        jax = self.backend.jax

        @jax.custom_batching.custom_vmap
        def draw(data):
            return self.backend.uniform(jax.random.wrap_key_data(data), shape)

        @draw.def_vmap
        def _(size, batched, data):
            return self.rows(jax.random.wrap_key_data(data[0]), size, shape), True

        return draw(self.backend.words(source))

    def rows(self, key, size, shape):
        return self.xp.broadcast_to(self.backend.uniform(key, shape), (size, *shape))


class OtherMasksUnderVmap(OneMaskUnderJaxVmap):
    """Under vmap in JAX, rows are drawn together, and their masks are not those of plain calls."""

    def rows(self, key, size, shape):
        return self.backend.uniform(key, (size, *shape))
