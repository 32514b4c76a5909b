"""Exercise 2: more epochs, fewer images, early and late dropout.

Sources: Srivastava et al., JMLR 15 (2014), section 7.4 and figure 10. Liu et al., "Dropout Reduces
Underfitting", ICML (2023), for early and late dropout and for both measures of the gradients.
"""

from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from experiments.study import gradients
from experiments.study.paired import (
    change,
    each,
    effect,
    paired,
    percent,
    plain,
    points,
    signs,
    spread,
    words,
)
from experiments.study.report import (
    NO,
    NONE,
    OPEN,
    RATES,
    YES,
    Answer,
    Row,
    errorbars,
    sign_row,
)
from experiments.study.runs import ARTICLE, FINAL, SMALL, Run, Setting, Study, compare

QUESTION = "What if training takes more epochs, or has fewer images? When does dropout pay?"

LONG = Setting(images=10_000, epochs=60, batch_size=64)
SIZES = {
    n: Setting(images=n, epochs=60, batch_size=32)  # enough steps from few images
    for n in (100, 500, 1_000)
} | {
    5_000: SMALL,
    10_000: LONG,
    60_000: ARTICLE.but(epochs=60),
}
OFF = {"p1": 0.0, "p2": 0.0}
VARIANTS: dict[str, dict[str, float]] = {"without": OFF, "with": {}}
SCHEDULE_EPOCHS = 20
GRADIENTS = Setting(images=10_000, lr=0.1, measure="epochs")
measure = gradients.measure  # of the trained network of such a run

PREDICTION = (  # what theory and the literature say
    "Without dropout, a network learns its training images by heart. Then it is too sure of "
    "itself, and its test loss rises again. Dropout should prevent this. Srivastava et al. "
    "(2014) find no gain with 100 and 500 images of MNIST, the largest gain at a middle number "
    "of images, and a smaller one with more. Liu et al. (2023) say that early dropout lowers "
    "the final training loss of a network that underfits, and that late dropout is better "
    "than dropout all the time for one that overfits. They also say that early in training "
    "dropout makes the gradients of the mini-batches point in more similar directions. But "
    "masks are noise: with the same weights, they should make the directions less similar."
)


def run(study: Study) -> dict[str, Any]:
    """Train with few and many images and with each schedule, and measure gradients."""
    sizes = study.of(tuple(SIZES), (10_000, 60_000))
    base = {f"{n} {v}": SIZES[n].but(**VARIANTS[v]) for n in sizes for v in VARIANTS}
    # To save time, the rates for all images are chosen with the article's 10 epochs.
    trials = {name: ARTICLE.but(p1=s.p1, p2=s.p2) if s.images is None else s
              for name, s in base.items()}  # fmt: skip
    chosen = study.choose_rates(trials)
    settings: dict[str, Setting] = {}
    for at in RATES:
        lr = dict.fromkeys(base, 0.5) if at == "0.5" else chosen
        settings |= {f"{name} {at}": setting.but(lr=lr[name]) for name, setting in base.items()}
        for schedule, partner in (("early", "without"), ("late", "with")):
            settings[f"{schedule} {at}"] = LONG.but(
                lr=lr[f"10000 {partner}"], schedule=schedule, schedule_epochs=SCHEDULE_EPOCHS
            )
    for epochs in (1, 10):
        for variant, p in VARIANTS.items():
            settings[f"gradients {epochs} {variant}"] = GRADIENTS.but(epochs=epochs, **p)
    runs = study.train(settings)
    # Rates are chosen for the accuracy, but the loss depends on them, too.
    equal = study.validate(
        {name: s.but(lr=chosen[f"{name.split()[0]} with"]) for name, s in trials.items()}
    )

    curves = ("test_accuracy", "test_loss", "fit_loss")
    return {
        "sizes": sizes,
        "chosen": chosen,
        "differences": {
            at: {c: [compare(runs, f"{n} with {at}", f"{n} without {at}", c) for n in sizes]
                 for c in curves}
            for at in RATES
        },
        "equal": [compare(equal, f"{n} with", f"{n} without", "test_loss") for n in sizes],
        "schedules": {
            at: {c: {"early": compare(runs, f"early {at}", f"10000 without {at}", c),
                     "late": compare(runs, f"late {at}", f"10000 with {at}", c)} for c in curves}
            for at in RATES
        },
        "rises": {at: {f: _rises(of, at) for f, of in runs.items()} for at in RATES},
        "curves": {
            f: {v: {c: _mean(of[f"10000 {v} chosen"], c) for c in ("train_loss", "test_loss")}
                for v in VARIANTS}
            for f, of in runs.items()
        },
        "gradients": {
            str(epochs): {m: gradients.compare(runs, f"gradients {epochs}", m)
                          for m in ("variance", "error")}
            for epochs in (1, 10)
        },
    }  # fmt: skip


