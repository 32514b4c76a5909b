"""Exercise 6: dropout beside weight decay and max-norm, and what dropout does to the loss.

Sources: Srivastava et al., JMLR 15 (2014), table 9; Wei, Kakade and Ma, "The Implicit and Explicit
Regularization Effects of Dropout", ICML (2020).
"""

from itertools import pairwise
from typing import Any

import numpy as np
from numpy import ndarray

from experiments.study.masks import all_masks, apply_keep, difference
from experiments.study.paired import contrast, interval, points, verdict, words
from experiments.study.report import RATES, Answer, Row, errorbars, exact_row, sign_row
from experiments.study.runs import SMALL, Setting, Study, compare, final, levels

QUESTION = "How does dropout compare with weight decay, and what does it do to the loss?"

FEW = SMALL.but(images=1_000, batch_size=64)  # for several masks per step
OFF = {"p1": 0.0, "p2": 0.0}
DECAYS, NORMS, COPIES = (1e-4, 3e-4, 1e-3, 3e-3), (1.0, 2.0, 4.0), (1, 4, 16)
# In the order of Srivastava's table 9, from the most errors on MNIST to the fewest.
ORDER = ("L2", "max-norm", "dropout and L2", "dropout and max-norm")
P, SMALL_RATES, SCALES = 0.1, (0.1, 0.03, 0.01, 0.003), (1.0, 0.3, 0.1, 0.03, 0.01, 0.003)

PREDICTION = (  # what theory and the literature say
    "On MNIST, Srivastava et al. (2014) find 1.62 % errors with L2, 1.35 % with max-norm, "
    "1.25 % with dropout and L2, and 1.05 % with dropout and max-norm. "
    "For half the squared error behind the last layer, masks add exactly 1/2 p / (1 - p) Σ "
    "h_j² |w_j|² to the mean loss, where w_j are the weights from unit j. For cross-entropy "
    "with probabilities q, the second-order form is 1/2 p / (1 - p) Σ h_j² w_jᵀ (diag q - q "
    "qᵀ) w_j. It becomes exact for small units h, but not for p -> 0: the steps h_j w_j that "
    "a mask takes get rarer, not smaller. K masks per step keep this term and divide the "
    "variance of the masks' noise by K. The term and the noise both regularise (Wei et al., "
    "2020), so 16 masks should do better than no dropout, and worse than 1."
)


def losses(z: ndarray, y: ndarray, kind: str) -> ndarray:
    """Return the loss of each example from the outputs z and a target y of the same width."""
    if kind == "squared":
        return np.asarray(((y - z) ** 2).sum(-1) / 2)
    top = z.max(-1, keepdims=True)
    return np.asarray(np.log(np.exp(z - top).sum(-1)) + top[..., 0] - (y * z).sum(-1))


def form(h: ndarray, w: ndarray, p: float, kind: str) -> float:
    """Return what dropout adds to the mean loss, to second order. w is (outputs, units)."""
    if kind == "squared":
        curvature = np.broadcast_to((w**2).sum(0), h.shape)
    else:
        e = np.exp(h @ w.T - (h @ w.T).max(1, keepdims=True))
        q = e / e.sum(1, keepdims=True)
        curvature = q @ w**2 - (q @ w) ** 2
    return float(p / (1 - p) / 2 * (h**2 * curvature).sum(1).mean())


def added(framework: str, h: ndarray, w: ndarray, y: ndarray, p: float, kind: str) -> float:
    """Return what dropout adds to the mean loss, over all masks."""
    masks, chance = all_masks(h.shape[1], p)
    dropped = apply_keep(framework, h[:, None], masks, p)
    gain = losses(dropped @ w.T, y[:, None], kind) - losses(h @ w.T, y, kind)[:, None]
    return float((gain @ chance).mean())


def identities(framework: str, p: float = 0.3) -> dict[str, Any]:
    """Compare what dropout adds with its form, for a small layer and all masks."""
    rng = np.random.default_rng(0)
    h, w = rng.uniform(0, 1, (5, 10)), rng.normal(size=(3, 10))
    y = np.eye(3)[rng.integers(0, 3, 5)]
    squared = np.array(added(framework, h, w, y, p, "squared"))

    def ratio(scale: float, p: float) -> float:
        found = added(framework, scale * h, w, y, p, "cross-entropy")
        return found / form(scale * h, w, p, "cross-entropy")

    # As p -> 0, at most one unit is dropped: sum what each one alone does.
    alone = np.repeat(h[:, None], 10, 1) * (1 - np.eye(10))
    z = h @ w.T
    gradient = np.exp(z) / np.exp(z).sum(1, keepdims=True) - y
    steps = (
        losses(alone @ w.T, y[:, None], "cross-entropy") - losses(z, y, "cross-entropy")[:, None]
    )
    steps += h * (gradient @ w)  # the others grow by 1 / (1 - p), so that the mean stays
    return {
        "squared": difference(squared, np.array(form(h, w, p, "squared"))),
        "rates": [ratio(1.0, p) for p in SMALL_RATES],
        "scales": [ratio(scale, P) for scale in SCALES],
        "limit": float(steps.sum(1).mean() / form(h, w, 0.5, "cross-entropy")),
    }


