"""Does this repeat the article's experiment? Five seeds, both frameworks, dropout off and on.

python -m experiments.article

The article prints a test accuracy of 0.853 after ten epochs. Its network has its own flag for
dropout, and `.eval()` does not change that flag. As far as its text shows, the figure was taken
with dropout on.
"""

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax
import scipy.stats
import torch
from flax import nnx
from tqdm import tqdm

import impls.jax.train
import impls.torch.train
from shared.checks import InputError
from shared.cli import one_line_errors, parse
from shared.config import Config
from shared.data import load, to_arrays


@dataclasses.dataclass(frozen=True)
class ArticleConfig:
    """Train with the article's settings, once for each seed, in both frameworks."""

    seeds: int = 5
    """How many seeds: 0, 1, ..."""
    epochs: int = 10
    """Passes over the training data."""
    data: str = "full"
    """full, sample, auto, or a folder of four IDX files."""


Scores = tuple[float, float]  # test accuracy with dropout off, and with dropout left on


def in_torch(config: Config, arrays: Sequence[np.ndarray]) -> Scores:
    """Train in PyTorch, and score the network, also while it is still in training mode."""
    lesson = impls.torch.train
    device = lesson.use()
    images, labels, test, truth = (torch.as_tensor(array, device=device) for array in arrays)
    model = lesson.MLP.from_config(config, images.shape[1]).to(device)
    optimizer = torch.optim.SGD(model.parameters(), lr=config.lr)
    *_, last = lesson.train(model, optimizer, (images, labels, test, truth), config)
    with torch.inference_mode():
        logits = model(test, generator=torch.Generator(device).manual_seed(config.seed))
    return last["test_accuracy"], lesson.count_correct(logits, truth).item() / len(truth)


SGD = optax.sgd(Config.lr)  # one for all seeds: JAX compiles anew for another


def in_jax(config: Config, arrays: Sequence[np.ndarray]) -> Scores:
    """Train in JAX, and score the network, also while it is still in training mode."""
    lesson = impls.jax.train
    lesson.use()
    images, labels, test, truth = map(jnp.asarray, arrays)
    model = lesson.MLP.from_config(config, images.shape[1])
    optimizer = nnx.Optimizer(model, SGD, wrt=nnx.Param)
    *_, last = lesson.train(model, optimizer, (images, labels, test, truth), config)
    logits = model(test, key=jax.random.key(config.seed))
    return last["test_accuracy"], lesson.count_correct(logits, truth).item() / len(truth)


def main(args: Sequence[str] | None = None) -> None:
    """Print the table, and a test of whether the two frameworks differ."""
    with one_line_errors():
        flags = parse(ArticleConfig, "experiments.article", args)
        if flags.seeds < 2:
            raise InputError(f"seeds must be at least 2, got {flags.seeds}")
        data = load(flags.data)
        arrays = to_arrays(data, "float32")
        scores: dict[str, list[Scores]] = {"torch": [], "jax": []}
        for seed in tqdm(range(flags.seeds), disable=None):
            config = Config(epochs=flags.epochs, seed=seed)
            scores["torch"].append(in_torch(config, arrays))
            scores["jax"].append(in_jax(config, arrays))
    last = flags.seeds - 1
    print(f"{data.name}: {data.images} images; {flags.epochs} epochs; seeds 0 to {last}\n")
    print("| framework | dropout off | dropout left on | off, for each seed |")
    print("|---|---|---|---|")
    for name, of in scores.items():
        mean, spread = np.mean(of, 0), np.std(of, 0, ddof=1)
        off, on = (f"{mean[i]:.4f} ± {spread[i]:.4f}" for i in (0, 1))
        print(f"| {name} | {off} | {on} | {', '.join(f'{one:.4f}' for one, _ in of)} |")
    off_in = [[off for off, _ in of] for of in scores.values()]
    test = scipy.stats.ttest_ind(*off_in, equal_var=False)
    print(f"\ntorch against JAX, Welch's t-test: p = {test.pvalue:.3f}")


if __name__ == "__main__":
    main()