def _mean(runs: list[Run], curve: str) -> list[float]:
    return np.mean([np.array(run[curve], float) for run in runs], 0).tolist()


def _rises(runs: dict[str, list[Run]], at: str) -> dict[str, Any]:
    """Return by how much the test loss ends above its lowest value, and what dropout changes.

    Both are means over FINAL epochs.
    """
    rise = {}
    for variant in VARIANTS:
        curves = np.array([run["test_loss"] for run in runs[f"10000 {variant} {at}"]], float)
        means = sliding_window_view(curves, min(FINAL, curves.shape[1]), axis=1).mean(2)
        rise[variant] = means[:, -1] - means.min(1)
    return {
        "without": paired(rise["without"], np.zeros(len(rise["without"]))),
        "with": paired(rise["with"], np.zeros(len(rise["with"]))),
        "difference": paired(rise["with"], rise["without"]),
    }


def answer(results: dict[str, Any]) -> Answer:
    """Compare predictions and measurements."""
    rows = [row for at in RATES for row in _rows(results, at)]
    for n, of in zip(results["sizes"], results["equal"], strict=True):
        text = f"equal learning rates, {n:,} images, with minus without dropout, validation loss"
        rows.append(sign_row(text, of, -1, plain))
    rows += gradients.rows(results["gradients"])
    return Answer(rows, _setup(results), _text(results))


def _setup(results: dict[str, Any]) -> str:
    chosen = results["chosen"]
    of_sizes = "; ".join(
        f"{n:,} images for {SIZES[n].epochs} epochs in batches of {SIZES[n].batch_size} "
        f"({chosen[f'{n} without']:g}, {chosen[f'{n} with']:g})"
        for n in results["sizes"]
    )
    return (
        f"{of_sizes}. So these cases differ in more than the number of images. In brackets: the "
        "learning rates without and with dropout, chosen on the validation split (those of 60,000 "
        "images with 10 epochs). Equal rates: that with dropout in both, 3 seeds in one "
        f"framework. Early and late dropout change in the first {SCHEDULE_EPOCHS} epochs. "
        "Gradients: their variance is the mean of (1 - cos) / 2 between batches; "
        f"{GRADIENTS.images:,} images, learning rate {GRADIENTS.lr:g}."
    )


def _text(results: dict[str, Any]) -> str:
    sizes, of = results["sizes"], results["differences"]["chosen"]
    accuracy, loss = of["test_accuracy"], of["test_loss"]
    at_half, rises = results["differences"]["0.5"]["test_accuracy"], results["rises"]["chosen"]
    schedules = results["schedules"]["chosen"]["test_accuracy"]
    return (
        f"Dropout {effect('the accuracy', sizes, accuracy, ' images')}. It "
        f"{effect('the test loss', sizes, loss, ' images')}. At equal learning rates it "
        f"changes the validation loss by {spread(results['equal'], change)}. At 0.5 it "
        f"{effect('the accuracy', sizes, at_half, '')}. With 10,000 images the test loss "
        f"ends {words(_part(rises, 'without'), _rise)} above its lowest value without dropout, and "
        f"{words(_part(rises, 'with'), _rise)} with it. Early dropout instead of none changes the "
        f"accuracy by {words(schedules['early'], points)} points, late instead of constant dropout "
        f"by {words(schedules['late'], points)}. {gradients.text(results['gradients'])}"
    )