def measure(
    setting: Setting, weights: dict[str, ndarray], images: ndarray, labels: ndarray
) -> dict[str, Any]:
    """Return what the masks of the last layer add to the loss of a trained network, by the form."""
    from impls.numpy.dropout import dropout

    h, y, rng = images[:500].astype(float), np.eye(10)[labels[:500]], np.random.default_rng(0)
    for i in (1, 2):
        h = np.maximum(h @ weights[f"linear_{i}.weight"].T + weights[f"linear_{i}.bias"], 0)
    w, b = weights["linear_3.weight"].astype(float), weights["linear_3.bias"]
    logits = h @ w.T + b
    q = np.exp(-losses(logits[:, None], np.eye(10), "cross-entropy"))
    p = setting.p2
    expected = p / (1 - p) / 2 * (h**2 * (q @ w**2 - (q @ w) ** 2)).sum(1).mean()
    drawn = [
        losses(dropout(h, p, training=True, rng=rng) @ w.T + b, y, "cross-entropy").mean()
        for _ in range(100)
    ]
    return {
        "added": float(np.mean(drawn) - losses(logits, y, "cross-entropy").mean()),
        "form": float(expected),
    }


def _choose(study: Study) -> dict[str, dict[str, Setting]]:
    """Choose learning rates, and then strengths at the chosen one and at 0.5."""
    bases = {"none": SMALL.but(**OFF), "dropout": SMALL}
    rates = study.choose_rates(bases)
    found: dict[str, dict[str, Setting]] = {}
    for rate in ("0.5", "chosen"):
        at = {n: s.but(lr=0.5 if rate == "0.5" else rates[n]) for n, s in bases.items()}
        decays, norms = (
            study.choose(at, field, study.of(values, values[-2:-1]))
            for field, values in (("weight_decay", DECAYS), ("max_norm", NORMS))
        )
        found[rate] = at | {
            "L2": at["none"].but(weight_decay=decays["none"]),
            "max-norm": at["none"].but(max_norm=norms["none"]),
            "dropout and L2": at["dropout"].but(weight_decay=decays["dropout"]),
            "dropout and max-norm": at["dropout"].but(max_norm=norms["dropout"]),
        }
    return found


def run(study: Study) -> dict[str, Any]:
    """Train with each method, and with several masks per step."""
    methods = _choose(study)
    few = study.choose_rates({"few": FEW})["few"]
    settings = {
        f"{method} {rate}": setting.but(
            measure="decay" if f"{method} {rate}" == "dropout chosen" else ""
        )
        for rate, of in methods.items()
        for method, setting in of.items()
    }
    for rate, lr in (("0.5", 0.5), ("chosen", few)):
        settings |= {f"{k} masks {rate}": FEW.but(lr=lr, copies=k) for k in COPIES}
        settings[f"0 masks {rate}"] = FEW.but(lr=lr, **OFF)
    runs = study.train(settings)

    exact = {f: identities(f) for f in (*study.frameworks, "numpy")}
    return {
        "methods": {
            rate: {name: [getattr(setting, field) for field in ("lr", "weight_decay", "max_norm")]
                   for name, setting in of.items()}
            for rate, of in methods.items()
        },
        "few": few,
        "identities": exact,
        "accuracy": {
            rate: {
                m: {f: interval(final(of[f"{m} {rate}"])) for f, of in runs.items()}
                for m in methods[rate]
            }
            for rate in methods
        },
        "order": {
            rate: {f"{b} minus {a}": compare(runs, f"{b} {rate}", f"{a} {rate}")
                   for a, b in pairwise(ORDER)}
            for rate in methods
        },
        "against none": {
            rate: {m: compare(runs, f"{m} {rate}", f"none {rate}")
                   for m in methods[rate] if m != "none"}
            for rate in methods
        },
        "copies": {
            rate: {
                "16 masks minus none": compare(runs, f"16 masks {rate}", f"0 masks {rate}"),
                "16 masks minus 1": compare(runs, f"16 masks {rate}", f"1 masks {rate}"),
                "1 mask minus none": compare(runs, f"1 masks {rate}", f"0 masks {rate}"),
            }
            for rate in methods
        },
        "by copies": {
            rate: levels(runs, (f"{k} masks {rate}" for k in (0, *COPIES)))
            for rate in methods
        },
        "trained": {
            f: interval(np.array([r["measured"]["added"] / r["measured"]["form"]
                                  for r in of["dropout chosen"]]))
            for f, of in runs.items()
        },
    }  # fmt: skip


def _order(values: list[float], steps: tuple[float, ...]) -> float:
    """Return the power of the step with which the last values go to 0."""
    return float(np.log(values[-2] / values[-1]) / np.log(steps[-2] / steps[-1]))


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    exact = results["identities"]
    rows = [
        exact_row("half the squared error: the formula", [of["squared"] for of in exact.values()]),
        *_limits(exact),
    ]
    for rate, of in results["order"].items():
        rows += [sign_row(f"accuracy, {name}, {RATES[rate]}", d, 1) for name, d in of.items()]
    for rate, of in results["copies"].items():
        rows += [
            sign_row(f"accuracy, {name}, {RATES[rate]}", of[name], sign)
            for name, sign in (("16 masks minus none", 1), ("16 masks minus 1", -1))
        ]
    return Answer(rows, _setup(results), _text(results))


