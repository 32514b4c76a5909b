"""Networks that put a right dropout in the wrong place, or hand it the wrong randomness."""

from typing import Any

import numpy as np
from dropout_contract.backends import backend
from dropout_contract.mutants.correct import Correct


class CorrectNetwork:
    """Two hidden layers with a dropout after each ReLU."""

    def __init__(self, framework: str, weights: dict[str, np.ndarray], p1: float, p2: float):
        self.framework, self.p1, self.p2 = framework, p1, p2
        self.backend = backend(framework)
        self.weights = {name: self.backend.array(array) for name, array in weights.items()}
        self.dropout = Correct(framework)

    def __call__(self, x: Any, training: bool, source: Any) -> Any:
        source_1, source_2 = self.sources(source)
        h1 = self.drop(self.relu(self.linear(1, x)), self.p1, training, source_1)
        h2 = self.drop(self.relu(self.linear(2, h1)), self.p2, training, source_2)
        return self.linear(3, h2)

    def sources(self, source: Any) -> tuple[Any, Any]:
        if self.framework == "jax":
            import jax

            first, second = jax.random.split(source)
            return first, second
        return source, source

    def drop(self, x: Any, p: float, training: bool, source: Any) -> Any:
        return self.dropout(x, p, training=training, **{self.backend.source_name: source})

    def linear(self, layer: int, x: Any) -> Any:
        return x @ self.weights[f"linear_{layer}.weight"].T + self.weights[f"linear_{layer}.bias"]

    def relu(self, x: Any) -> Any:
        return self.dropout.xp.where(x > 0, x, 0)


class OneKeyForBothLayers(CorrectNetwork):
    """One raw key for two layers: the masks are nested (a common slip with explicit keys)."""

    def sources(self, source):
        if self.framework == "jax":
            return source, source
        seed = int(1e6 * float(self.backend.uniform(source, (1,))[0]))
        return self.backend.source(seed), self.backend.source(seed)


class OneKeyForAllSteps(CorrectNetwork):
    """The key is never folded or split from step to step (d2l's JAX version)."""

    def sources(self, source):
        return super().sources(self.backend.source(0))


class RatesSwapped(CorrectNetwork):
    """p1 after the second layer and p2 after the first."""

    def __init__(self, framework, weights, p1, p2):
        super().__init__(framework, weights, p2, p1)


class DropsLogits(CorrectNetwork):
    """One dropout too many, after the last layer."""

    def linear(self, layer, x):
        out = super().linear(layer, x)
        return self.drop(out, self.p2, True, self.backend.source(5)) if layer == 3 else out


class OnlyTheFirst(CorrectNetwork):
    """The second dropout is made in the constructor and never called."""

    def drop(self, x, p, training, source):
        return x if p == self.p2 else super().drop(x, p, training, source)


class OnlyTheSecond(CorrectNetwork):
    """The first dropout is made in the constructor and never called."""

    def drop(self, x, p, training, source):
        return x if p == self.p1 else super().drop(x, p, training, source)


class OneRateForBoth(CorrectNetwork):
    """p1 is used twice: a line copied and not changed."""

    def __init__(self, framework, weights, p1, p2):
        super().__init__(framework, weights, p1, p1)


class OnInEvaluation(CorrectNetwork):
    """A flag of the network's own, which evaluation does not touch (the article)."""

    def __call__(self, x, training, source):
        return super().__call__(x, True, source)


class OneMaskForTheBatch(CorrectNetwork):
    """Masks drawn for one example and used for all."""

    def drop(self, x, p, training, source):
        if not training:
            return x
        keep = self.dropout.keep(self.dropout.uniform(source, (1, x.shape[1])), p)
        zeros = self.dropout.xp.zeros_like(x, dtype=self.dropout.xp.bool)
        return self.dropout.apply(x, keep | zeros, p)


class DropsBeforeTheLayer(CorrectNetwork):
    """Dropout on the inputs of the linear maps instead of on the outputs of the hidden layers."""

    def __call__(self, x, training, source):
        source_1, source_2 = self.sources(source)
        h1 = self.relu(self.linear(1, self.drop(x, self.p1, training, source_1)))
        return self.linear(3, self.relu(self.linear(2, self.drop(h1, self.p2, training, source_2))))


class FirstMaskFixed(CorrectNetwork):
    """The first mask is drawn in the constructor, and only the second one changes."""

    def sources(self, source):
        return self.backend.source(0), super().sources(source)[1]


class PairsShareTheFirstMask(CorrectNetwork):
    """Two examples that are neighbours have one first mask, as for two views of one image."""

    def drop(self, x, p, training, source):
        if not training or p != self.p1 or x.shape[0] % 2:
            return super().drop(x, p, training, source)
        u = self.dropout.uniform(source, (x.shape[0] // 2, 1, x.shape[1]))
        u = u + self.dropout.xp.zeros((1, 2, 1), dtype=self.dropout.xp.float32)
        return self.dropout.apply(x, self.dropout.keep(u.reshape(tuple(x.shape)), p), p)


class MirroredLayers(CorrectNetwork):
    """The second layer has the numbers of the first, read backwards."""

    def drop(self, x, p, training, source):
        if not training:
            return x
        u = self.dropout.uniform(source, tuple(x.shape))
        if p == self.p1:
            self.first = u
        else:
            u = self.again(self.first)
        return self.dropout.apply(x, self.dropout.keep(u, p), p)

    def again(self, u):
        return self.dropout.xp.flip(u, (1,))


class ComplementaryLayers(MirroredLayers):
    """The second layer has 1 - u of the first: what one drops the other keeps."""

    def again(self, u):
        return 1 - u


class OffAtBatchSizeOne(CorrectNetwork):
    """A batch of one is taken for evaluation."""

    def drop(self, x, p, training, source):
        return super().drop(x, p, training and x.shape[0] > 1, source)


NETWORK_MUTANTS = {
    kind.__name__: kind for kind in (*CorrectNetwork.__subclasses__(), ComplementaryLayers)
}
