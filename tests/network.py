"""The contract of the network around the dropout: where its two dropouts are, and at what rates.

The network is probed with weights that let its masks be read off its logits: every unit of the
first layer is 1 before dropout, the second layer adds 10 to what the first passes on, and the
last adds 100.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from dropout_contract.backends import backend
from dropout_contract.budget import Budget, sample_size

from shared.randomness import initial_weights

P1, P2, WIDTH = 0.2, 0.5, 64
EXAMPLES = sample_size(P1, 0.05) // WIDTH * 2
# What a logit is: 100 if the second dropout dropped its unit, otherwise 100 + (10 + first) / 0.5.
NEITHER, FIRST_DROPPED, SECOND_DROPPED = 100 + (10 + 1 / 0.8) / 0.5, 100 + 10 / 0.5, 100.0

# A network: made of (framework, weights, p1, p2), called with (x, training, source), logits out.
Make = Callable[[str, dict[str, np.ndarray], float, float], Callable[[Any, bool, Any], Any]]


def probe_weights() -> dict[str, np.ndarray]:
    """Return weights for WIDTH units in each layer that make the masks visible."""
    weights = initial_weights(4, WIDTH, WIDTH, WIDTH, seed=0)
    weights = {name: np.zeros_like(array) for name, array in weights.items()}
    weights["linear_2.weight"] += np.eye(WIDTH, dtype=np.float32)
    weights["linear_3.weight"] += np.eye(WIDTH, dtype=np.float32)
    for layer, bias in ((1, 1), (2, 10), (3, 100)):
        weights[f"linear_{layer}.bias"] += bias
    return weights


def check_network(make: Make, framework: str, seed: int, budget: Budget) -> None:
    """Raise AssertionError unless the network drops in the right places, at the right rates."""
    arrays = backend(framework)
    network = make(framework, probe_weights(), P1, P2)
    x = arrays.array(np.zeros((EXAMPLES, 4)))

    source = arrays.source(seed)
    before = arrays.state(source)
    off = arrays.numpy(network(x, False, source))
    assert arrays.state(source) == before, "evaluation drew from the source"
    np.testing.assert_array_equal(off, np.full_like(off, 111), "dropout is on in evaluation")

    logits, again, other = (
        arrays.numpy(network(x, True, arrays.source(s))) for s in (seed, seed, seed + 1)
    )
    np.testing.assert_array_equal(logits, again, "the same source gives other masks")
    assert (logits != other).any(), "two steps have the same masks"
    known = np.isclose(logits[..., None], (NEITHER, FIRST_DROPPED, SECOND_DROPPED))
    assert known.any(-1).all(), f"a logit of {logits[~known.any(-1)][0]}"
    second = ~known[..., 2]
    budget.check(second.sum(), second.size, 1 - P2, "units kept by the second dropout")
    # Seen only where the second kept: if the two masks share their numbers, the rate is off here.
    n = int(second.sum())
    budget.check(known[..., 0].sum(), n, 1 - P1, "units kept by the first, where the second kept")
    masks = second, known[..., 0]
    next_known = np.isclose(other[..., None], (NEITHER, SECOND_DROPPED))
    next_masks = ~next_known[..., 1], next_known[..., 0]
    _free(masks, next_masks, budget, "two steps")
    for name, order in {
        "examples that are neighbours": np.arange(EXAMPLES) ^ 1,
        "examples in two halves of the batch": np.roll(np.arange(EXAMPLES), EXAMPLES // 2),
    }.items():
        half = order > np.arange(EXAMPLES)  # each pair once
        one, two = ([mask[rows] for mask in masks] for rows in (half, order[half]))
        _free(one, two, budget, name)
    # The first mask is free of the second one, also of its mirror images.
    for flip in (np.s_[:, ::-1], np.s_[::-1], np.s_[::-1, ::-1]):
        mirrored = second[flip]
        for value in (True, False):
            where = second & (mirrored == value)
            what = "units kept by the first, where the mirrored second did as well"
            budget.check(masks[1][where].sum(), int(where.sum()), 1 - P1, what)
    # A batch of one is no exception.
    single = [arrays.numpy(network(x[:1], True, arrays.source(seed + 2 + n))) for n in range(64)]
    kept = np.stack(single) != SECOND_DROPPED
    budget.check(kept.sum(), kept.size, 1 - P2, "units kept in batches of one")


def _free(one: Any, two: Any, budget: Budget, what: str) -> None:
    """Check that two pairs of masks (second, first) disagree as often as free ones do."""
    apart = one[0] != two[0]
    budget.check(apart.sum(), apart.size, 2 * P2 * (1 - P2), f"second masks of {what} that differ")
    seen = one[0] & two[0]  # the first mask shows where the second one kept
    apart = (one[1] != two[1])[seen]
    budget.check(apart.sum(), apart.size, 2 * P1 * (1 - P1), f"first masks of {what} that differ")


def ours(framework: str, weights: dict[str, np.ndarray], p1: float, p2: float) -> Any:
    """Make this project's network."""
    import importlib

    arrays = backend(framework)
    model = importlib.import_module(f"impls.{framework}.mlp").MLP(4, WIDTH, WIDTH, WIDTH, p1, p2)
    model.set_weights(weights)

    def call(x: Any, training: bool, source: Any) -> Any:
        if framework == "numpy":
            return model(x, training=training, rng=source)
        (model.train if training else model.eval)()
        return model(x, **{arrays.source_name: source})

    return call