def _limits(exact: dict[str, Any]) -> list[Row]:
    """Return the rows about the form for cross-entropy."""
    shown = exact["numpy"]
    limit = shown["limit"]
    to_1 = [_order([abs(x - 1) for x in of["scales"]], SCALES) for of in exact.values()]
    to_limit = [_order([abs(x - limit) for x in of["rates"]], SMALL_RATES) for of in exact.values()]
    return [
        Row(
            "cross-entropy: added loss / form goes to 1 in proportion to the size of h",
            f"{shown['scales'][-1]:.4f} for h times {SCALES[-1]:g}, distance to 1 with power "
            f"{to_1[-1]:.2f} of the size",
            max(abs(power - 1) for power in to_1) < 0.1,
        ),
        Row(
            f"cross-entropy: for p -> 0, it does not go to 1 but to {limit:.4f}, in proportion "
            "to p",
            f"{shown['rates'][-1]:.4f} at p = {SMALL_RATES[-1]:g}, distance with power "
            f"{to_limit[-1]:.2f} of p",
            max(abs(power - 1) for power in to_limit) < 0.1 and abs(limit - 1) > 0.001,
        ),
    ]


def _setup(results: dict[str, Any]) -> str:
    strengths = [
        ", ".join(
            f"{name} ({lr:g}"
            + (f", decay {decay:g}" if decay else "")
            + (f", norm {norm:g}" if norm else "")
            + ")"
            for name, (lr, decay, norm) in of.items()
        )
        for of in results["methods"].values()
    ]
    return (
        f"{SMALL.images:,} images for {SMALL.epochs} epochs in batches of {SMALL.batch_size}; the "
        f"comparison of masks per step with {FEW.images:,} images in batches of {FEW.batch_size}, "
        f"learning rate {results['few']:g}, chosen with one mask. Learning rates, weight decays "
        f"and largest norms were chosen on the validation split: {'; '.join(strengths)}."
    )


def _text(results: dict[str, Any]) -> str:
    exact, copies = results["identities"]["numpy"], results["copies"]["chosen"]
    effects = results["against none"]["chosen"]

    def clear(rate: str) -> str:
        of = results["against none"][rate]
        return contrast(of, of.values())

    def gain(name: str) -> str:
        return f"{verdict(copies[name], 'a gain', 'a loss')} ({words(copies[name], points)} points)"

    return (
        f"The methods compared with no regularisation: {clear('chosen')} (at learning rate 0.5, "
        f"{clear('0.5')}). Dropout changes the accuracy by {words(effects['dropout'], points)} "
        f"points, dropout and max-norm by {words(effects['dropout and max-norm'], points)}. What "
        f"the masks add to the cross-entropy is {exact['rates'][-1]:.2f} times the second-order "
        f"form at p = {SMALL_RATES[-1]:g}, but {exact['scales'][-1]:.3f} times with units "
        f"{SCALES[-1]:g} times as large. In the last layer of trained networks it is "
        f"{words(results['trained'], lambda i: f'{i[0]:.2f}')} times at p = {SMALL.p2:g}. 16 masks "
        f"per step, which keep this term, bring {gain('16 masks minus none')} against no dropout, "
        f"and {gain('16 masks minus 1')} against one mask, which has all of the noise."
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the accuracies, the second-order form, and the masks per step."""
    panels = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
    accuracy, exact = results["accuracy"]["chosen"], results["identities"]["numpy"]
    for i, f in enumerate(results["by copies"]["chosen"]):
        for panel, intervals, shift in (
            (panels[0], [of[f] for of in accuracy.values()], 0.15 * i),
            (panels[2], results["by copies"]["chosen"][f], 0.1 * i),
        ):
            at = np.arange(len(intervals)) + shift
            errorbars(panel, at, intervals, 100, color=f"C{i}", label=f)
    names = [name.replace(" and ", "\n+ ") for name in accuracy]
    panels[0].set_xticks(range(len(names)), names, rotation=45)
    panels[0].set(title="chosen learning rates", ylabel="test accuracy (%)")
    panels[1].semilogx(SCALES, exact["scales"], "o-", label=f"p = {P:g}, against the size of h")
    panels[1].semilogx(SMALL_RATES, exact["rates"], "s-", label="size 1, against p")
    panels[1].axhline(1, color="grey", lw=0.8)
    panels[1].axhline(exact["limit"], color="C1", ls=":", label="limit for p -> 0")
    panels[1].set(title="added loss / second-order form", xlabel="size of h, or p")
    panels[2].set_xticks(range(len(COPIES) + 1), ["no\ndropout", *COPIES])
    panels[2].set(
        title=f"{FEW.images:,} images", xlabel="masks per step", ylabel="test accuracy (%)"
    )
    for panel in panels:
        panel.legend(fontsize="x-small")
