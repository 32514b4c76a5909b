"""Exercise 9: what dropout says about uncertainty, random labels and noisy inputs.

Sources: Gal and Ghahramani, "Dropout as a Bayesian Approximation", ICML (2016), for many passes.
Zhang et al., "Understanding deep learning requires rethinking generalization", ICLR (2017), for
random labels. Bishop, "Training with Noise is Equivalent to Tikhonov Regularization", Neural
Computation 7 (1995).
"""

from typing import Any

import numpy as np
from scipy.special import softmax

from experiments.study.masks import all_masks, apply_keep
from experiments.study.paired import (
    change,
    each,
    interval,
    paired,
    plain,
    points,
    share,
    verdict,
    words,
)
from experiments.study.passes import auroc, entropy, logits, passes, turned
from experiments.study.report import NO, OPEN, YES, Answer, Row, exact_row, sign_row
from experiments.study.runs import ARTICLE, Setting, Study, arrays
from shared.data import load

QUESTION = "Does the network know what it does not know, and can it still learn by heart?"

# The sample has the fewest test images, and here they would only cost time.
RANDOM = Setting(data="sample", random_labels=True, images=500, epochs=300, batch_size=50)
PASSES = 50
SCORES = ("entropy of 50 passes", "mutual information", "entropy of one pass")
ONE = SCORES[-1]
SHIRT = 6
REFUSED = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)

PREDICTION = (  # what theory and the literature say
    "If the network refuses to answer where it is least sure, the other answers should be "
    "right more often. The entropy of the mean of 50 passes with dropout on, or their mutual "
    "information, should choose better than the entropy of one pass with dropout off, because "
    "it also counts how much the passes disagree. (The mutual information, the entropy of the "
    "mean less the mean entropy, counts only that.) So it should also tell turned test images "
    "better from upright ones. Zhang et al. (2017) find that networks learn random labels by "
    "heart, and that regularisation does not prevent it. So dropout should slow this down, "
    "but not prevent it. For a linear model, noise of variance s² on the inputs adds exactly "
    "s² / 2 times the sum of the squared weights to half the squared error (Bishop 1995)."
)


def scores_of(
    setting: Setting, weights: dict[str, np.ndarray], images: np.ndarray
) -> dict[str, np.ndarray]:
    """Return each score of uncertainty for each image: high where the network is not sure."""
    mean, own = np.zeros((len(images), 10)), np.zeros(len(images))
    for p in passes(setting, weights, images, PASSES):
        mean += p / PASSES
        own += entropy(p) / PASSES
    one = softmax(logits(weights, images).astype(np.float64), axis=1)
    values = (entropy(mean), entropy(mean) - own, entropy(one))
    return dict(zip(SCORES, values, strict=True))


