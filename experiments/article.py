"""Does this repeat the article's experiment? Five seeds, both frameworks, dropout off and on.

python -m experiments.article

The article prints a test accuracy of 0.853 after ten epochs. Its network has its own flag for
dropout, and `.eval()` does not change that flag. As far as its text shows, the figure was taken
with dropout on.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats
import torch
from tqdm import tqdm

import impls.jax.evaluate
import impls.jax.mlp
import impls.jax.train
import impls.torch.evaluate
import impls.torch.mlp
import impls.torch.train
from shared.checks import InputError
from shared.cli import one_line_errors, parse
from shared.config import Config
from shared.data import load, to_inputs


@dataclasses.dataclass(frozen=True)
class ArticleConfig:
    """Train with the article's settings, once for each seed, in both frameworks."""

    seeds: int = 5
    """How many seeds: 0, 1, ..."""
    epochs: int = 10
    """Passes over the training data."""
    data: str = "full"
    """full, sample, auto, or a folder of four IDX files."""


def torch_left_on(
    weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray, seed: int
) -> float:
    """Return the accuracy of a PyTorch network that is still in training mode."""
    model = impls.torch.mlp.MLP()
    model.set_weights(weights)
    with torch.inference_mode():
        generator = torch.Generator().manual_seed(seed)
        logits = model(torch.from_numpy(images), generator=generator)
    correct = impls.torch.evaluate.count_correct(logits, torch.from_numpy(labels))
    return correct.item() / len(labels)


def jax_left_on(
    weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray, seed: int
) -> float:
    """Return the accuracy of a Flax network that is still in training mode."""
    model = impls.jax.mlp.MLP()
    model.set_weights(weights)
    logits = model(jnp.asarray(images), key=jax.random.key(seed))
    correct = impls.jax.evaluate.count_correct(logits, jnp.asarray(labels))
    return correct.item() / len(labels)


def main() -> None:
    """Print the table, and a test of whether the two frameworks differ."""
    with one_line_errors():
        flags = parse(ArticleConfig, "experiments.article")
        if flags.seeds < 2:
            raise InputError(f"seeds must be at least 2, got {flags.seeds}")
        config = Config(epochs=flags.epochs)
        data = load(flags.data)
        if data.train_images.shape[1] != 28:
            raise InputError(f"the images in {flags.data} do not have 28 x 28 pixels")
    images, labels = to_inputs(data.test_images), data.test_labels
    frameworks = {
        "torch": (impls.torch.train.train, torch_left_on),
        "jax": (impls.jax.train.train, jax_left_on),
    }
    off: dict[str, list[float]] = {name: [] for name in frameworks}
    on: dict[str, list[float]] = {name: [] for name in frameworks}
    for seed in tqdm(range(flags.seeds), disable=None):
        for name, (train, left_on) in frameworks.items():
            result = train(dataclasses.replace(config, seed=seed), data)
            off[name].append(result.history[-1]["test_accuracy"])
            on[name].append(left_on(result.weights, images, labels, seed))
    print(f"{data.summary}; {config.epochs} epochs; seeds 0 to {flags.seeds - 1}\n")
    print("| framework | dropout off | dropout left on | off, for each seed |")
    print("|---|---|---|---|")
    for name in frameworks:
        columns = " | ".join(
            f"{np.mean(values):.4f} ± {np.std(values, ddof=1):.4f}"
            for values in (off[name], on[name])
        )
        print(f"| {name} | {columns} | {', '.join(f'{value:.4f}' for value in off[name])} |")
    test = scipy.stats.ttest_ind(off["torch"], off["jax"], equal_var=False)
    print(f"\ntorch against JAX, Welch's t-test: p = {test.pvalue:.3f}")


if __name__ == "__main__":
    main()
