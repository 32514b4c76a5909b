"""Exercise 3: the variance of activations, with and without dropout.

Source: Li et al., "Understanding the Disharmony between Dropout and Batch Normalization by Variance
Shift", CVPR (2019), for the shift of variance between training and test.
"""

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy import ndarray

from experiments.study.masks import all_masks, apply_keep, covariance, difference
from experiments.study.paired import each, interval, level, paired, verdict, words
from experiments.study.report import RATES, Answer, Row, exact_row
from experiments.study.runs import SMALL, Run, Setting, Study

QUESTION = "What is the variance of activations with and without dropout?"

DROPOUT = SMALL
NONE = DROPOUT.but(p1=0.0, p2=0.0)
IMAGES, PASSES = 500, 40  # what is measured: this many test images, each with this many masks
NAMES = {  # of the curves
    "none, test": "no dropout: images",
    "dropout, test": "dropout: images",
    "dropout, masks": "dropout: masks",
}
LAYERS = ("hidden 1", "pre-activations 2", "hidden 2", "logits")

PREDICTION = (  # what theory and the literature say
    "If h is fixed, dropout gives h' the variance h² p / (1 - p). A pre-activation, the sum "
    "of w_j h'_j, gets the variance p / (1 - p) Σ w_j² h_j². Two pre-activations i and k "
    "share the mask, so their covariance is p / (1 - p) Σ w_ij w_kj h_j². All three are "
    "exact. Over many images, the variance in training is the variance over the images plus "
    "the mean variance over the masks. So it is larger than at test time: for a unit with "
    "mean c and variance v over the images it is (v + c²) / (1 - p) - c², against v at test "
    "time. A batch normalisation that stores the variance of training then divides by the "
    "wrong number (Li et al., 2019)."
)


def identities(framework: str, n: int = 10, p: float = 0.3) -> dict[str, float]:
    """Return how far each identity is from exact, over all masks of a layer of n units."""
    rng = np.random.default_rng(0)
    h, w = rng.uniform(0, 2, n), rng.normal(size=(3, n))
    masks, chance = all_masks(n, p)
    dropped = apply_keep(framework, h, masks, p)
    of_h, of_z = covariance(dropped, chance), covariance(dropped @ w.T, chance)
    off = ~np.eye(3, dtype=bool)
    form = p / (1 - p) * (w * h**2) @ w.T
    return {
        "activations": difference(np.diag(of_h), h**2 * p / (1 - p)),
        "pre-activations": difference(np.diag(of_z), p / (1 - p) * (w**2 * h**2).sum(1)),
        "covariances": difference(of_z[off], form[off]),
    }


def measure(
    setting: Setting, weights: dict[str, ndarray], images: ndarray, labels: ndarray
) -> dict[str, Any]:
    """Measure the variances of a trained network, with all masks on."""
    from impls.numpy.dropout import dropout

    (w1, b1), (w2, b2), (w3, b3) = (
        (weights[f"linear_{i}.weight"], weights[f"linear_{i}.bias"]) for i in (1, 2, 3)
    )
    rng = np.random.default_rng(setting.seed)
    h1 = np.maximum(images[:IMAGES] @ w1.T + b1, 0)
    z2 = h1 @ w2.T + b2
    h2 = np.maximum(z2, 0)
    passes = []
    for _ in range(PASSES):
        dropped_1 = dropout(h1, setting.p1, training=True, rng=rng)
        pre_2 = dropped_1 @ w2.T + b2
        dropped_2 = dropout(np.maximum(pre_2, 0), setting.p2, training=True, rng=rng)
        passes.append((dropped_1, pre_2, dropped_2, dropped_2 @ w3.T + b3))
    v1, v2 = (p / (1 - p) for p in (setting.p1, setting.p2))
    forms = (v1 * h1**2, v1 * h1**2 @ w2.T**2, v2 * h2**2, v2 * h2**2 @ w3.T**2)
    at_test = (h1, z2, h2, h2 @ w3.T + b3)
    return {
        layer: _variances(np.stack(values).astype(float), test.astype(float), form.astype(float))
        for layer, values, test, form in zip(
            LAYERS, zip(*passes, strict=True), at_test, forms, strict=True
        )
    }


