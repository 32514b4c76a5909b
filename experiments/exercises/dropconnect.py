"""Exercise 7: DropConnect, which drops weights instead of units.

Source: Wan et al., "Regularization of Neural Networks using DropConnect", ICML (2013).
"""

from itertools import combinations
from typing import Any

import numpy as np
from numpy import ndarray
from scipy.stats import norm

from experiments.study.masks import all_masks, apply_keep, covariance, difference
from experiments.study.paired import each, interval, paired, percent, plain, points, verdict, words
from experiments.study.report import NONE, RATES, Answer, Row, errorbars, exact_row, sign_row
from experiments.study.runs import SMALL, Setting, Study, compare, final
from impls.numpy.evaluate import cross_entropy

QUESTION = "What if weights are dropped instead of units (DropConnect)?"

# Small, because each weight has a mask for each example.
DROPOUT = SMALL.but(epochs=20, hidden_1=64, hidden_2=64)
METHODS = {
    "none": DROPOUT.but(p1=0.0, p2=0.0),
    "dropout": DROPOUT,
    "dropconnect": DROPOUT.but(noise="dropconnect"),
}
# The mean over masks at test time is that of so many masks, for so many images.
MASKS, IMAGES, AT_ONCE = 4_000, 20, 40

PREDICTION = (  # what theory and the literature say
    "With DropConnect, each product w_ij h_j has its own mask. A pre-activation has the same "
    "mean and the same variance as with dropout, p / (1 - p) Σ w_ij² h_j². But two "
    "pre-activations share no mask, so their covariance is 0, where that of dropout is "
    "p / (1 - p) Σ w_ij w_kj h_j². In the results of Wan et al. (2013) the two methods are "
    "close, so the accuracies should differ little here. At test time, they take each "
    "pre-activation for a normal number with the exact mean and variance, and use the mean of "
    "its ReLU. This should come closer to the mean over the masks than plain "
    "rescaling, which applies the ReLU to the mean."
)


def identities(framework: str, p: float = 0.3) -> dict[str, float]:
    """Return how far mean, variance and covariance are from theory, over all masks."""
    rng = np.random.default_rng(0)
    h, w = rng.uniform(0.5, 1.5, 5), rng.uniform(0.5, 1.5, (2, 5))
    keep, chance = all_masks(w.size, p)
    z = apply_keep(framework, w, keep.reshape(-1, *w.shape), p) @ h
    units, chance_of_units = all_masks(len(h), p)
    z_dropout = apply_keep(framework, h, units, p) @ w.T
    form = p / (1 - p) * (w * h**2) @ w.T
    return {
        "mean": difference(chance @ z, w @ h),
        "variances": difference(np.diag(covariance(z, chance)), np.diag(form)),
        "covariance of DropConnect": float(abs(covariance(z, chance)[0, 1] / form[0, 1])),
        "covariance of dropout": difference(
            covariance(z_dropout, chance_of_units)[:1, 1], form[:1, 1]
        ),
    }


