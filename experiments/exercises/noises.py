"""Exercise 8: other noise in the place of dropout.

Source: Srivastava et al., JMLR 15 (2014), section 10, for Gaussian noise. Achille and Soatto,
"Information Dropout", IEEE PAMI 40 (2018), for lognormal noise. The kinds are explained in
impls/torch/noise.py.
"""

import importlib
import math
from typing import Any

import numpy as np

from experiments.study.paired import contrast, each, points, words
from experiments.study.report import Answer, Row, errorbars, sign_row
from experiments.study.runs import SMALL, Study, compare
from experiments.study.shapes import distances, rate_of, shape_of

QUESTION = "Does it matter that dropout's noise is 0 or 1 / (1 - p), if its variance is the same?"

KINDS = ("masks-2", "masks-4", "masks-16", "gaussian", "uniform", "lognormal")
MASKS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
RATES = (0.2, 0.5)
DRAWN = 200_000

PREDICTION = (  # what theory and the literature say
    "To second order, noise of mean 1 changes the loss through its variance only, so all "
    "kinds should do as well as dropout. Srivastava et al. (2014) find this for Gaussian "
    "noise. One would think that the mean of K masks becomes Gaussian as K grows. It does not "
    "if its variance v stays the same, because the rate of each mask, K v / (1 + K v), goes "
    "to 1. The number of kept masks becomes a Poisson number of mean 1 / v, so the noise is v "
    "times that number, with skewness sqrt(v). We add lognormal noise (Achille and Soatto, "
    "2018): it never drops a unit, never changes its sign, as Gaussian noise does, and its "
    "product over layers is lognormal again."
)


def zeros(framework: str, masks: int, p: float) -> float:
    """Return how many standard deviations the share of zeros drawn is from the exact one."""
    importlib.import_module(f"impls.{framework}.device").use("cpu")
    sample = importlib.import_module(f"impls.{framework}.noise").sample_noise
    if framework == "torch":
        import torch

        source: dict[str, Any] = {"generator": torch.Generator().manual_seed(0)}
    else:
        import jax

        source = {"key": jax.random.key(0)}
    factors = np.asarray(sample((DRAWN,), p, kind="masks", masks=masks, **source))
    exact = rate_of(masks, p / (1 - p)) ** masks
    return float(((factors == 0).mean() - exact) / math.sqrt(exact * (1 - exact) / DRAWN))


def run(study: Study) -> dict[str, Any]:
    """Train with each kind of noise, and compute the exact shape of each."""
    chosen = study.choose_rates({"small": SMALL})["small"]
    kinds = study.of(KINDS, KINDS[1:])
    settings = {
        f"{kind} {lr}": SMALL.but(lr=lr, noise=kind)
        for kind in ("dropout", *kinds)
        for lr in (0.5, chosen)
    }
    runs = study.train(settings)
    return {
        "chosen": chosen,
        "kinds": kinds,
        "differences": {
            str(lr): {
                kind: {
                    f: [
                        compare(runs, f"{kind} {lr}", f"dropout {lr}", c)[f]
                        for c in ("test_accuracy", "test_loss")
                    ]
                    for f in runs
                }
                for kind in kinds
            }
            for lr in (0.5, chosen)
        },
        "shapes": {
            str(p): {kind: shape_of(kind, p / (1 - p)) for kind in ("dropout", *KINDS)}
            for p in RATES
        },
        "distances": {str(p): [distances(k, p / (1 - p)) for k in MASKS] for p in RATES},
        "zeros": {
            f: max(abs(zeros(f, k, p)) for k in (1, 2, 4, 16) for p in RATES)
            for f in study.frameworks
        },
    }


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    rows = [
        sign_row(f"{kind} minus dropout, learning rate {lr}", {f: d[0] for f, d in of.items()}, 0)
        for lr, kinds in results["differences"].items()
        for kind, of in kinds.items()
    ]
    for p, of in results["distances"].items():
        v = float(p) / (1 - float(p))
        gap = [d["skewness"] / math.sqrt(v) - 1 for d in of]
        rows += [
            Row(
                f"variance {v:g}: if K doubles, the distance from v times a Poisson number halves",
                _listed(of, "poisson", "total variation distance"),
                abs(of[-1]["poisson"] / of[-2]["poisson"] - 1 / 2) < 0.05,
            ),
            Row(
                f"variance {v:g}: the skewness goes to {math.sqrt(v):g}, not to 0",
                _listed(of, "skewness", "skewness"),
                abs(gap[-1]) < 0.05 and abs(gap[-1] / gap[-2] - 1 / 2) < 0.05,
            ),
            Row(
                f"variance {v:g}: the distance from a normal distribution does not go to 0",
                _listed(of, "normal", "largest difference of the distribution functions"),
                of[-1]["normal"] > 0.9 * of[-2]["normal"],
            ),
        ]
    fixed = results["distances"]["0.2"]
    rows += [
        Row(
            "masks of rate 0.2: doubling K divides the distance from a normal number by sqrt(2)",
            _listed(fixed, "normal_fixed", "largest difference of the distribution functions"),
            abs(fixed[-1]["normal_fixed"] / fixed[-2]["normal_fixed"] - 1 / math.sqrt(2)) < 0.05,
        ),
        Row(
            "share of zeros among factors drawn: the exact one within 4 standard deviations",
            each(results["zeros"], lambda z: f"at most {z:.1f}"),
            all(z < 4 for z in results["zeros"].values()),
        ),
    ]
    setup = (
        f"{SMALL.images:,} images for {SMALL.epochs} epochs in batches of {SMALL.batch_size}, with "
        f"the variances of rates {SMALL.p1} and {SMALL.p2}. Learning rate {results['chosen']} was "
        "chosen for dropout on the validation split."
    )
    return Answer(rows, setup, _text(results))