def _variances(values: ndarray, test: ndarray, form: ndarray) -> dict[str, float]:
    """Return means over units. The arrays are (passes, images, units), (images, units) twice."""
    masks = values.var(0, ddof=1).mean()
    data = values.mean(0).var(0).mean() - masks / len(values)
    alive = test.var(0) > 1e-6 * test.var(0).max()
    v = test.var(0)[alive]
    return {
        "data": float(data),
        "masks": float(masks),
        "formula": float(form.mean()),
        "test": float(test.var(0).mean()),
        "shift": _mean(v / values.reshape(-1, test.shape[1]).var(0)[alive]),
        # of a unit with variance v over images, to which the masks add the mean of the formula
        "shift predicted": _mean(v / (v + form.mean(0)[alive])),
    }


def _mean(values: ndarray) -> float:
    return float(values.mean()) if len(values) else np.nan  # no unit is alive


def _values(runs: Iterable[Run], layer: str, name: str, by: str = "") -> ndarray:
    """Return what was measured in each run, divided by something else. 0 / 0 is NaN."""
    found = [run["measured"][layer] for run in runs]
    top = np.array([m[name] for m in found], float)
    bottom = np.array([m[by] if by else 1.0 for m in found], float)
    return np.divide(top, bottom, out=np.full_like(top, np.nan), where=bottom > 0)


def _log(values: ndarray) -> ndarray:
    return np.log(values, out=np.full_like(values, np.nan), where=values > 0)


def run(study: Study) -> dict[str, Any]:
    """Check the identities, and measure networks at several times of their training."""
    times = study.of((1, 3, 10, 30), (1, 2))
    bases = {"dropout": DROPOUT, "none": NONE}
    chosen = study.choose_rates(bases)
    rates = {"0.5": dict.fromkeys(bases, 0.5), "chosen": chosen}
    runs = study.train({
        f"{name} {rate} {time}": base.but(lr=rates[rate][name], epochs=time, measure="variance")
        for name, base in bases.items() for rate in rates for time in times
    })  # fmt: skip
    end = times[-1]

    def table(layers: Iterable[str], name: str, by: str = "") -> dict[str, Any]:
        return {
            rate: {
                layer: {f: interval(_values(of[f"dropout {rate} {end}"], layer, name, by))
                        for f, of in runs.items()}
                for layer in layers
            }
            for rate in rates
        }  # fmt: skip

    exact = {f: identities(f) for f in (*study.frameworks, "numpy")}
    return {
        "chosen": chosen,
        "times": times,
        "identities": {name: {f: exact[f][name] for f in exact} for name in exact["numpy"]},
        "masks by data": table(LAYERS, "masks", "data"),
        "masks by formula": table(LAYERS, "masks", "formula"),
        "shift": table(LAYERS[:2], "shift"),
        "shift predicted": table(LAYERS[:2], "shift predicted"),
        "test": {  # logarithm of the variance at test time, dropout minus none
            rate: {
                layer: {f: paired(_log(_values(of[f"dropout {rate} {end}"], layer, "test")),
                                  _log(_values(of[f"none {rate} {end}"], layer, "test")))
                        for f, of in runs.items()}
                for layer in LAYERS
            }
            for rate in rates
        },
        "curves": {
            f: {
                f"{name}, {what}": [
                    interval(_values(of[f"{name} chosen {time}"], "hidden 2", what))
                    for time in times
                ]
                for name, what in (("none", "test"), ("dropout", "test"), ("dropout", "masks"))
            }
            for f, of in runs.items()
        },
    }  # fmt: skip


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    rows = [
        exact_row(f"{name}: the formula is exact", of.values())
        for name, of in results["identities"].items()
    ]
    for rate, layers in results["masks by formula"].items():
        for layer, of in layers.items():
            text = f"{layer}, {RATES[rate]}: variance of the masks, measured / formula: "
            if layer in LAYERS[:2]:
                close = all(abs(value[0] - 1) < 0.02 for value in of.values())
                rows.append(Row(f"{text}1, within 2 %", each(of, level), close))
            elif layer == "logits":  # the formula with h of test time does not see the first layer
                above = all(value[1] > 1 for value in of.values())
                rows.append(
                    Row(
                        f"{text}above 1, because of the noise of the first layer",
                        each(of, level),
                        above,
                    )
                )
    for rate, layers in results["shift"].items():
        for layer, found in layers.items():
            predicted = results["shift predicted"][rate][layer]
            close = all(abs(found[f][0] / predicted[f][0] - 1) < 0.02 for f in found)
            text = f"{layer}, {RATES[rate]}: variance at test time / in training: "
            text += words(predicted, lambda v: f"{v[0]:.3f}")
            rows.append(Row(text, each(found, level), close))
    return Answer(rows, _setup(results), _text(results))