def measure(
    setting: Setting, weights: dict[str, ndarray], images: ndarray, labels: ndarray
) -> dict[str, Any]:
    """Compare ways of leaving out the masks of the second layer at test time."""
    from impls.numpy.noise import dropconnect

    (w1, b1), (w2, b2), (w3, b3) = (
        (weights[f"linear_{i}.weight"], weights[f"linear_{i}.bias"]) for i in (1, 2, 3)
    )
    rng, p = np.random.default_rng(setting.seed), setting.p1
    h1 = np.maximum(images @ w1.T + b1, 0)
    mean, spread = h1 @ w2.T + b2, np.sqrt(p / (1 - p) * h1**2 @ w2.T**2) + 1e-30
    # The mean of max(z, 0) for a normal z, which is what infinitely many samples would give.
    normal = mean * norm.cdf(mean / spread) + spread * norm.pdf(mean / spread)
    ways = {"rescaling": np.maximum(mean, 0), "normal": normal}
    few = np.tile(h1[:IMAGES], (AT_ONCE, 1))
    of_masks = np.zeros((IMAGES, len(b2)))
    for _ in range(MASKS // AT_ONCE):
        z = dropconnect(few, w2, b2, p, training=True, rng=rng)
        of_masks += np.maximum(z, 0).reshape(AT_ONCE, IMAGES, -1).sum(0) / MASKS
    size = np.sqrt((of_masks**2).mean()) + 1e-30
    return {
        way: {
            # the rest of the network needs no samples: it is linear in h
            "accuracy": float(((h @ w3.T + b3).argmax(1) == labels).mean()),
            "loss": float(cross_entropy(h @ w3.T + b3, labels)),
            "distance": float(np.sqrt(((h[:IMAGES] - of_masks) ** 2).mean()) / size),
        }
        for way, h in ways.items()
    }


def run(study: Study) -> dict[str, Any]:
    """Train with DropConnect, with dropout and without, and test in two ways."""
    chosen = study.choose_rates(METHODS)
    rates = {"0.5": dict.fromkeys(METHODS, 0.5), "chosen": chosen}
    runs = study.train({
        f"{name} {rate}": setting.but(
            lr=rates[rate][name], measure="dropconnect" if name == "dropconnect" else ""
        )
        for name, setting in METHODS.items() for rate in rates
    })  # fmt: skip

    def measured(of: dict[str, Any], rate: str, way: str, what: str) -> ndarray:
        values = [run["measured"][way][what] for run in of[f"dropconnect {rate}"]]
        return np.array(values, float)

    exact = {f: identities(f) for f in (*study.frameworks, "numpy")}
    return {
        "chosen": chosen,
        "identities": {name: {f: exact[f][name] for f in exact} for name in exact["numpy"]},
        "accuracy": {
            rate: {
                name: {f: interval(final(of[f"{name} {rate}"])) for f, of in runs.items()}
                for name in METHODS
            }
            for rate in rates
        },
        "differences": {
            rate: {
                f"{b} minus {a}": compare(runs, f"{b} {rate}", f"{a} {rate}")
                for a, b in combinations(METHODS, 2)
            }
            for rate in rates
        },
        "at test": {  # a normal distribution minus rescaling
            rate: {
                what: {f: paired(measured(of, rate, "normal", what),
                                 measured(of, rate, "rescaling", what))
                       for f, of in runs.items()}
                for what in ("accuracy", "loss", "distance")
            }
            for rate in rates
        },
        "distance": {
            way: {f: interval(measured(of, "chosen", way, "distance")) for f, of in runs.items()}
            for way in ("rescaling", "normal")
        },
    }  # fmt: skip


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    rows = [exact_row(f"{name}: the formula", of.values()) for name, of in
            results["identities"].items()]  # fmt: skip
    for rate, of in results["differences"].items():
        text = f"DropConnect minus dropout, {RATES[rate]}"
        rows.append(sign_row(text, of["dropconnect minus dropout"], 0))
    for rate, of in results["at test"].items():
        text = f"normal minus rescaling, {RATES[rate]}"
        rows += [
            sign_row(f"distance to the mean over masks, {text}", of["distance"], -1, plain),
            Row(f"points of accuracy, {text}", each(of["accuracy"], percent), NONE),
        ]
    rates = ", ".join(f"{lr:g} for {name}" for name, lr in results["chosen"].items())
    setup = (
        f"{DROPOUT.images:,} images for {DROPOUT.epochs} epochs in batches of "
        f"{DROPOUT.batch_size}, {DROPOUT.hidden_1} units in each hidden layer. The mean over the "
        f"masks is that of {MASKS:,} masks, for {IMAGES} test images. Learning rates chosen on the "
        f"validation split: {rates}."
    )
    return Answer(rows, setup, _text(results))


def _text(results: dict[str, Any]) -> str:
    of, at_half = results["differences"]["chosen"], results["differences"]["0.5"]
    at_test, distance = results["at test"]["chosen"], results["distance"]

    def gain(name: str) -> str:
        return f"{verdict(of[name], 'a gain', 'a loss')} ({words(of[name], points)} points)"

    exact = max(d for of in results["identities"].values() for d in of.values())
    return (
        "DropConnect gives a pre-activation the mean and the variance that dropout gives it, and "
        f"no covariance with others (to {exact:.0e}, over all masks of a small layer). For the "
        f"accuracy it brings {gain('dropconnect minus dropout')} against dropout, and "
        f"{gain('dropconnect minus none')} against no noise. Dropout itself brings "
        f"{gain('dropout minus none')}. At learning rate 0.5, DropConnect minus dropout is "
        f"{words(at_half['dropconnect minus dropout'], points)} points. At test time, the second "
        "hidden layer differs from its mean over the masks by "
        f"{words(distance['rescaling'], _size)} of its size with rescaling and by "
        f"{words(distance['normal'], _size)} with a normal distribution. For the accuracy, "
        f"this brings {verdict(at_test['accuracy'], 'a gain', 'a loss')} "
        f"({words(at_test['accuracy'], points)} points)."
    )


def _size(mean_and_ends: list[float]) -> str:
    return f"{mean_and_ends[0]:.1%}"


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the accuracies at both learning rates, and the distance to the mean over masks."""
    panels = figure.subplots(1, 3)
    titles = [*RATES.values(), "hidden 2, error at test time"]
    groups = [*results["accuracy"].values(), results["distance"]]
    for panel, title, group in zip(panels, titles, groups, strict=True):
        for i, f in enumerate(results["distance"]["normal"]):
            at = np.arange(len(group)) + 0.1 * i
            errorbars(panel, at, [of[f] for of in group.values()], 100, color=f"C{i}", label=f)
        panel.set_xticks(range(len(group)), group)
        panel.set_xlim(-0.5, len(group) - 0.4)
        panel.set(title=title, ylabel="test accuracy (%)")
    panels[2].set(ylabel="distance to the mean over masks (%)", ylim=(0, None))
    panels[0].legend(fontsize="small")
