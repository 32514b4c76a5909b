"""Every random number depends only on the seed and on what it is for: purpose, epoch, step, layer.

So a run has no random state that would have to be saved. Initial weights and batch order are drawn
here, with NumPy, so that every framework starts from the same numbers and sees the same batches.
Each framework draws its own masks: JAX from keys made from the seed, PyTorch from generators that
`step_seed` seeds.
"""

import math

import numpy as np

# Purposes. Random numbers for different purposes are independent, whatever the seed.
INITIAL_WEIGHTS, EPOCH_ORDER, STEP_SEED = range(3)


def initial_weights(
    inputs: int, hidden_1: int, hidden_2: int, outputs: int, *, seed: int, dtype: str = "float32"
) -> dict[str, np.ndarray]:
    """Draw the weights that a network starts from, uniform between -b and b, b = 1 / sqrt(fan_in).

    Args:
        inputs, hidden_1, hidden_2, outputs: sizes of the layers.
        seed: a whole number, not negative.
        dtype: of the arrays returned. float32 values are the float64 values, rounded.

    Returns:
        `linear_1.weight` of shape (hidden_1, inputs), `linear_1.bias` of shape (hidden_1,), and
        so on to `linear_3.bias`.

    Source: the default of `torch.nn.Linear`, which the article uses.
    """
    sizes = (inputs, hidden_1, hidden_2, outputs)
    weights = {}
    for layer in (1, 2, 3):
        fan_in, fan_out = sizes[layer - 1], sizes[layer]
        rng = np.random.default_rng([seed, INITIAL_WEIGHTS, layer])
        bound = 1 / math.sqrt(fan_in)
        weights[f"linear_{layer}.weight"] = rng.uniform(-bound, bound, (fan_out, fan_in))
        weights[f"linear_{layer}.bias"] = rng.uniform(-bound, bound, fan_out)
    return {name: array.astype(dtype) for name, array in weights.items()}


def epoch_order(n: int, *, seed: int, epoch: int) -> np.ndarray:
    """Return the order in which an epoch visits the n examples, int64 (n,), each of them once."""
    return np.random.default_rng([seed, EPOCH_ORDER, epoch]).permutation(n)


def step_seed(seed: int, step: int) -> int:
    """Return the seed of the masks of a step, 32 bits. Steps are counted from 0 over the run."""
    return int(np.random.SeedSequence([seed, STEP_SEED, step]).generate_state(1)[0])
