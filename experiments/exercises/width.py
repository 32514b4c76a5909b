"""Exercise 5: wider and narrower layers.

Source: Srivastava et al., JMLR 15 (2014), section 7.3, for n units of which n (1 - p) are kept.
"""

import dataclasses
from typing import Any

import numpy as np

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
from experiments.study.report import Answer, Row
from experiments.study.runs import LRS, SMALL, Run, Setting, Study, last

QUESTION = "What if both hidden layers have more or fewer units?"

WIDEST = Setting(images=1_000, epochs=10, batch_size=32, hidden_1=4_096, hidden_2=4_096)
VARIANTS: dict[str, dict[str, float]] = {"without": {"p1": 0.0, "p2": 0.0}, "with": {}}
CURVES = ("test_accuracy", "test_loss", "fit_loss")
SEEDS_OF_WIDEST = 3


def predict() -> str:
    """Return what theory and the literature say."""
    return (
        "A wider network learns the training images better: its training loss is lower. Its test "
        "accuracy should not suffer from it, but its test loss should, because it is too sure of "
        "itself. Dropout should raise the training loss at every width. It keeps n (1 - p) of n "
        "units in a pass, so it should cost accuracy in narrow layers, and it should pay more "
        "the wider the layers are. In wide layers it should lower the test loss."
    )


def run(study: Study) -> dict[str, Any]:
    """Train networks of each width, with and without dropout."""
    widths = study.of((64, 128, 256, 512, 1_024), (32, 64))  # a quick look makes 64 small, too
    at_half = (widths[0], *study.of((256,), ()), widths[-1])  # learning rate 0.5: not all widths
    lrs = study.of(LRS, (0.1,))
    base = {
        f"{n} {v}": SMALL.but(hidden_1=n, hidden_2=n, **p)
        for n in widths
        for v, p in VARIANTS.items()
    }
    chosen = {name: c["lr"] for name, c in study.choose(base, {"lr": lrs}).items()}
    settings = {f"{name} chosen": s.but(lr=chosen[name]) for name, s in base.items()}
    settings |= {
        f"{n} {v} article": base[f"{n} {v}"].but(lr=0.5) for n in at_half for v in VARIANTS
    }
    runs = study.train(settings)
    widest = dataclasses.replace(study, seeds=min(study.seeds, SEEDS_OF_WIDEST)).train(
        {v: WIDEST.but(lr=chosen[f"{widths[-1]} {v}"], **p) for v, p in VARIANTS.items()}
    )

    def compare(a: str, b: str, curve: str) -> dict[str, Any]:
        return {f: paired(_end(of[a], curve), _end(of[b], curve)) for f, of in runs.items()}

    narrow, wide = widths[0], widths[-1]
    return {
        "widths": widths,
        "chosen": chosen,
        "at_half": at_half,
        "seeds_of_widest": min(study.seeds, SEEDS_OF_WIDEST),
        "levels": {
            v: {c: {f: [interval(_end(of[f"{n} {v} chosen"], c)) for n in widths]
                    for f, of in runs.items()} for c in CURVES}
            for v in VARIANTS
        },
        "differences": {
            at: {c: [compare(f"{n} with {at}", f"{n} without {at}", c) for n in of_rate]
                 for c in CURVES}
            for at, of_rate in (("chosen", widths), ("article", at_half))
        },
        "wider": {  # the widest of `widths` against the narrowest, without dropout
            at: {c: compare(f"{wide} without {at}", f"{narrow} without {at}", c) for c in CURVES}
            for at in ("chosen", "article")
        },
        "grows": {  # what dropout brings in wide layers minus what it brings in narrow ones
            at: {f: paired(_gain(of, wide, at), _gain(of, narrow, at)) for f, of in runs.items()}
            for at in ("chosen", "article")
        },
        "widest": {
            c: {f: paired(_end(of["with"], c), _end(of["without"], c))
                for f, of in widest.items()}
            for c in CURVES
        },
    }  # fmt: skip


def _end(runs: list[Run], curve: str) -> np.ndarray:
    """Return the last value of a curve, or `fit_loss`, for each run."""
    if curve == "fit_loss":
        return np.array([run[curve] for run in runs], float)  # None becomes NaN
    return last(runs, curve)