def _setup(results: dict[str, Any]) -> str:
    chosen = results["chosen"]
    return (
        f"{DROPOUT.images:,} images for {results['times'][-1]} epochs in batches of "
        f"{DROPOUT.batch_size}. Learning rates chosen on the validation split: "
        f"{chosen['dropout']:g} with dropout, {chosen['none']:g} without."
    )


def _text(results: dict[str, Any]) -> str:
    beside, shift = results["masks by data"]["chosen"], results["shift"]["chosen"]
    hidden = results["test"]["chosen"]["hidden 2"]
    exact = max(d for of in results["identities"].values() for d in of.values())
    larger = [layer for layer in LAYERS if all(value[1] > 1 for value in beside[layer].values())]

    def short(value: list[float]) -> str:
        return f"{value[0]:.2f}"

    def factor(difference: list[float]) -> str:  # of a difference of logarithms
        return f"{math.exp(difference[0]):.2f}"

    return (
        f"The three formulas hold to {exact:.0e} over all masks of a small layer. In a trained "
        "network, the variance of the masks divided by that of the images is "
        + ", ".join(f"{words(beside[layer], short)} in {layer}" for layer in LAYERS)
        + f". So the masks add more variance than the images in {', '.join(larger) or 'no layer'}. "
        "At test time, the second hidden layer of a network trained with dropout has "
        + verdict(hidden, "a larger variance", "a smaller variance")
        + f" than that of one trained without: {words(hidden, factor)} times as much, at the rates "
        "chosen for each. Batch normalisation behind the first dropout layer would leave a "
        f"variance of {words(shift['hidden 1'], short)} instead of 1 at test time. Behind the next "
        f"linear map it would be {words(shift['pre-activations 2'], short)}."
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the variances of each layer, their course in training, and the shift."""
    panels = figure.subplots(1, 3)
    frameworks = list(results["curves"])
    width = 0.8 / len(frameworks)
    for i, f in enumerate(frameworks):
        for panel, key, layers in (
            (panels[0], "masks by data", LAYERS),
            (panels[2], "shift", LAYERS[:2]),
        ):
            mean, low, high = np.array([results[key]["chosen"][layer][f] for layer in layers]).T
            panel.bar(
                np.arange(len(layers)) + (i - (len(frameworks) - 1) / 2) * width, mean, width,
                yerr=(mean - low, high - mean), capsize=2, color=f"C{i}", label=f,
            )  # fmt: skip
            panel.set_xticks(range(len(layers)), layers, rotation=30, ha="right")
            panel.axhline(1, color="grey", lw=0.8)
        for style, (name, points) in zip(
            ("-", "--", ":"), results["curves"][f].items(), strict=True
        ):
            panels[1].plot(
                results["times"], np.array(points)[:, 0], style + "o", color=f"C{i}",
                markersize=3, label=f"{f}, {NAMES[name]}",
            )  # fmt: skip
    for j, layer in enumerate(LAYERS[:2]):
        predicted = results["shift predicted"]["chosen"][layer][frameworks[0]][0]
        panels[2].plot((j - 0.45, j + 0.45), (predicted, predicted), "k--", lw=1)
    panels[0].set(title="trained network", ylabel="variance of masks / of images")
    panels[1].set(title="hidden 2", xlabel="epochs", ylabel="variance of units", xscale="log")
    panels[2].set(title="shift (dashed: predicted)", ylabel="variance at test / in training")
    panels[0].legend(fontsize="small")
    panels[1].set_ylim(bottom=0, top=1.4 * panels[1].get_ylim()[1])  # room for the legend
    panels[1].legend(fontsize="x-small")
