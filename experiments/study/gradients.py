"""How similar the directions of the gradients of mini-batches are, with and without dropout.

Source: Liu et al., "Dropout Reduces Underfitting", ICML (2023), for both measures.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from experiments.study.paired import change, interval, paired, plain, verdict, words
from experiments.study.report import Row, errorbars, sign_row
from experiments.study.runs import Run, Setting, arrays

BATCHES = 32
MASKS = {"off": (0.0, 0.0), "on": (0.2, 0.5), "on at 0.1": (0.1, 0.1)}  # Liu et al. use 0.1


def measure(
    setting: Setting, weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray
) -> dict[str, dict[str, float]]:
    """Return variance and error of the gradient's direction, for each of MASKS.

    Both come from mini-batches of the training images: the variance is the mean of (1 - cos) / 2
    over all pairs of gradients, the error its mean between each gradient and that of all training
    images without dropout.
    """
    images, labels, *_ = arrays(setting.data, setting.images, setting.validation)
    rng = np.random.default_rng(setting.seed)
    size = min(setting.batch_size, len(images) // 4)
    draws = [rng.choice(len(images), size, replace=False) for _ in range(BATCHES)]
    batches = [(images[draw], labels[draw]) for draw in draws]
    gradients = _torch_gradients if setting.framework == "torch" else _jax_gradients
    sizes = (images.shape[1], setting.hidden_1, setting.hidden_2, 10)
    whole = gradients(sizes, weights, [(images, labels)], MASKS["off"], setting.seed)
    measured = {}
    for masks, rates in MASKS.items():
        g = gradients(sizes, weights, batches, rates, setting.seed)
        distances = (1 - g @ g.T)[np.triu_indices(BATCHES, 1)] / 2
        errors = (1 - g @ whole[0]) / 2
        measured[masks] = {"variance": float(distances.mean()), "error": float(errors.mean())}
    return measured


def _torch_gradients(
    sizes: Any, weights: dict[str, np.ndarray], batches: list, rates: Any, seed: int
) -> np.ndarray:
    """Return the direction of the gradient of each batch, a row each, in PyTorch."""
    import torch

    from impls.torch.evaluate import cross_entropy
    from impls.torch.mlp import MLP

    model = MLP(*sizes, *rates)
    model.set_weights(weights)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for images, labels in batches:
        logits = model(torch.as_tensor(images), generator=generator)
        loss = cross_entropy(logits, torch.as_tensor(labels))
        rows.append([g.numpy() for g in torch.autograd.grad(loss, list(model.parameters()))])
    return _directions(rows)


def _jax_gradients(
    sizes: Any, weights: dict[str, np.ndarray], batches: list, rates: Any, seed: int
) -> np.ndarray:
    """Return the direction of the gradient of each batch, a row each, in JAX."""
    import jax

    from impls.jax.mlp import MLP

    model = MLP(*sizes, *rates)
    model.set_weights(weights)
    gradient = _jax_gradient()
    keys = jax.random.split(jax.random.key(seed), len(batches))
    gradients = [gradient(model, *batch, key) for batch, key in zip(batches, keys, strict=True)]
    return _directions([[np.asarray(g) for g in jax.tree.leaves(of)] for of in gradients])


@functools.cache  # one function for all runs: JAX would compile another one anew
def _jax_gradient() -> Callable[..., Any]:
    from flax import nnx

    from impls.jax.evaluate import cross_entropy

    def loss(model: Any, images: Any, labels: Any, key: Any) -> Any:
        return cross_entropy(model(images, key=key), labels)

    return nnx.jit(nnx.grad(loss))


def _directions(rows: list[list[np.ndarray]]) -> np.ndarray:
    flat = np.array([np.concatenate([g.ravel() for g in row]) for row in rows], np.float64)
    return flat / np.linalg.norm(flat, axis=1, keepdims=True)


def compare(runs: Mapping[str, Any], name: str, which: str) -> dict[str, Any]:
    """Return a measure of the gradients, and its differences between dropout on and off."""

    def values(of: dict[str, list[Run]], variant: str, masks: str) -> np.ndarray:
        return np.array([run["measured"][masks][which] for run in of[f"{name} {variant}"]])

    return {
        "off": {f: interval(values(of, "without", "off")) for f, of in runs.items()},
        "on": {f: interval(values(of, "with", "on")) for f, of in runs.items()},
        "own": {
            f: paired(values(of, "with", "on"), values(of, "without", "off"))
            for f, of in runs.items()
        },
        **{
            f"same, {masks}": {
                f: paired(values(of, "without", masks), values(of, "without", "off"))
                for f, of in runs.items()
            }
            for masks in ("on", "on at 0.1")
        },
    }


def rows(gradients: dict[str, Any]) -> list[Row]:
    """Return the rows of the table."""
    table = []
    for epochs, of in gradients.items():
        variance = f"variance of the gradient's direction after {_epochs(epochs)}"
        error = f"error of the gradient's direction after {_epochs(epochs)}"
        own = "network trained with dropout minus network without (Liu et al.)"
        table += [
            sign_row(f"{variance}, {own}", of["variance"]["own"], -1, plain),
            sign_row(f"{error}, {own}", of["error"]["own"], -1, plain),
            *(
                sign_row(
                    f"{variance}, same weights, dropout {name} minus off",
                    of["variance"][f"same, {masks}"], 1, plain,
                )
                for masks, name in (("on", "on"), ("on at 0.1", "with both rates 0.1"))
            ),
        ]  # fmt: skip
    return table


def text(gradients: dict[str, Any]) -> str:
    """Return in words what dropout changes in the direction of the gradients, early in training."""
    epochs, measures = next(iter(gradients.items()))
    of = measures["variance"]
    return (
        f"After {_epochs(epochs)}, the variance of the gradient's direction is "
        f"{verdict(of['own'], 'higher', 'lower', 'not clearly different')} in the network "
        f"trained with dropout ({words(of['own'], change)}). With the same weights, dropout "
        f"{verdict(of['same, on'], 'raises it', 'lowers it', 'does not clearly change it')} "
        f"({words(of['same, on'], change)})."
    )


def _epochs(number: str) -> str:
    return "1 epoch" if number == "1" else f"{number} epochs"


def draw(gradients: dict[str, Any], panel: Any) -> None:
    """Draw variance and error of the direction, with and without dropout."""
    groups = [(epochs, which) for epochs in gradients for which in ("variance", "error")]
    for i, variant in enumerate(("off", "on")):
        for color, framework in enumerate(gradients["1"]["variance"][variant]):
            errorbars(
                panel, np.arange(len(groups)) + 0.2 * color + 0.1 * i,
                [gradients[epochs][which][variant][framework] for epochs, which in groups],
                fmt="so"[i], color=f"C{color}",
                label=f"{framework}, {('without', 'with')[i]} dropout",
            )  # fmt: skip
    names = [f"{which}\n{_epochs(epochs)}" for epochs, which in groups]
    panel.set_xticks(range(len(groups)), names)
    panel.set(title="gradient's direction: mean of (1 - cos) / 2")
    panel.set_ylim(top=1.4 * panel.get_ylim()[1])  # room for the legend
    panel.legend(fontsize="small")
