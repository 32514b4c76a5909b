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
    needed,
    paired,
    percent,
    plain,
    points,
    signs,
    verdict,
    words,
)
from experiments.study.passes import auroc, entropy, logits, passes, turned
from experiments.study.report import Answer, Row
from experiments.study.runs import ARTICLE, LRS, Setting, Study, arrays
from shared.data import load

QUESTION = "Does the network know what it does not know, and can it still learn by heart?"

# The sample has the fewest test images, and here they would only cost time.
RANDOM = Setting(data="sample", random_labels=True, images=500, epochs=300, batch_size=50)
PASSES = 50
SCORES = ("entropy of 50 passes", "mutual information", "entropy of one pass")
ONE = SCORES[-1]
SHIRT = 6
REFUSED = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)


def predict() -> str:
    """Return what theory and the literature say."""
    return (
        "If the network refuses to answer where it is least sure, the answers that are left should "
        "be right more often. The entropy of the mean of 50 passes with dropout on, or their "
        "mutual information, should choose better than the entropy of one pass with dropout off, "
        "because it also counts how much the passes disagree. For the same reason it should tell "
        "test images that are turned by 90 degrees better from upright ones. Zhang et al. (2017) "
        "find that networks learn random labels by heart, and that regularisation does not prevent "
        "it. So dropout should slow this down, but not stop it. For a linear model, noise of "
        "variance s^2 on the inputs adds exactly s^2 / 2 times the sum of the squared weights to "
        "the squared loss (Bishop 1995)."
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
    lrs = study.of(LRS, (0.1,))
    chosen = study.choose({"full": ARTICLE}, {"lr": lrs})["full"]["lr"]
    rates = (0.5, chosen)
    true_labels = RANDOM.but(random_labels=False, epochs=60)
    of_labels = study.choose({"": true_labels}, {"lr": study.of((0.1, 0.2), (0.1,))})[""]["lr"]
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
        gain = {f: s["gain"] for f, s in of.items()}
        rows.append(
            Row(f"learning rate {lr}, one pass, 20 % refused minus none: above 0 points",
                each(gain, percent), signs(gain) == {1})
        )  # fmt: skip
        for n in SCORES[:2]:
            for key, what, show in (("better", "accuracy at 20 % refused", percent),
                                    ("auroc_better", "AUROC of turned images", plain)):  # fmt: skip
                values = {f: s[key][n] for f, s in of.items()}
                rows.append(
                    Row(f"learning rate {lr}, {what}, {n} minus {ONE}: above 0",
                        each(values, show), signs(values) == {1})
                )  # fmt: skip
        shirts = {f: s["shirts_turned"] for f, s in of.items()}
        rows.append(
            Row(f"learning rate {lr}, entropy of shirts, turned minus upright: above 0",
                each(shirts, plain), signs(shirts) == {1})
        )  # fmt: skip
    for lr, of in results["random"].items():
        for name in ("without", "with"):
            rows.append(
                Row(f"learning rate {lr}, random labels {name} dropout: learnt, above 95 %",
                    each({f: s[name] for f, s in of.items()}, _share),
                    all(s[name][0] > 0.95 for s in of.values()))
            )  # fmt: skip
    largest = max(results["tikhonov"].values())
    rows.append(
        Row("linear model: mean over all noises = loss + s^2 / 2 times the sum of all w^2",
            f"largest relative difference {largest:.1e}", largest < 1e-10)
    )  # fmt: skip
    return Answer(rows, _text(results, str(results["chosen"])))


def _share(i: Any) -> str:
    return f"{i[0]:.1%} ({i[1]:.1%} to {i[2]:.1%})"


def _text(results: dict[str, Any], chosen: str) -> str:
    of, lr = results["of_rates"][chosen], results["chosen_of_labels"]
    labels = results["random"][str(lr)]
    kept = {f: (s["kept"][ONE][0], s["kept"][ONE][REFUSED.index(0.2)]) for f, s in of.items()}
    parts = [
        f"These networks were trained for {results['epochs']} epochs at the learning rate "
        f"{chosen}, chosen on the validation split. If one refuses the fifth of the test images "
        "for which the entropy of one pass, dropout off, is highest, its accuracy rises from "
        + words(kept, lambda k: f"{k[0]:.1%} to {k[1]:.1%}")
        + "."
    ]
    for n in SCORES[:2]:
        better = {f: s["better"][n] for f, s in of.items()}
        area = {f: s["auroc_better"][n] for f, s in of.items()}
        parts.append(
            f"Choosing by the {n} instead: accuracy {verdict(better, 'higher', 'lower')} "
            f"({words(better, points)} points; {words(better, needed)} seeds are needed to see "
            f"it), and for telling turned images from upright ones "
            f"{verdict(area, 'a higher AUROC', 'a lower AUROC')}."
        )
    shirts = {f: s["shirts_turned"] for f, s in of.items()}
    surprise = "The network is more sure of shirts that it has never seen like this: their entropy"
    parts += [
        f"{surprise if signs(shirts) == {-1} else 'For shirts that are turned, the entropy'} is "
        f"{verdict(shirts, 'higher', 'lower')} than upright ({words(shirts, change)}).",
        f"{RANDOM.images} random labels, in {RANDOM.epochs} epochs at learning rate {lr}: without "
        f"dropout {words({f: s['without'] for f, s in labels.items()}, _mean)} are learnt by "
        f"heart, with dropout {words({f: s['with'] for f, s in labels.items()}, _mean)}.",
    ]
    return " ".join(parts)


def _mean(i: Any) -> str:
    return f"{i[0]:.1%}"


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
        grid = images.reshape(3, 3, side, side).swapaxes(1, 2).reshape(3 * side, 3 * side)
        panel.imshow(grid, cmap="gray")
        panel.set_axis_off()
        panel.set_title(title)
