"""The report: the machine, tables in Markdown, and JSON.

python -m benchmarks.report     # put the figures of docs/benchmarks.json into the other pages
"""

import json
import re
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks.programs import Setting
from impls.torch.device import use
from shared.data import load
from shared.records import make_header

# A row of a table. "what" names two programs, and "at" says what they were measured at.
# `benchmarks.timing.compare` gives the rest.
Row = dict[str, Any]
Results = dict[str, list[Row]]  # by section

ROOT = Path(__file__).parents[1]
ARTICLE = "article's settings"
TITLES = {
    "operation": "Our dropout against the framework's own, forward and backward",
    "epoch": "An epoch at the article's settings against floors and other programs",
    "accuracy": "Whole processes, from their start to the article's accuracy, 85.3 %",
    "growth": "An epoch against its floor as the hidden layers or the batch grow",
}


def machine(setting: Setting, rounds: int) -> dict[str, Any]:
    """Describe what the results depend on: the processor, the threads, the versions, the data.

    Raises:
        InputError: there is no such device, or no such data.
    """
    device = str(use(setting.device))
    if setting.device == "cuda":
        device = torch.cuda.get_device_name()
    headers = [make_header(name, setting, load(setting.data), device) for name in ("torch", "jax")]
    versions = headers[0]["versions"] | headers[1]["versions"]
    if find_spec("keras"):
        versions["keras"] = version("keras")
    return {
        "date": time.strftime("%Y-%m-%d"),
        **headers[0]["machine"],
        "versions": ", ".join(f"{name} {number}" for name, number in versions.items()),
        "data": f"{headers[0]['data']}, {headers[0]['images']} images",
        "rounds": rounds,
    }


def heading(about: dict[str, Any]) -> str:
    """Return the title and the description of the machine, in Markdown."""
    lines = [f"- {name}: {text}" for name, text in about.items()]
    explained = (
        "Seconds are those of one timed run: many calls of an operation, or some of the steps of an"
        " epoch. A ratio is the median of the ratios of all rounds, so it is not the ratio of the"
        " two times beside it."
    )
    return "\n".join(["# Benchmarks", "", *lines, "", explained])


def figure(row: Row) -> str:
    """Return the median and the quartiles of a ratio."""
    digits = 2 if row["ratio"]["median"] >= 0.1 else 3
    low, median, high = (f"{row['ratio'][name]:.{digits}f}" for name in ("low", "median", "high"))
    return f"{median} ({low} - {high})"


def table(section: str, rows: list[Row]) -> str:
    """Return the title and the table of a section, in Markdown."""
    lines = [f"## {TITLES[section]}", ""]
    lines += ["| what | at | ratio: median (quartiles) | seconds |", "|---|---|---|---|"]
    for row in rows:
        seconds = f"{row['seconds']:.3f} / {row['other_seconds']:.3f}"
        lines.append(f"| {row['what']} | {row['at']} | {figure(row)} | {seconds} |")
    return "\n".join(lines)


def page(about: dict[str, Any], results: Results) -> str:
    """Return all results as a page in Markdown."""
    return "\n\n".join([heading(about), *(table(*section) for section in results.items())]) + "\n"


def write(folder: Path, about: dict[str, Any], results: Results) -> None:
    """Write all results so far into benchmarks.md and benchmarks.json."""
    (folder / "benchmarks.md").write_text(page(about, results))
    everything = {"machine": about, "results": results}
    (folder / "benchmarks.json").write_text(json.dumps(everything, indent=1) + "\n")


# The figures of other pages, as rows of the tables: "what", and "at" where it is not the article's
# settings. They are in the order in which they stand on the page.
OUTLINE = (
    "torch epoch / torch floor", "jax epoch / jax floor",
    "torch epoch / torch loop, F.dropout", "jax epoch / nnx loop",
    "torch epoch / keras on torch", "jax epoch / keras on jax",
    "torch epoch / article, 0 workers", "jax epoch / article, 0 workers",
    "torch, whole process / article, whole process", "jax, whole process / article, whole process",
)  # fmt: skip
FIGURES = {
    "README.md": OUTLINE,
    "README.zh-CN.md": OUTLINE,
    "docs/speed.md": (
        *OUTLINE,
        "torch epoch / article, 4 workers",
        *(f"{what}, {size} x {size}, {dtype}"
          for what in ("torch dropout / F.dropout", "jax dropout / nnx.Dropout")
          for size in (256, 4096) for dtype in ("float32", "bfloat16")),
        "torch epoch / torch floor, width 4096", "jax epoch / jax floor, width 4096",
        *(f"torch dropout, {other} / torch dropout, {size} x {size}, float32"
          for other in ("threshold_backward", "masked_fill") for size in (256, 4096)),
        "torch epoch, threshold_backward / torch epoch", "torch epoch, masked_fill / torch epoch",
        "torch epoch, threshold_backward / torch loop, F.dropout",
    ),
}  # fmt: skip


def fill(text: str, rows: tuple[str, ...], results: Results) -> str:
    """Return a page with the figures of these rows in place of those that are there.

    Raises:
        ValueError: the page has another number of figures.
        KeyError: a row was not measured.
    """
    measured = {
        f"{row['what']}, {row['at']}".removesuffix(f", {ARTICLE}"): figure(row)
        for section in results.values()
        for row in section
    }
    pattern = re.compile(r"\d+\.\d+ \(\d+\.\d+( - |–)\d+\.\d+\)")
    if len(pattern.findall(text)) != len(rows):
        raise ValueError(f"expected {len(rows)} figures, found {len(pattern.findall(text))}")
    figures = (measured[row] for row in rows)
    return pattern.sub(lambda found: next(figures).replace(" - ", found[1]), text)


if __name__ == "__main__":
    results = json.loads((ROOT / "docs" / "benchmarks.json").read_text())["results"]
    for name, rows in FIGURES.items():
        (ROOT / name).write_text(fill((ROOT / name).read_text(), rows, results))
