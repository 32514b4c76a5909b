"""Exercise 1: which rate in which layer.

Source: Srivastava et al., JMLR 15 (2014), section 7.3 and figure 9: n fixed, n (1 - p) fixed.
"""

from itertools import product
from typing import Any

import numpy as np

from experiments.study.paired import points, verdict, words
from experiments.study.report import Answer, errorbars, sign_row
from experiments.study.runs import ARTICLE, SMALL, Study, compare, levels

QUESTION = "What if the rates of the two layers change, and what if they are swapped?"

ORDERS = {"article": {"p1": 0.2, "p2": 0.5}, "swapped": {"p1": 0.5, "p2": 0.2}}

PREDICTION = (  # what theory and the literature say
    "The noise of a layer has p / (1 - p) times the size of its activations squared, so 0.2 "
    "and 0.5 have the factors 0.25 and 1. The first layer's noise passes through one more "
    "layer, whose sums average much of it out. That is in favour of the higher rate in the "
    "first layer, but by how much is not clear: we predict no difference. A rate of 0.8 in "
    "both layers should cost accuracy. With n units, Srivastava et al. (2014) find that high "
    "rates cost less if n (1 - p) is kept fixed, that is if a layer with a higher rate gets "
    "more units."
)


def _units(p: float) -> int:
    """Return the number of units of which 128 are kept."""
    return round(128 / (1 - p))


def run(study: Study) -> dict[str, Any]:
    """Train a grid of rates, the swapped pair, and layers with n (1 - p) units fixed."""
    rates = study.of((0.0, 0.2, 0.5, 0.8), (0.0, 0.5))
    chosen = study.choose_rates({"full": ARTICLE, "small": SMALL})
    settings = {
        f"{order} {lr}": ARTICLE.but(lr=lr, **ORDERS[order])
        for order in ORDERS
        for lr in (0.5, chosen["full"])
    }
    settings |= {
        f"grid {p1} {p2}": SMALL.but(lr=chosen["small"], p1=p1, p2=p2)
        for p1, p2 in product(rates, rates)
    }
    for p in rates:
        n = _units(p)
        settings[f"fixed {p}"] = SMALL.but(lr=chosen["small"], p1=p, p2=p, hidden_1=n, hidden_2=n)
    runs = study.train(settings)
    return {
        "chosen": chosen,
        "rates": rates,
        "swapped": {
            str(lr): compare(runs, f"swapped {lr}", f"article {lr}") for lr in (0.5, chosen["full"])
        },
        "grid": {
            f: [levels(runs, (f"grid {p1} {p2}" for p2 in rates))[f] for p1 in rates] for f in runs
        },
        # the highest rate in both layers against none in either
        "highest": compare(runs, f"grid {rates[-1]} {rates[-1]}", "grid 0.0 0.0"),
        # the highest rate with n (1 - p) fixed against n fixed
        "more_units": compare(runs, f"fixed {rates[-1]}", f"grid {rates[-1]} {rates[-1]}"),
        "fixed": levels(runs, (f"fixed {p}" for p in rates)),
    }


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    rates, chosen, highest = results["rates"], results["chosen"], results["rates"][-1]
    swapped, more = results["swapped"], results["more_units"]
    rows = [
        sign_row(f"swapped minus not swapped, learning rate {lr}", of, 0)
        for lr, of in swapped.items()
    ]
    rows += [
        sign_row(f"{highest:g} in both layers minus none in either", results["highest"], -1),
        sign_row(f"at {highest:g}, n (1 - p) fixed minus n fixed", more, 1),
    ]
    best = {}
    for framework, grid in results["grid"].items():
        means = np.array(grid)[:, :, 0]
        i, j = np.unravel_index(means.argmax(), means.shape)
        best[framework] = (rates[i], rates[j], float(means[i, j]), float(means[0, 0]))
    at_chosen = swapped[str(chosen["full"])]
    gain = verdict(at_chosen, "a gain", "a loss"), verdict(results["highest"], "a gain", "a loss")
    text = (
        f"Swapping the rates brings {gain[0]} ({words(at_chosen, points)} points of accuracy) at "
        f"learning rate {chosen['full']:g}. At the article's 0.5 it changes the accuracy by "
        f"{words(swapped['0.5'], points)} points. In the grid, which has few images and the "
        "learning rate chosen for dropout, the highest accuracy is that of the rates "
        f"{words(best, lambda b: f'({b[0]:g}, {b[1]:g})')}, "
        f"{words(best, lambda b: f'{b[2]:.1%}')}, not clearly above others. Without dropout it is "
        f"{words(best, lambda b: f'{b[3]:.1%}')}. A rate of {highest:g} in both layers brings "
        f"{gain[1]} ({words(results['highest'], points)} points against no dropout). With "
        f"n (1 - p) fixed, {_units(highest):,} units instead of {SMALL.hidden_1:,}, the accuracy "
        f"changes by {words(more, points)} points."
    )
    setup = (
        f"all images for {ARTICLE.epochs} epochs (swapped rates), and {SMALL.images:,} images for "
        f"{SMALL.epochs} epochs in batches of {SMALL.batch_size} at learning rate "
        f"{chosen['small']:g} (the grid). Learning rates other than 0.5 were chosen on the "
        "validation split."
    )
    return Answer(rows, setup, text)


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the grid of each framework, and accuracy with n and n (1 - p) fixed."""
    rates, every = results["rates"], 100 * np.array(list(results["grid"].values()))[..., 0]
    lowest, highest = every.min(), every.max()
    panels = figure.subplots(1, len(results["grid"]) + 1)
    for panel, (framework, grid) in zip(panels, results["grid"].items(), strict=False):
        means = 100 * np.array(grid)[:, :, 0]
        panel.imshow(means, origin="lower", cmap="Blues", vmin=lowest, vmax=highest)
        for (i, j), mean in np.ndenumerate(means):
            shade = "white" if mean > (lowest + highest) / 2 else "black"
            panel.text(j, i, f"{mean:.1f}", ha="center", va="center", color=shade)
        panel.set(xlabel="p2", ylabel="p1", title=f"{framework}: test accuracy (%)")
        panel.set_xticks(range(len(rates)), rates)
        panel.set_yticks(range(len(rates)), rates)
    for color, framework in enumerate(results["grid"]):
        for style, name, intervals in (
            ("o-", "n = 256", [row[i] for i, row in enumerate(results["grid"][framework])]),
            ("s--", "n = 128 / (1 - p)", results["fixed"][framework]),
        ):
            label = f"{framework}, {name}"
            errorbars(panels[-1], rates, intervals, 100, style, color=f"C{color}", label=label)
    panels[-1].set(xlabel="p in both layers", ylabel="test accuracy (%)")
    panels[-1].legend(fontsize="small")
