"""The page of an exercise: question, prediction, table, figure, answer, versions and command."""

import json
import platform
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from experiments.study.runs import Study


class Row(NamedTuple):
    """A line of the table: what was predicted, what was measured, and whether they agree."""

    prediction: str
    measured: str
    agrees: bool | None  # None where nothing was predicted


class Answer(NamedTuple):
    """The answer of an exercise: a table, and a paragraph made from the same numbers."""

    rows: list[Row]
    text: str


PAGE = """\
# {title}

{question}

**Prediction.** {prediction}

| prediction | measured | agrees |
|---|---|---|
{table}

![{title}]({name}.svg)

**Answer.** {answer}

Intervals are 95 % bootstrap intervals of the mean over {seeds} seeds.{quick}
Made with `python -m experiments {name}` ({frameworks}; {versions}). The numbers are in
[{name}.json]({name}.json), the runs in [runs.jsonl](runs.jsonl).
"""
QUICK = " **This was a quick look at tiny networks: it says nothing about the question.**"
YES_NO = {True: "yes", False: "**no**", None: "–"}


def name_of(exercise: ModuleType) -> str:
    """Return the name of an exercise."""
    return exercise.__name__.rpartition(".")[2]


def title_of(exercise: ModuleType) -> str:
    """Return the title of an exercise: the first line of its docstring."""
    return (exercise.__doc__ or "").splitlines()[0].rstrip(".")


def run(exercise: ModuleType, study: Study) -> dict[str, Any]:
    """Run an exercise and return its numbers, with what is needed to make them again."""
    study.title = name_of(exercise)
    results = exercise.run(study)
    packages = {"torch": ("torch",), "jax": ("jax", "flax", "optax")}
    names = [package for framework in study.frameworks for package in packages[framework]]
    return {
        "frameworks": list(study.frameworks),
        "seeds": study.seeds,
        "quick": study.quick,
        "versions": {"python": platform.python_version()}
        # Without what follows a plus sign, which names a build.
        | {name: version(name).split("+")[0] for name in ("numpy", *names)},
        # As it will be read again: tuples become lists, and keys become text.
        "results": json.loads(json.dumps(results)),
    }


def page(exercise: ModuleType, numbers: dict[str, Any]) -> str:
    """Return the page as Markdown. It depends on the numbers only."""
    answer = exercise.answer(numbers["results"])
    return PAGE.format(
        title=title_of(exercise),
        name=name_of(exercise),
        question=exercise.QUESTION,
        prediction=exercise.predict(),
        table="\n".join(
            f"| {row.prediction} | {row.measured} | {YES_NO[row.agrees]} |" for row in answer.rows
        ),
        answer=answer.text,
        seeds=numbers["seeds"],
        quick=QUICK if numbers["quick"] else "",
        frameworks=" and ".join(
            {"torch": "PyTorch", "jax": "JAX"}[f] for f in numbers["frameworks"]
        ),
        versions=", ".join(f"{package} {v}" for package, v in numbers["versions"].items()),
    )


def write(exercise: ModuleType, numbers: dict[str, Any], folder: Path) -> Path:
    """Write page, figure and numbers of an exercise into a folder. Return the page's path."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    name = name_of(exercise)
    (folder / f"{name}.json").write_text(json.dumps(numbers, indent=1) + "\n")
    (folder / f"{name}.md").write_text(page(exercise, numbers))
    # The same numbers give the same bytes.
    with matplotlib.rc_context({"svg.hashsalt": name, "font.size": 9, "svg.fonttype": "none"}):
        figure = pyplot.figure(figsize=(9, 3.6), layout="constrained")
        exercise.draw(numbers["results"], figure)
        figure.savefig(folder / f"{name}.svg", metadata={"Date": None})
        pyplot.close(figure)
    return folder / f"{name}.md"


INDEX = """\
# The exercises, answered

The article ends with questions. Each page here answers one: what theory predicts, what was
measured in PyTorch and in JAX, and whether they agree. `python -m experiments list` names them,
`python -m experiments NAME` makes a page anew, and `python -m experiments all` makes all of them.
Training runs that [runs.jsonl](runs.jsonl) holds already are not repeated.

| exercise | question | predictions that came true |
|---|---|---|
{table}
"""


def index(folder: Path, exercises: Mapping[str, ModuleType]) -> str:
    """Return the list of the pages in a folder as Markdown."""
    table = []
    for name, exercise in exercises.items():
        path = folder / f"{name}.json"
        if path.exists():
            rows = exercise.answer(json.loads(path.read_text())["results"]).rows
            judged = [row.agrees for row in rows if row.agrees is not None]
            link = f"[{title_of(exercise)}]({name}.md)"
            table.append(f"| {link} | {exercise.QUESTION} | {sum(judged)} of {len(judged)} |")
    return INDEX.format(table="\n".join(table))
