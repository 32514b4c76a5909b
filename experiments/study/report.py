"""The page of an exercise: question, prediction, table, figure, answer, versions and command."""

import json
import platform
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

from experiments.exercises import EXERCISES
from experiments.plot import pyplot
from experiments.study.paired import TITLES, each, percent, signs
from experiments.study.runs import FINAL, Study, versions

EXACT = 1e-10  # in float64
# The two learning rates of a comparison.
RATES = {"0.5": "learning rate 0.5", "chosen": "chosen learning rate"}
YES, NO, OPEN, NONE = "yes", "**no**", "open", "–"
SIGNS = {1: "above 0", -1: "below 0", 0: "about 0"}


class Row(NamedTuple):
    """A line of the table: what was predicted, what was measured, and whether they agree.

    `agrees` is YES, NO, OPEN (the seeds or the frameworks do not decide it) or NONE (nothing was
    predicted). True and False stand for YES and NO.
    """

    prediction: str
    measured: str
    agrees: str | bool


class Answer(NamedTuple):
    """The answer of an exercise: a table, how it was measured, and what was found.

    Both texts are made from the same numbers as the table.
    """

    rows: list[Row]
    setup: str
    text: str


def sign_row(
    text: str, values: Mapping[str, Any], sign: int, show: Callable[[Any], str] = percent
) -> Row:
    """Return a row that predicts the sign of a difference: 1, -1, or 0 for no difference.

    It agrees if the intervals of all frameworks lie on that side, and disagrees if all lie on
    another. No number of seeds shows that a difference is 0, so this is open at best.
    """
    found = signs(values)
    agrees = OPEN if len(found) > 1 or 0 in found else YES if found == {sign} else NO
    return Row(f"{text}: {SIGNS[sign]}", each(values, show), agrees)


PAGE = """\
# {title}

{question}

**Prediction.** {prediction}

| prediction | measured | agrees |
|---|---|---|
{table}

![{title}]({name}.svg)

Bars in the figure are 95 % intervals of a mean. Differences in the table are paired, so they are
known better than the bars suggest.

**Answer{pairs}.** {answer}

**Measured with** {setup} Test accuracies and losses are means over the last {final} epochs. All
else is of the final network. Brackets hold 95 % bootstrap intervals over {seeds} paired seeds, and
n is how many seeds would find such a difference with a power of 80 %. *Open*: an interval contains
0, a paired t-test at 5 % finds no difference, or the frameworks differ. Runs whose loss became
infinite are left out of the rows about losses.{half}{quick}

Made with `python -m experiments {name}` ({frameworks}; {versions}). The numbers are in
[{name}.json]({name}.json), the runs in [runs.jsonl](runs.jsonl).
"""
PAIRS = " (of two numbers, the first is from PyTorch and the second from JAX)"
HALF = (
    " At learning rate 0.5, {} of {} networks end at chance (less than 20 % right), which moves "
    "the means there by much."
)
QUICK = " **This was a quick look at tiny networks: it says nothing about the question.**"


def exact_row(text: str, differences: Iterable[float]) -> Row:
    """Return a row about an identity, from the relative difference in each implementation."""
    largest = max(differences)
    return Row(text, f"largest relative difference {largest:.0e}", largest < EXACT)


def errorbars(
    panel: Any, at: Any, intervals: Any, factor: float = 1, fmt: str = "o", **style: Any
) -> None:
    """Draw means and intervals, upwards, or sideways with `sideways=True`."""
    mean, low, high = factor * np.array([of[:3] for of in intervals], float).T
    bars = (mean - low, high - mean)
    x, y, error = (mean, at, "xerr") if style.pop("sideways", False) else (at, mean, "yerr")
    panel.errorbar(x, y, fmt=fmt, markersize=3, capsize=2, **{error: bars}, **style)


def name_of(exercise: ModuleType) -> str:
    """Return the name of an exercise."""
    return exercise.__name__.rpartition(".")[2]


