"""Every random number of a run is a function of seed, purpose, epoch and step, and of all of it."""

import itertools

import numpy as np
import pytest

from shared.config import Config
from shared.randomness import epoch_order, initial_weights, step_seed
from tests.adapters import Adapter


@pytest.mark.parametrize("seed", [0, 2**31 + 5, 2**32 - 1])
def test_every_random_number_comes_from_seed_purpose_and_index(seed: int):
    # Written out with NumPy: 0 is for the initial weights, 1 for the order, 2 for the masks.
    sizes = (6, 5, 4, 3)
    weights = initial_weights(*sizes, seed=seed, dtype="float64")
    for layer, (fan_in, fan_out) in enumerate(itertools.pairwise(sizes), 1):
        rng, bound = np.random.default_rng([seed, 0, layer]), 1 / np.sqrt(fan_in)
        weight = rng.uniform(-bound, bound, (fan_out, fan_in))
        np.testing.assert_array_equal(weights[f"linear_{layer}.weight"], weight)
        np.testing.assert_array_equal(
            weights[f"linear_{layer}.bias"], rng.uniform(-bound, bound, fan_out)
        )
    order = np.random.default_rng([seed, 1, 70_000]).permutation(50)
    np.testing.assert_array_equal(epoch_order(50, seed=seed, epoch=70_000), order)
    (expected,) = np.random.SeedSequence([seed, 2, 70_000]).generate_state(1)
    assert step_seed(seed, 70_000) == expected


def test_the_masks_of_an_epoch_depend_on_its_whole_number(trainable: Adapter, small_data):
    losses = set()
    for epoch in (3, 3 + 2**8, 3 + 2**16, 3 + 2**24):
        config = Config(lr=0.0, hidden_1=16, hidden_2=16, batch_size=1000)  # an epoch is a step
        model, optimizer, arrays = trainable.network(config, small_data)
        loss, _ = trainable.train.train_epoch(model, optimizer, arrays, config, epoch)
        losses.add(loss.item())
    assert len(losses) == 4
