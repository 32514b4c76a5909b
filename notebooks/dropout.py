# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Dropout, three ways
#
# In training, dropout sets each hidden unit to 0 with probability p and divides the others by
# 1 - p. Then the mean of a unit stays what it was, and nothing has to be corrected at test time.
#
# This notebook imports the modules of the project. It takes less than a minute on two cores.

# %%
import dataclasses
import math

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
import torch
from flax import nnx

import impls.jax.dropout
import impls.jax.mlp
import impls.jax.train
import impls.numpy.dropout
import impls.torch.dropout
import impls.torch.mlp
import impls.torch.train
from experiments.lockstep import lockstep
from impls.numpy import prng
from shared.config import Config
from shared.data import load, to_arrays

# %% [markdown]
# ## The demonstration
#
# The numbers 0 to 15 with p = 0, 0.5 and 1. At p = 0.5, about half of them become 0, and the others
# are doubled.

# %%
x = torch.arange(16, dtype=torch.float32).reshape(2, 8)
generator = torch.Generator().manual_seed(0)
for p in (0.0, 0.5, 1.0):
    print(f"p = {p}\n{impls.torch.dropout.dropout(x, p, training=True, generator=generator)}\n")

# %% [markdown]
# ## Masks
#
# PyTorch draws a mask from a generator, which has a state: the next mask is another one. JAX draws
# it from a key, which is a value: the same key gives the same mask, and a new mask needs a new key.

# %%
shape = (2, 8)
generator = torch.Generator().manual_seed(0)
key = jax.random.key(0)
print("PyTorch, first and second mask from one generator:")
print(impls.torch.dropout.sample_keep(shape, 0.5, generator=generator).int())
print(impls.torch.dropout.sample_keep(shape, 0.5, generator=generator).int())
print("JAX, twice the mask of one key, then that of a key made from it:")
print(impls.jax.dropout.sample_keep(shape, 0.5, key=key).astype(int))
print(impls.jax.dropout.sample_keep(shape, 0.5, key=key).astype(int))
print(impls.jax.dropout.sample_keep(shape, 0.5, key=jax.random.fold_in(key, 1)).astype(int))

# %% [markdown]
# `impls/numpy/prng.py` computes both kinds of random numbers in NumPy. The masks are equal, bit for
# bit, and so is dropout itself.

# %%
units = np.random.default_rng(0).normal(size=(256, 256)).astype(np.float32)
from_numpy = impls.numpy.dropout.dropout(units, 0.5, training=True, rng=prng.key(0))
from_jax = impls.jax.dropout.dropout(jnp.asarray(units), 0.5, training=True, key=jax.random.key(0))
print("as in JAX:", np.array_equal(from_numpy, from_jax))

from_numpy = impls.numpy.dropout.dropout(
    units, 0.5, training=True, rng=prng.Generator().manual_seed(0)
)
from_torch = impls.torch.dropout.dropout(
    torch.from_numpy(units), 0.5, training=True, generator=torch.Generator().manual_seed(0)
)
print("as in PyTorch:", np.array_equal(from_numpy, from_torch.numpy()))

# %% [markdown]
# ## Two epochs in both frameworks
#
# The network of the lesson, 784-256-256-10, on the sample of Fashion-MNIST that comes with the
# project. Both start from the same weights and see the same batches. Only the masks differ.

# %%
config = Config(epochs=2, data="sample")
data = load(config.data)
arrays = to_arrays(data, config.dtype)

model = impls.torch.mlp.MLP.from_config(config, inputs=784)
optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
on_torch = tuple(torch.as_tensor(array) for array in arrays)
for record in impls.torch.train.train(model, optimizer, on_torch, config):
    print(f"PyTorch, epoch {record['epoch']}: test accuracy {record['test_accuracy']:.1%}")

model = impls.jax.mlp.MLP.from_config(config, inputs=784)
optimizer = nnx.Optimizer(model, optax.sgd(config.lr), wrt=nnx.Param)
on_jax = tuple(jnp.asarray(array) for array in arrays)
for record in impls.jax.train.train(model, optimizer, on_jax, config):
    print(f"JAX, epoch {record['epoch']}: test accuracy {record['test_accuracy']:.1%}")

# %% [markdown]
# ## Fifty steps in lockstep
#
# If both frameworks also get the same masks, they compute the same losses. In float64 they differ
# by rounding only.

# %%
fifty_steps = dataclasses.replace(
    config, epochs=1, batch_size=math.ceil(len(data.train_images) / 50), dtype="float64"
)
difference = lockstep(fifty_steps, data, "jax", print)
print(len(difference.loss_per_step), "steps")
print("largest difference of a loss:", difference.loss_per_step.max())

# %%
plt.figure(figsize=(7, 3))
plt.semilogy(difference.loss_per_step, ".-")
plt.xlabel("step")
plt.ylabel("|PyTorch loss - JAX loss|")
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# ## An exercise
#
# What is the variance of a unit under dropout? The unit h becomes h' = h / (1 - p) with probability
# 1 - p, else 0. So E[h'] = h, E[h'²] = h² / (1 - p), and
#
# $$\mathrm{Var}[h'] = \frac{h^2}{1 - p} - h^2 = h^2 \, \frac{p}{1 - p}.$$
#
# Measured with 100,000 masks of a unit h = 2:

# %%
h = torch.full((100_000,), 2.0)
rates = np.linspace(0.05, 0.9, 18)
generator = torch.Generator().manual_seed(1)
measured = [
    impls.torch.dropout.dropout(h, p, training=True, generator=generator).var().item()
    for p in rates
]
plt.figure(figsize=(7, 3))
plt.plot(rates, 4 * rates / (1 - rates), label="h² p / (1 - p)")
plt.plot(rates, measured, "o", label="100,000 masks")
plt.xlabel("p")
plt.ylabel("variance of h'")
plt.legend()
plt.grid(alpha=0.3)
plt.show()

# %% [markdown]
# The other exercises are answered in `docs/exercises/`.
