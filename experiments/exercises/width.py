"""Exercise 5: wider and narrower layers.

Source: Srivastava et al., JMLR 15 (2014), section 7.3, for n units of which n (1 - p) are kept.
"""

import dataclasses
from typing import Any

import numpy as np

from experiments.study.paired import (
    change,
    each,
    effect,
    paired,
    percent,
    plain,
    points,
    spread,
    verdict,
    words,
)
from experiments.study.report import NONE, RATES, Answer, Row, errorbars, sign_row
from experiments.study.runs import SMALL, Run, Setting, Study, compare, final, levels

QUESTION = "What if both hidden layers have more or fewer units?"

WIDEST = Setting(images=1_000, epochs=10, batch_size=32, hidden_1=4_096, hidden_2=4_096)
VARIANTS: dict[str, dict[str, float]] = {"without": {"p1": 0.0, "p2": 0.0}, "with": {}}
CURVES = ("test_accuracy", "test_loss", "fit_loss")
SEEDS_OF_WIDEST = 3

PREDICTION = (  # what theory and the literature say
    "A wider network learns the training images better: its training loss is lower. Its test "
    "accuracy should rise, but its test loss should rise, too, because it is too sure of "
    "itself. Dropout should raise the training loss. On average it keeps n (1 - p) of n units, "
    "so it should cost accuracy in narrow layers, and it should pay more the wider the layers "
    "are. It should lower the test loss."
)


def run(study: Study) -> dict[str, Any]:
    """Train networks of each width, with and without dropout."""
    widths = study.of((64, 128, 256, 512, 1_024), (32, 64))  # a quick look makes 64 small, too
    at_half = (widths[0], *study.of((256,), ()), widths[-1])  # learning rate 0.5: not all widths
    base = {
        f"{n} {v}": SMALL.but(hidden_1=n, hidden_2=n, **p)
        for n in widths
        for v, p in VARIANTS.items()
    }
    chosen = study.choose_rates(base)
    settings = {f"{name} chosen": s.but(lr=chosen[name]) for name, s in base.items()}
    settings |= {f"{n} {v} 0.5": base[f"{n} {v}"].but(lr=0.5) for n in at_half for v in VARIANTS}
    runs = study.train(settings)
    # Rates are chosen for the accuracy, but the loss depends on them, too.
    equal = study.validate(
        {name: s.but(lr=chosen[f"{name.split()[0]} with"]) for name, s in base.items()}
    )
    widest = dataclasses.replace(study, seeds=min(study.seeds, SEEDS_OF_WIDEST)).train(
        {v: WIDEST.but(lr=chosen[f"{widths[-1]} {v}"], **p) for v, p in VARIANTS.items()}
    )

    narrow, wide = widths[0], widths[-1]
    return {
        "widths": widths,
        "chosen": chosen,
        "at_half": at_half,
        "seeds_of_widest": min(study.seeds, SEEDS_OF_WIDEST),
        "levels": {
            v: {c: levels(runs, (f"{n} {v} chosen" for n in widths), c) for c in CURVES}
            for v in VARIANTS
        },
        "differences": {
            at: {c: [compare(runs, f"{n} with {at}", f"{n} without {at}", c) for n in of_rate]
                 for c in CURVES}
            for at, of_rate in (("chosen", widths), ("0.5", at_half))
        },
        "equal": [compare(equal, f"{n} with", f"{n} without", "test_loss") for n in widths],
        "wider": {  # the widest of `widths` against the narrowest, without dropout
            at: {c: compare(runs, f"{wide} without {at}", f"{narrow} without {at}", c)
                 for c in CURVES}
            for at in ("chosen", "0.5")
        },
        "grows": {  # what dropout brings in wide layers minus what it brings in narrow ones
            at: {f: paired(_gain(of, wide, at), _gain(of, narrow, at)) for f, of in runs.items()}
            for at in ("chosen", "0.5")
        },
        "widest": {
            c: compare(widest, "with", "without", c) for c in CURVES
        },
    }  # fmt: skip