def run(exercise: ModuleType, study: Study) -> dict[str, Any]:
    """Run an exercise and return its numbers, with what is needed to make them again."""
    study.title = name_of(exercise)
    study.half.clear()
    results = exercise.run(study)
    return {
        "frameworks": list(study.frameworks),
        "seeds": study.seeds,
        "quick": study.quick,
        "half": [sum(study.half.values()), len(study.half)],  # at chance, of all
        "versions": {"python": platform.python_version()} | versions(*study.frameworks),
        # As it will be read again: tuples become lists, and keys become text.
        "results": json.loads(json.dumps(results)),
    }


def page(exercise: ModuleType, numbers: dict[str, Any]) -> str:
    """Return the page as Markdown. It depends on the numbers only."""
    answer = exercise.answer(numbers["results"])
    return PAGE.format(
        title=EXERCISES[name_of(exercise)],
        name=name_of(exercise),
        question=exercise.QUESTION,
        prediction=exercise.PREDICTION,
        table="\n".join(
            f"| {row.prediction} | {row.measured} | {_agrees(row)} |" for row in answer.rows
        ),
        pairs=PAIRS if len(numbers["frameworks"]) > 1 else "",
        setup=answer.setup,
        final=FINAL,
        answer=answer.text,
        seeds=numbers["seeds"],
        half=HALF.format(*numbers["half"]) if numbers["half"][0] else "",
        quick=QUICK if numbers["quick"] else "",
        frameworks=" and ".join(TITLES[f] for f in numbers["frameworks"]),
        versions=", ".join(f"{package} {v}" for package, v in numbers["versions"].items()),
    )


def _agrees(row: Row) -> str:
    return row.agrees if isinstance(row.agrees, str) else YES if row.agrees else NO


def write(exercise: ModuleType, numbers: dict[str, Any], folder: Path) -> Path:
    """Write page, figure and numbers of an exercise into a folder. Return the page's path."""
    name = name_of(exercise)
    plt = pyplot(folder / f"{name}.svg")
    (folder / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (folder / f"{name}.md").write_text(page(exercise, numbers))
    # The same numbers give the same bytes.
    with plt.rc_context({
        "svg.hashsalt": name, "svg.fonttype": "none", "font.size": 9,
        "legend.handlelength": 3,  # long enough to show dashes
    }):  # fmt: skip
        figure = plt.figure(figsize=(9, 3.6), layout="constrained")
        exercise.draw(numbers["results"], figure)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        plt.close(figure)
    return folder / f"{name}.md"


INDEX = """\
# The exercises, answered

The article ends with questions. Each page here answers one: what theory predicts, what was
measured in PyTorch and in JAX, and whether they agree. `python -m experiments list` names them,
`python -m experiments NAME` makes a page anew, and `python -m experiments all` makes all of them.
Training runs that [runs.jsonl](runs.jsonl) holds already are not repeated.

A prediction is *true* or *false* if the intervals of both frameworks say so, or of the one that was
used. Else it is *open*. A dash stands where nothing was predicted. With five seeds, bootstrap
intervals are too narrow, so a paired t-test at 5 % has to agree. Even so, a few of the many
predictions are true or false by chance.

| exercise | question | predictions: true | false | open |
|---|---|---|---|---|
{table}
"""


def index(folder: Path, exercises: Mapping[str, ModuleType]) -> str:
    """Return the list of the pages in a folder as Markdown."""
    table = []
    for name, exercise in exercises.items():
        path = folder / f"{name}.json"
        if path.exists():
            rows = exercise.answer(json.loads(path.read_text())["results"]).rows
            agrees = [_agrees(row) for row in rows]
            counts = " | ".join(str(agrees.count(value)) for value in (YES, NO, OPEN))
            table.append(f"| [{EXERCISES[name]}]({name}.md) | {exercise.QUESTION} | {counts} |")
    return INDEX.format(table="\n".join(table))
