"""What the exercises add to the training of impls/jax: noise, weight decay, max-norm."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from experiments.study.runs import Setting
from impls.jax.dropout import Dropout
from impls.jax.evaluate import evaluate
from impls.jax.mlp import MLP
from impls.jax.noise import Noise, dropconnect
from impls.jax.train import train_epoch


class DropConnectMLP(MLP):
    """The network, dropping the weights that lead out of a hidden unit instead of the unit."""

    def __call__(self, x: Array, *, key: Array | None = None, keep: Any = None) -> Array:
        """Compute the logits, as in `MLP`. Ready-made masks are not possible."""
        keys = (None, None) if key is None else jax.random.split(key)
        h = nnx.relu(self.linear_1(x))
        layers: Any = ((self.linear_2, self.dropout_1), (self.linear_3, self.dropout_2))
        for (linear, noise), key_of_layer in zip(layers, keys, strict=True):
            h = dropconnect(
                h, linear.kernel[...].T, linear.bias[...], noise.p,
                training=not noise.deterministic, key=key_of_layer,
            )  # fmt: skip
            h = nnx.relu(h) if linear is self.linear_2 else h
        return h


class Trainer:
    """Trains one network, an epoch at a time."""

    def __init__(self, setting: Setting, images: np.ndarray, labels: np.ndarray) -> None:
        def noise(p: float) -> nnx.Module:
            if setting.noise in ("dropout", "dropconnect"):
                return Dropout(p)
            kind, masks = setting.kind
            return Noise(p, kind=kind, masks=masks)

        network = DropConnectMLP if setting.noise == "dropconnect" else MLP
        sizes = (images.shape[1], setting.hidden_1, setting.hidden_2, 10)
        self.model: Any = network(*sizes, setting.p1, setting.p2, noise=noise, seed=setting.seed)
        self.optimizer = nnx.Optimizer(self.model, _descent(setting.max_norm), wrt=nnx.Param)
        state = self.optimizer.opt_state.hyperparams
        state["learning_rate"][...] = setting.lr
        state["weight_decay"][...] = setting.weight_decay
        self.images, self.labels = jnp.asarray(images), jnp.asarray(labels)
        self.setting = setting

    def epoch(
        self, order: np.ndarray, p1: float, p2: float, first_step: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Train an epoch with these rates. Return loss and number correct of each step."""
        self.model.dropout_1.p, self.model.dropout_2.p = p1, p2
        size = self.setting.batch_size * self.setting.copies
        losses, correct = train_epoch(
            self.model, self.optimizer, self.images, self.labels, jnp.asarray(order),
            jax.random.key(self.setting.seed), first_step, size,
        )  # fmt: skip
        return np.asarray(losses), np.asarray(correct)

    def score(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
        """Return loss and accuracy with dropout off."""
        return evaluate(self.model, jnp.asarray(images), jnp.asarray(labels))

    def weights(self) -> dict[str, np.ndarray]:
        """Return the weights as in a weight file."""
        return self.model.get_weights()


@functools.cache  # one object for each limit: for another object, JAX would compile anew
def _descent(max_norm: float) -> optax.GradientTransformation:
    """Return gradient descent whose learning rate and weight decay are a part of its state."""

    def make(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
        steps = [optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate)]
        return optax.chain(*steps, *([_limit(max_norm)] if max_norm else []))

    return optax.inject_hyperparams(make)(learning_rate=0.0, weight_decay=0.0)


def _limit(most: float) -> optax.GradientTransformation:
    """Shorten the weights into each unit to a norm of `most` where it is larger."""

    def limited(update: Array, value: Array) -> Array:
        after = value + update
        if after.ndim == 2:  # a kernel (in, out)
            norms = jnp.linalg.norm(after, axis=0, keepdims=True)
            after = after * jnp.minimum(1, most / jnp.maximum(norms, 1e-12))
        return after - value

    return optax.stateless(lambda updates, values: jax.tree.map(limited, updates, values))