def measure(
    setting: Setting, weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Refuse to answer, tell turned images from upright ones, and find the least sure images."""
    upright = scores_of(setting, weights, images)
    other = scores_of(setting, weights, turned(images))
    # The answers are always those with dropout off, so only the order of refusing differs.
    right = logits(weights, images).argmax(1) == labels
    accuracy = {}
    for name, score in upright.items():
        in_order = right[np.argsort(score, kind="stable")]  # the surest first
        accuracy[name] = [float(in_order[: round(len(right) * (1 - r))].mean()) for r in REFUSED]
    train, train_labels, *_ = arrays(setting.data, None, False)
    shirts = np.flatnonzero(train_labels == SHIRT)[:100]
    entropies = [
        scores_of(setting, weights, x)[SCORES[0]].mean()
        for x in (train[shirts], turned(train[shirts]))
    ]
    return {
        "accuracy": accuracy,
        "auroc": {name: auroc(upright[name], other[name]) for name in SCORES},
        "least_sure": np.argsort(upright[SCORES[0]], kind="stable")[:-10:-1].tolist(),
        "shirts": shirts[:9].tolist(),
        "shirt_entropies": [float(e) for e in entropies],
    }


def tikhonov(framework: str) -> float:
    """Compare the mean over all noises +-s of each of 10 inputs with the penalty.

    Dropout of a 1 with rate 1/2 is 0 or 2. Less 1, this is such a noise with s = 1.
    """
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(4, 10)), rng.normal(size=(4, 3))
    w, s = rng.normal(size=(3, 10)), 0.3
    keep, probability = all_masks(10, 0.5)
    noise = s * (apply_keep(framework, np.ones(10), keep, 0.5) - 1)
    errors = y - (x + noise[:, None]) @ w.T
    mean = probability @ (0.5 * (errors**2).sum(2))
    exact = 0.5 * ((y - x @ w.T) ** 2).sum(1) + 0.5 * s**2 * (w**2).sum()
    return float(np.abs(mean / exact - 1).max())


def run(study: Study) -> dict[str, Any]:
    """Train with dropout and look at its passes, and train on random labels."""
    chosen = study.choose_rates({"full": ARTICLE})["full"]
    rates = (0.5, chosen)
    true_labels = RANDOM.but(random_labels=False, epochs=60)
    of_labels = study.choose({"": true_labels}, "lr", study.of((0.1, 0.2), (0.1,)))[""]
    settings = {f"passes {lr}": ARTICLE.but(lr=lr, measure="uncertainty") for lr in rates}
    for lr in (0.5, of_labels):
        settings[f"with {lr}"] = RANDOM.but(lr=lr)
        settings[f"without {lr}"] = RANDOM.but(lr=lr, p1=0.0, p2=0.0)
    runs = study.train(settings)
    picture = runs[study.frameworks[0]][f"passes {chosen}"][0]
    return {
        "chosen": chosen,
        "chosen_of_labels": of_labels,
        "epochs": ARTICLE.epochs,
        "data": picture["setting"]["data"],
        "least_sure": picture["measured"]["least_sure"],
        "shirts": picture["measured"]["shirts"],
        "of_rates": {
            str(lr): {f: _summary(of[f"passes {lr}"]) for f, of in runs.items()} for lr in rates
        },
        "random": {
            str(lr): {f: _by_heart(of[f"with {lr}"], of[f"without {lr}"]) for f, of in runs.items()}
            for lr in (0.5, of_labels)
        },
        "tikhonov": {f: tikhonov(f) for f in (*study.frameworks, "numpy")},
    }


def _by_heart(*runs: list[Any]) -> dict[str, Any]:
    """Compare what runs with and without dropout know by heart."""
    fit = [np.array([run["fit_accuracy"] for run in some]) for some in runs]
    return {"with": interval(fit[0]), "without": interval(fit[1]), "difference": paired(*fit)}


def _summary(runs: list[Any]) -> dict[str, Any]:
    """Compare the scores in the runs of one setting."""
    kept = {n: np.array([r["measured"]["accuracy"][n] for r in runs]) for n in SCORES}
    areas = {n: np.array([r["measured"]["auroc"][n] for r in runs]) for n in SCORES}
    at = REFUSED.index(0.2)
    shirts = np.array([r["measured"]["shirt_entropies"] for r in runs])
    return {
        "shirts": shirts.mean(0).tolist(),
        "shirts_turned": paired(shirts[:, 1], shirts[:, 0]),
        "kept": {n: k.mean(0).tolist() for n, k in kept.items()},
        "gain": paired(kept[ONE][:, at], kept[ONE][:, 0]),
        "better": {n: paired(kept[n][:, at], kept[ONE][:, at]) for n in SCORES[:2]},
        "auroc": {n: interval(a) for n, a in areas.items()},
        "auroc_better": {n: paired(areas[n], areas[ONE]) for n in SCORES[:2]},
    }


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    rows = []
    for lr, of in results["of_rates"].items():
        at = f"learning rate {lr}"
        gain = {f: s["gain"] for f, s in of.items()}
        rows.append(sign_row(f"{at}, accuracy, a fifth refused minus none", gain, 1))
        for n in SCORES[:2]:
            of_score = {key: {f: s[key][n] for f, s in of.items()}
                        for key in ("better", "auroc_better")}  # fmt: skip
            rows += [
                sign_row(f"{at}, accuracy, a fifth refused by {n} minus by {ONE}",
                         of_score["better"], 1),
                sign_row(f"{at}, AUROC of turned images, {n} minus {ONE}",
                         of_score["auroc_better"], 1, plain),
            ]  # fmt: skip
        shirts = {f: s["shirts_turned"] for f, s in of.items()}
        rows.append(sign_row(f"{at}, entropy of shirts, turned minus upright", shirts, 1, plain))
    for lr, of in results["random"].items():
        for name in ("without", "with"):
            text = f"learning rate {lr}, random labels learnt {name} dropout: above 95 %"
            learnt = {f: s[name] for f, s in of.items()}
            above, below = ({i[end] > 0.95 for i in learnt.values()} for end in (1, 2))
            agrees = YES if above == {True} else NO if below == {False} else OPEN
            rows.append(Row(text, each(learnt, share), agrees))
        text = f"learning rate {lr}, random labels learnt, with minus without dropout"
        rows.append(sign_row(text, {f: s["difference"] for f, s in of.items()}, -1))
    text = "linear model: mean loss over all noises = loss + s² / 2 times the sum of all w²"
    rows.append(exact_row(text, results["tikhonov"].values()))
    chosen, labels = str(results["chosen"]), str(results["chosen_of_labels"])
    setup = (
        f"all images for {results['epochs']} epochs, and {RANDOM.images} random labels for "
        f"{RANDOM.epochs} epochs. Learning rate {chosen} for images was chosen on the validation "
        f"split, and {labels} for random labels with the true labels of the same images."
    )
    return Answer(rows, setup, _text(results["of_rates"][chosen], results["random"][labels]))


def _text(of: dict[str, Any], labels: dict[str, Any]) -> str:
    fifth = REFUSED.index(0.2)
    kept = {f: s["kept"][ONE] for f, s in of.items()}
    shirts = {f: s["shirts_turned"] for f, s in of.items()}
    parts = [
        f"Without refusals, {words(kept, lambda k: f'{k[0]:.1%}')} of the answers are right. If "
        f"the network refuses the fifth where the {ONE}, dropout off, is highest, it is "
        f"{words(kept, lambda k: f'{k[fifth]:.1%}')}."
    ]
    for n in SCORES[:2]:
        better = {f: s["better"][n] for f, s in of.items()}
        area = {f: s["auroc_better"][n] for f, s in of.items()}
        parts.append(
            f"Refusing by the {n} instead brings {verdict(better, 'a gain', 'a loss')} "
            f"({words(better, points)} points), and for finding turned images "
            f"{verdict(area, 'a gain', 'a loss')} ({words(area, change)} AUROC)."
        )
    areas = {f: s["auroc"][ONE] for f, s in of.items()}
    parts.append(f"With one pass, that AUROC is {words(areas, lambda i: f'{i[0]:.2f}')}.")
    parts.append(
        "For training shirts that are turned, the entropy of 50 passes changes by "
        f"{words(shirts, change)}, so the network is "
        f"{verdict(shirts, 'less sure of them', 'more sure of them', 'not clearly less sure')}. Of "
        "random labels it learns "
        f"{words({f: s['without'] for f, s in labels.items()}, _mean)} by heart without dropout, "
        f"and {words({f: s['with'] for f, s in labels.items()}, _mean)} with it."
    )
    return " ".join(parts)


def _mean(mean_and_ends: Any) -> str:
    return f"{mean_and_ends[0]:.1%}"


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw accuracy against refusals, the least sure images, and shirts that were turned."""
    left, *pictures = figure.subplots(1, 3, width_ratios=(1.4, 1, 1))
    for i, (framework, s) in enumerate(results["of_rates"][str(results["chosen"])].items()):
        for style, n in zip(("-", ":", "--"), SCORES, strict=True):
            left.plot(REFUSED, s["kept"][n], f"C{i}{style}", label=f"{framework}, {n}")
    left.set(xlabel="share of images refused", ylabel="accuracy of the others")
    left.legend(fontsize="x-small")
    if not results["least_sure"]:
        return
    data = load(results["data"])
    shirts = data.train_images[results["shirts"]]
    for panel, images, title in (
        (pictures[0], data.test_images[results["least_sure"]], "least sure test images"),
        (pictures[1], np.rot90(shirts, axes=(1, 2)), "shirts, turned"),
    ):
        side = images.shape[1]
        tiles = np.pad(images, ((0, 0), (1, 1), (1, 1)), constant_values=128)
        grid = tiles.reshape(3, 3, side + 2, side + 2).swapaxes(1, 2).reshape(3 * (side + 2), -1)
        panel.imshow(grid, cmap="gray")
        panel.set_axis_off()
        panel.set_title(title)