def _listed(of: list[dict[str, float]], key: str, name: str) -> str:
    some = (0, MASKS.index(16), len(MASKS) - 1)
    return f"{name} " + ", ".join(f"{of[i][key]:.3g} (K = {MASKS[i]})" for i in some)


def _clear(results: dict[str, Any], lr: str) -> str:
    """Return the kinds of noise whose accuracy differs from dropout's in every framework."""
    kinds = results["differences"][lr]
    return contrast(kinds, [{f: d[0] for f, d in of.items()} for of in kinds.values()])


def _text(results: dict[str, Any]) -> str:
    chosen = str(results["chosen"])
    gaussian = {f: d[0] for f, d in results["differences"][chosen]["gaussian"].items()}
    shapes, limit = results["shapes"]["0.5"], results["distances"]["0.5"][-1]
    return (
        f"The kinds compared with dropout at learning rate {chosen}: {_clear(results, chosen)}. At "
        f"0.5: {_clear(results, '0.5')}. Gaussian noise changes the accuracy by "
        f"{words(gaussian, points)} points at {chosen}. The mean of more and more "
        f"masks (masks-K) does not become Gaussian: at variance 1, that of {MASKS[-1]} masks has "
        f"skewness {limit['skewness']:.2f} and a total variation distance of "
        f"{limit['poisson']:.4f} from a Poisson distribution, and with 16 masks "
        f"{shapes['masks-16']['zero']:.0%} of the units are still 0. There, Gaussian noise turns "
        f"the sign of {shapes['gaussian']['negative']:.0%} of the units, uniform noise of "
        f"{shapes['uniform']['negative']:.0%}, and lognormal noise of none. But lognormal noise "
        f"has the longest tail: its skewness is {shapes['lognormal']['skewness']:g}, that of "
        f"dropout {shapes['dropout']['skewness']:g}."
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the differences at both learning rates, and where the mean of K masks goes."""
    kinds = results["kinds"]
    *panels, shape = figure.subplots(1, 3)
    for panel, (lr, of) in zip(panels, results["differences"].items(), strict=True):
        for i, framework in enumerate(results["zeros"]):
            at, of_kinds = (
                np.arange(len(kinds)) + 0.2 * i,
                [of[kind][framework][0] for kind in kinds],
            )
            errorbars(panel, at, of_kinds, 100, color=f"C{i}", label=framework, sideways=True)
        panel.axvline(0, color="gray", lw=0.8)
        panel.set_yticks(range(len(kinds)), kinds if panel is panels[0] else [""] * len(kinds))
        panel.invert_yaxis()
        panel.set(xlabel="accuracy minus dropout's (points)", title=f"learning rate {lr}")
        panel.legend(fontsize="small")
    of = results["distances"]["0.5"]
    labels = ("Poisson, variance 1", "normal, variance 1", "normal, rate 0.2")
    for key, label in zip(("poisson", "normal", "normal_fixed"), labels, strict=True):
        shape.loglog(MASKS, [d[key] for d in of], "o-", ms=3, label=f"from {label}")
    shape.set(xlabel="K masks", ylabel="distance (see the table)")
    shape.legend(fontsize="small")
