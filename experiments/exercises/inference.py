"""Exercise 4: why dropout is off at test time.

Sources: Wang and Manning, "Fast dropout training", ICML (2013), for moment matching. Baldi and
Sadowski, "Understanding dropout", NIPS (2013), for the normalised geometric mean.
"""

from typing import Any

import numpy as np

from experiments.study.masks import geometric_mean, sigmoid_signs
from experiments.study.paired import (
    each,
    errors,
    interval,
    level,
    paired,
    plain,
    verdict,
    words,
)
from experiments.study.passes import logits, moment_matching, passes
from experiments.study.report import NONE, Answer, Row, errorbars, exact_row, sign_row
from experiments.study.runs import ARTICLE, Setting, Study
from impls.numpy.evaluate import count_correct, cross_entropy

QUESTION = "Why is dropout not used at test time, and what happens if it is?"

PASSES = 100
GROUPS = (1, 2, 4, 5, 10, 20, 25, 50, 100)  # K divides 100, so that each pass is used once
DOUBLINGS = ((5, 10), (10, 20), (25, 50), (50, 100))
WAYS = ("not rescaled", "rescaled", "1 pass", "10 passes", "100 passes", "moment matching")
# The first way minus the second, and the sign of it that is predicted. Wang and Manning's table 3
# has 129, 108, 199, 118, 105 and 103 errors for WAYS, on other images.
ORDER = (
    ("not rescaled", "rescaled", 1),
    ("1 pass", "rescaled", 1),
    ("1 pass", "10 passes", 1),
    ("10 passes", "100 passes", 1),
    ("100 passes", "rescaled", -1),
    ("moment matching", "rescaled", -1),
)

PREDICTION = (  # what theory and the literature say
    "One pass with dropout on is a guess of a thinned network, so it should make the most "
    "errors. The mean of the probabilities of K passes gets better with K, and its loss minus "
    "that of infinitely many passes falls like 1/K. The rescaled network replaces the mean "
    "over all masks in one pass: all units are on, and not divided by 1 - p. This is exact "
    "for the normalised geometric mean if there is no hidden layer, and an approximation "
    "here. Wang and Manning (2013) find, on MNIST, from most errors to fewest: 1 pass, no "
    "rescaling, 10 passes, rescaling, 100 passes, moment matching. At a rate of 0.5, a "
    "rescaled sigmoid unit with an output below 1/2 should be smaller than the mean over the "
    "masks (Baldi and Sadowski, 2013), because the sum of the kept inputs is spread "
    "symmetrically around its mean."
)