def _gain(runs: dict[str, list[Run]], width: int, at: str) -> np.ndarray:
    """Return by how much dropout raises the accuracy, for each seed."""
    return final(runs[f"{width} with {at}"]) - final(runs[f"{width} without {at}"])


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    narrow, wide = results["widths"][0], results["widths"][-1]
    rows = []
    for at, name in RATES.items():
        wider, of = results["wider"][at], results["differences"][at]
        sizes = f"{name}, no dropout, {wide:,} minus {narrow:,} units"
        pair = f"{name}, {wide:,} units, with minus without dropout"
        rows += [
            sign_row(f"{sizes}, training loss", wider["fit_loss"], -1, plain),
            sign_row(f"{sizes}, accuracy", wider["test_accuracy"], 1),
            sign_row(f"{sizes}, test loss", wider["test_loss"], 1, plain),
            sign_row(f"{name}, {narrow:,} units, with minus without dropout, accuracy",
                     of["test_accuracy"][0], -1),
            sign_row(f"{name}, gain by dropout at {wide:,} minus at {narrow:,} units",
                     results["grows"][at], 1),
            sign_row(f"{pair}, training loss", of["fit_loss"][-1], 1, plain),
            sign_row(f"{pair}, test loss", of["test_loss"][-1], -1, plain),
        ]  # fmt: skip
    for n, of in zip(results["widths"], results["equal"], strict=True):
        text = f"equal learning rates, {n:,} units, with minus without dropout, validation loss"
        rows.append(sign_row(text, of, -1, plain))
    pair = f"{WIDEST.hidden_1:,} units, with minus without dropout"
    rows += [
        Row(f"{pair}, accuracy", each(results["widest"]["test_accuracy"], percent), NONE),
        sign_row(f"{pair}, test loss", results["widest"]["test_loss"], -1, plain),
    ]
    return Answer(rows, _setup(results), _text(results))


def _setup(results: dict[str, Any]) -> str:
    chosen = results["chosen"]
    rates = ", ".join(
        f"{n:,}: {chosen[f'{n} without']:g} and {chosen[f'{n} with']:g}" for n in results["widths"]
    )
    return (
        f"{SMALL.images:,} images for {SMALL.epochs} epochs in batches of {SMALL.batch_size}. "
        f"Learning rates without and with dropout, chosen on the validation split: {rates}. "
        "Equal rates: that with dropout in both, 3 seeds in one framework. "
        f"{WIDEST.hidden_1:,} units: {WIDEST.images:,} images, {WIDEST.epochs} epochs and "
        f"{results['seeds_of_widest']} seeds only, at the rates of {results['widths'][-1]:,} units."
    )


def _text(results: dict[str, Any]) -> str:
    of, widths, widest = results["differences"]["chosen"], results["widths"], results["widest"]
    wider, at_half = results["wider"]["chosen"], results["differences"]["0.5"]["test_accuracy"]
    accuracy, loss = of["test_accuracy"], of["test_loss"]
    widest_accuracy = verdict(widest["test_accuracy"], "a gain", "a loss")
    return (
        f"Dropout {effect('the accuracy', widths, accuracy, ' units')}. It "
        f"{effect('the test loss', widths, loss, ' units')}. But the loss depends on the learning "
        "rate, too, and the best rate with dropout is another one than without. At equal rates, "
        f"dropout changes the validation loss by {spread(results['equal'], change)}. At learning "
        f"rate 0.5 it {effect('the accuracy', results['at_half'], at_half, ' units')}. Without "
        f"dropout, {widths[-1]:,} units instead of {widths[0]:,} change the accuracy by "
        f"{words(wider['test_accuracy'], points)} points and the test loss by "
        f"{words(wider['test_loss'], change)}. With {WIDEST.hidden_1:,} units, dropout brings "
        f"{widest_accuracy} of accuracy ({words(widest['test_accuracy'], points)} points)."
    )


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw accuracy, test loss and training loss over the width."""
    names = ("test accuracy (%)", "test loss", "training loss, dropout off")
    for panel, curve, name in zip(figure.subplots(1, 3), CURVES, names, strict=True):
        scale = 100 if curve == "test_accuracy" else 1
        for style, (variant, of) in zip(("s--", "o-"), results["levels"].items(), strict=True):
            for color, (framework, intervals) in enumerate(of[curve].items()):
                shift = 1.04 ** (2 * color + (variant == "with") - 1.5)
                errorbars(
                    panel, shift * np.array(results["widths"]), intervals, scale, style,
                    color=f"C{color}", label=f"{framework}, {variant} dropout",
                )  # fmt: skip
        panel.set(xscale="log", xlabel="units in each hidden layer", ylabel=name)
        panel.set_xticks(results["widths"], [str(n) for n in results["widths"]])
        panel.minorticks_off()
    figure.legend(*panel.get_legend_handles_labels(), loc="outside lower center", ncols=4)