def _rise(difference: Any) -> str:
    return change(difference).lstrip("+")


def _part(rises: dict[str, Any], name: str) -> dict[str, Any]:
    return {framework: of[name] for framework, of in rises.items()}


def _rows(results: dict[str, Any], at: str) -> list[Row]:
    """Return the rows of the table for a learning rate."""
    sizes, of, schedules = results["sizes"], results["differences"][at], results["schedules"][at]
    rows = []
    for n, accuracy, loss in zip(sizes, of["test_accuracy"], of["test_loss"], strict=True):
        text = f"{RATES[at]}, {n:,} images, with minus without dropout"
        if n <= 500:  # no gain is predicted
            found = signs(accuracy)
            agrees = YES if found == {-1} else NO if found == {1} else OPEN
            rows.append(Row(f"{text}, accuracy: not above 0", each(accuracy, percent), agrees))
        elif n > 10_000:  # nothing is predicted
            rows.append(Row(f"{text}, accuracy", each(accuracy, percent), NONE))
        else:
            rows.append(sign_row(f"{text}, accuracy", accuracy, 1))
        rows.append(sign_row(f"{text}, test loss", loss, -1, plain))
    best = {
        f: sizes[int(np.argmax([d[f][0] for d in of["test_accuracy"]]))]
        for f in of["test_accuracy"][0]
    }
    text, rise = f"{RATES[at]}, 10,000 images", _part(results["rises"][at], "difference")
    return [
        *rows,
        Row(
            f"{RATES[at]}: the number of images with the largest mean gain is a middle one",
            each(best, lambda n: f"{n:,}"),
            OPEN,  # these means have no interval
        ),
        sign_row(f"{text}, final minus lowest test loss, with minus without dropout", rise, -1,
                 plain),
        # Liu et al. predict this for a network that underfits, which this one does not.
        Row(f"{text}, early dropout minus none, training loss",
            each(schedules["fit_loss"]["early"], plain), NONE),
        sign_row(f"{text}, late minus constant dropout, accuracy",
                 schedules["test_accuracy"]["late"], 1),
    ]  # fmt: skip


def draw(results: dict[str, Any], figure: Any) -> None:
    """Draw the curves, the differences over the number of images, and the gradients."""
    figure.set_size_inches(9, 6.5)
    (curves, accuracy), (directions, loss) = figure.subplots(2, 2)
    framework, of_variants = list(results["curves"].items())[-1]
    for color, (variant, of) in enumerate(of_variants.items()):
        for style, (curve, values) in zip(("--", "-"), of.items(), strict=True):
            label = f"{variant} dropout, {curve.replace('_', ' ').replace('train', 'training')}"
            epochs = range(1, len(values) + 1)
            curves.plot(epochs, values, style, color=f"C{color + 2}", label=label)
    curves.set(xlabel="epoch", ylabel="loss", title=f"10,000 images, {framework}")
    curves.legend(fontsize="small")
    for panel, curve, scale in ((accuracy, "test_accuracy", 100), (loss, "test_loss", 1)):
        # At learning rate 0.5 the intervals are so long that they would hide everything else.
        of_sizes = results["differences"]["chosen"][curve]
        for color, framework in enumerate(of_sizes[0]):
            errorbars(
                panel, 1.08**color * np.array(results["sizes"]), [d[framework] for d in of_sizes],
                scale, "o",
                color=f"C{color}", label=framework,
            )  # fmt: skip
        panel.axhline(0, color="gray", linewidth=0.8)
        panel.set(xscale="log", xlabel="training images (chosen learning rates)")
    accuracy.set(ylabel="points", title="test accuracy: with minus without dropout")
    loss.set(ylabel="loss", title="test loss: with minus without dropout")
    accuracy.legend(fontsize="small")
    gradients.draw(results["gradients"], directions)