def measure(
    setting: Setting, weights: dict[str, np.ndarray], images: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """Score each way of using the trained network: share of errors, and mean loss."""
    forgotten = logits(weights, images, 1 / (1 - setting.p1), 1 / (1 - setting.p2))
    scores = {}
    for way, z in (("not rescaled", forgotten), ("rescaled", logits(weights, images))):
        wrong = 1 - int(count_correct(z, labels)) / len(labels)
        scores[way] = (wrong, float(cross_entropy(z, labels)))
    drawn = np.stack(list(passes(setting, weights, images, PASSES)))
    for k in GROUPS:
        means = drawn.reshape(PASSES // k, k, *drawn.shape[1:]).mean(1)
        one = [_score(p, labels) for p in means]
        scores["1 pass" if k == 1 else f"{k} passes"] = tuple(np.mean(one, 0).tolist())
    scores["moment matching"] = _score(moment_matching(setting, weights, images), labels)
    return scores


def _score(p: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    right = np.maximum(p[np.arange(len(labels)), labels], 1e-300)
    return float((p.argmax(1) != labels).mean()), float(-np.log(right).mean())


def run(study: Study) -> dict[str, Any]:
    """Train with dropout, use each network in every way, and enumerate the masks of small ones."""
    chosen = study.choose_rates({"full": ARTICLE})["full"]
    rates = (0.5, chosen)
    runs = study.train({str(lr): ARTICLE.but(lr=lr, measure="inference") for lr in rates})
    scores = {
        f: {lr: {way: np.array([run["measured"][way] for run in of[lr]]).T
                 for way in of[lr][0]["measured"]} for lr in of} for f, of in runs.items()
    }  # fmt: skip
    return {
        "chosen": chosen,
        "epochs": ARTICLE.epochs,
        "errors": _by(scores, lambda s: {way: interval(s[way][0]) for way in WAYS}),
        "pairs": _by(
            scores,
            lambda s: {
                f"{a} minus {b}": [paired(s[a][i], s[b][i]) for i in (0, 1)] for a, b, _ in ORDER
            },
        ),
        "gain": _by(scores, lambda s: [
            [k, interval(s["1 pass" if k == 1 else f"{k} passes"][1] - s[f"{2 * k} passes"][1])]
            for k in GROUPS if 2 * k in GROUPS
        ]),
        "slope": _by(scores, lambda s: interval(_slopes(s))),
        "identity": {f: geometric_mean(f) for f in (*study.frameworks, "numpy")},
        "below": {
            str(p): {f: sigmoid_signs(f, p, study.of(10_000, 500)) for f in study.frameworks}
            for p in (0.5, 0.2, 0.8)
        },
    }  # fmt: skip


def _by(scores: dict[str, Any], function: Any) -> dict[str, Any]:
    """Apply a function to the scores of each learning rate and framework: [rate][framework]."""
    rates = next(iter(scores.values()))
    return {lr: {f: function(of[lr]) for f, of in scores.items()} for lr in rates}


def _slopes(s: dict[str, np.ndarray]) -> np.ndarray:
    """Return the slope of log(loss of K passes - loss of 2K) against log K, for each seed."""
    gains = np.array([s[f"{k} passes"][1] - s[f"{double} passes"][1] for k, double in DOUBLINGS])
    return np.polyfit(np.log([k for k, _ in DOUBLINGS]), np.log(gains), 1)[0]


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    rows = []
    for lr, of in results["pairs"].items():
        for a, b, sign in ORDER:
            row = {f: one[f"{a} minus {b}"][0] for f, one in of.items()}
            rows.append(sign_row(f"errors, learning rate {lr}, {a} minus {b}", row, sign, errors))
        loss = {f: one["not rescaled minus rescaled"][1] for f, one in of.items()}
        rows.append(
            sign_row(f"loss, learning rate {lr}, not rescaled minus rescaled", loss, 1, plain)
        )
    for lr, of in results["slope"].items():
        text = f"learning rate {lr}: loss of K passes minus of 2K goes as K to the power -1 ± 0.1"
        rows.append(Row(text, each(of, level), all(abs(i[0] + 1) < 0.1 for i in of.values())))
    rows.append(
        exact_row(
            "softmax layer: geometric mean over all masks = rescaled", results["identity"].values()
        )
    )
    for p, of in results["below"].items():
        always = all(share == 1 for share in of.values()) if p == "0.5" else NONE
        text = f"sigmoid below 1/2, rate {p}: share of rescaled outputs below the mean over masks"
        rows.append(Row(text, each(of, lambda share: f"{share:.2%}"), always))
    chosen = str(results["chosen"])
    setup = (
        f"all images for {results['epochs']} epochs; errors are per 10,000 test images. Learning "
        f"rate {chosen} was chosen on the validation split."
    )
    return Answer(rows, setup, _text(results, chosen))


def _text(results: dict[str, Any], chosen: str) -> str:
    at_half, pairs = results["errors"]["0.5"], results["pairs"][chosen]

    def compare(name: str) -> str:
        of = {framework: one[f"{name} minus rescaled"][0] for framework, one in pairs.items()}
        count = words(of, lambda d: f"{1e4 * d[0]:+.0f}")
        return f"{verdict(of, 'more errors', 'fewer errors', 'about as many')} ({count})"

    def right(way: str) -> str:
        return words(at_half, lambda of: f"{1 - of[way][0]:.1%}")

    loss = {f: one["not rescaled minus rescaled"][1] for f, one in pairs.items()}
    return (
        f"One pass with dropout on makes {compare('1 pass')} than dropout off, in 10,000 test "
        f"images, at learning rate {chosen}. The mean of 100 passes makes "
        f"{compare('100 passes')}, and moment matching {compare('moment matching')}. Without "
        f"rescaling, the network makes {compare('not rescaled')}, and its loss is "
        f"{verdict(loss, 'higher', 'lower', 'not clearly different')}. The gain in loss from K to "
        f"2K passes goes as K to the power "
        f"{words(results['slope'][chosen], lambda i: f'{i[0]:.2f}')}. At the article's learning "
        f"rate 0.5, {right('1 pass')} of the answers are right with dropout left on, where the "
        f"article prints 85.3%, and {right('rescaled')} with dropout off."
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the errors of each way at both learning rates, and what doubling K wins."""
    rates = list(results["errors"])
    *panels, last = figure.subplots(1, len(rates) + 1)
    for panel, lr in zip(panels, rates, strict=True):
        for i, (framework, of) in enumerate(results["errors"][lr].items()):
            at = np.arange(len(WAYS)) + 0.2 * i
            errorbars(panel, at, [of[way] for way in WAYS], 1e4, color=f"C{i}", label=framework,
                      sideways=True)  # fmt: skip
        panel.set_yticks(range(len(WAYS)), WAYS if panel is panels[0] else [""] * len(WAYS))
        panel.invert_yaxis()
        panel.set(xlabel="errors per 10,000", title=f"learning rate {lr}")
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    for i, (framework, points) in enumerate(results["gain"][str(results["chosen"])].items()):
        k = np.array([k for k, _ in points])
        gain = np.array([g[0] for _, g in points])
        last.loglog(k, gain, f"C{i}o", label=framework)
        last.loglog(k, gain[-1] * k[-1] / k, f"C{i}--", label="1/K")
    last.set(xlabel="K passes", ylabel="loss of K passes - loss of 2K")
    last.legend(fontsize="small")
