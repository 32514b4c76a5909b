"""What the exercises add to impls/jax: other noise, weight decay, max-norm."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from experiments.study.runs import Arrays, Setting
from impls.jax.device import use
from impls.jax.dropout import Dropout
from impls.jax.mlp import MLP
from impls.jax.noise import Noise, dropconnect
from impls.jax.train import Data, Results, train_step


class DropConnectMLP(MLP):
    """The network, dropping the weights that lead out of a hidden unit instead of the unit."""

    def __call__(self, x: Array, *, key: Array | None = None, keep: Any = None) -> Array:
        """Compute the logits, as in `MLP`. Ready-made masks are not possible."""
        keys = (None, None) if key is None else jax.random.split(key)
        h1 = nnx.relu(self.linear_1(x))
        h2 = nnx.relu(self._drop(h1, self.linear_2, self.dropout_1, keys[0]))
        return self._drop(h2, self.linear_3, self.dropout_2, keys[1])

    @staticmethod
    def _drop(h: Array, linear: Any, noise: Any, key: Array | None) -> Array:
        weight, bias = linear.kernel[...].T, linear.bias[...]
        return dropconnect(h, weight, bias, noise.p, training=not noise.deterministic, key=key)


def prepare(setting: Setting, arrays: Arrays) -> tuple[MLP, nnx.Optimizer, Data]:
    """Return the network, its optimizer and the data, as the lesson's `train` takes them."""
    use("cpu")
    model = setting.network(arrays[0].shape[1], (MLP, DropConnectMLP), (Dropout, Noise))
    optimizer = nnx.Optimizer(model, descent(setting.max_norm), wrt=nnx.Param)
    state: Any = optimizer.opt_state
    state.hyperparams["learning_rate"][...] = setting.lr
    state.hyperparams["weight_decay"][...] = setting.weight_decay
    images, labels, test_images, test_labels = map(jnp.asarray, arrays)
    return model, optimizer, (images, labels, test_images, test_labels)


@functools.cache  # one object for each limit: for another object, JAX would compile anew
def descent(max_norm: float) -> optax.GradientTransformation:
    """Return gradient descent whose learning rate and weight decay are a part of its state."""

    def make(learning_rate: Any, weight_decay: Any) -> optax.GradientTransformation:
        steps = [optax.add_decayed_weights(weight_decay), optax.sgd(learning_rate)]
        return optax.chain(*steps, *([limit(max_norm)] if max_norm else []))

    return optax.inject_hyperparams(make)(learning_rate=0.0, weight_decay=0.0)


def limit(most: float) -> optax.GradientTransformation:
    """Shorten the weights into each unit to a norm of `most` where it is larger."""

    def limited(update: Array, value: Array) -> Array:
        after = value + update
        if after.ndim == 2:  # a kernel (in, out)
            norms = jnp.linalg.norm(after, axis=0, keepdims=True)
            after = after * jnp.minimum(1, most / jnp.maximum(norms, 1e-12))
        return after - value

    return optax.stateless(lambda updates, values: jax.tree.map(limited, updates, values))


compiled_step = nnx.jit(train_step)


def take_step(
    model: MLP, optimizer: nnx.Optimizer, data: Data, batch: np.ndarray, seed: int, step: int
) -> Results:
    """Take one step of a run, on these examples."""
    key = jax.random.fold_in(jax.random.key(seed), np.uint32(step))
    return compiled_step(model, optimizer, data[0][batch], data[1][batch], key=key)