def _gain(runs: dict[str, list[Run]], width: int, at: str) -> np.ndarray:
    """Return by how much dropout raises the accuracy, for each seed."""
    return last(runs[f"{width} with {at}"]) - last(runs[f"{width} without {at}"])


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    widths, chosen = results["widths"], results["chosen"]
    narrow, wide = widths[0], widths[-1]
    rows = []
    for at, name in (("chosen", "chosen learning rates"), ("article", "learning rate 0.5")):
        wider, of = results["wider"][at], results["differences"][at]
        sizes = f"{name}, no dropout, {wide:,} minus {narrow:,} units"
        pair = "with minus without dropout"
        rows += [
            _row(f"{sizes}, training loss: below 0", wider["fit_loss"], plain, {-1}),
            _row(
                f"{sizes}, accuracy (points): not below 0",
                wider["test_accuracy"], percent, {0, 1},
            ),
            _row(f"{sizes}, test loss: above 0", wider["test_loss"], plain, {1}),
            _row(
                f"{name}, {narrow:,} units, {pair}, accuracy (points): below 0",
                of["test_accuracy"][0], percent, {-1},
            ),
            _row(
                f"{name}, what dropout brings at {wide:,} minus {narrow:,} units (points): above 0",
                results["grows"][at], percent, {1},
            ),
            _row(
                f"{name}, {wide:,} units, {pair}, test loss: below 0",
                of["test_loss"][-1], plain, {-1},
            ),
            Row(
                f"{name}, {pair}, training loss: above 0 at every width",
                f"above 0 at {_list(_where(of['fit_loss'], _widths(results, at), 1))}",
                all(signs(of_width) == {1} for of_width in of["fit_loss"]),
            ),
        ]  # fmt: skip
    rates = "; ".join(
        f"{n:,} units {chosen[f'{n} without']:g} and {chosen[f'{n} with']:g}" for n in widths
    )
    grows = results["grows"]["chosen"]
    text = (
        f"All networks saw {SMALL.images:,} images for {SMALL.epochs} epochs in batches of "
        f"{SMALL.batch_size}. The learning rates chosen on the validation split, without and with "
        f"dropout, are: {rates}. With them, {_pays(results, 'chosen')} With learning rate 0.5, "
        f"{_pays(results, 'article')} At the chosen rates, going from {narrow:,} to {wide:,} units "
        "changes what dropout brings to the accuracy by "
        f"{words(grows, points)} points: "
        + verdict(grows, "it brings more in wide layers", "it brings less in wide layers")
        + ". Seeds that such a change would need: "
        + words(grows, needed)
        + f". Without dropout, {wide:,} units instead of {narrow:,} change the accuracy by "
        f"{words(results['wider']['chosen']['test_accuracy'], points)} points. "
        f"{WIDEST.hidden_1:,} units had {WIDEST.images:,} images, {WIDEST.epochs} epochs and "
        f"{results['seeds_of_widest']} seeds only, with the learning rates of {wide:,} units. "
        "There dropout changes the accuracy by "
        f"{words(results['widest']['test_accuracy'], points)} points, the test loss by "
        f"{words(results['widest']['test_loss'], change)} and the training loss by "
        f"{words(results['widest']['fit_loss'], change)}."
    )
    return Answer(rows, text)


def _row(text: str, values: dict[str, Any], show: Any, wanted: set[int]) -> Row:
    """Return a row that predicts the sign, or two signs that would both do."""
    return Row(text, each(values, show), signs(values) <= wanted)


def _widths(results: dict[str, Any], at: str) -> list[int]:
    return results["widths" if at == "chosen" else "at_half"]


def _where(of: list[dict[str, Any]], widths: list[int], sign: int) -> list[int]:
    """Return the widths where every framework found this sign."""
    return [n for n, of_width in zip(widths, of, strict=True) if signs(of_width) == {sign}]


def _list(widths: list[int]) -> str:
    return ", ".join(f"{n:,}" for n in widths) + " units" if widths else "no width"


def _pays(results: dict[str, Any], at: str) -> str:
    """Return at which widths dropout pays and costs."""
    of, widths = results["differences"][at], _widths(results, at)
    return (
        "dropout clearly raises the accuracy at "
        f"{_list(_where(of['test_accuracy'], widths, 1))} and lowers it at "
        f"{_list(_where(of['test_accuracy'], widths, -1))}. It clearly lowers the test loss at "
        f"{_list(_where(of['test_loss'], widths, -1))} and raises it at "
        f"{_list(_where(of['test_loss'], widths, 1))}."
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw accuracy, test loss and training loss over the width."""
    names = ("test accuracy (%)", "test loss", "training loss, dropout off")
    for panel, curve, name in zip(figure.subplots(1, 3), CURVES, names, strict=True):
        scale = 100 if curve == "test_accuracy" else 1
        for style, (variant, of) in zip(("s--", "o-"), results["levels"].items(), strict=True):
            for color, (framework, intervals) in enumerate(of[curve].items()):
                mean, low, high = scale * np.array(intervals).T
                panel.errorbar(
                    results["widths"], mean, (mean - low, high - mean), fmt=style,
                    color=f"C{color}", markersize=3, capsize=2,
                    label=f"{framework}, {variant} dropout",
                )  # fmt: skip
        panel.set(xscale="log", xlabel="units in each hidden layer", ylabel=name)
        panel.set_xticks(results["widths"], [str(n) for n in results["widths"]])
        panel.minorticks_off()
    panel.legend(fontsize="small")
