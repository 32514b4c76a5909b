"""The report: a description of the machine, tables in Markdown, JSON, and a plot."""

import json
import os
import platform
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import torch

from benchmarks.programs import Setting
from benchmarks.timing import Spread
from shared.data import load
from shared.records import processor

matplotlib.use("Agg")  # draw into files, without a screen

# A comparison of two programs, a row of a table. "what" names the programs, and "at" says what they
# were measured at. "ratio", "seconds" and "other_seconds" come from `benchmarks.timing.compare`.
# Rows that are plotted also have "framework", "peak_mib" (the memory of the first program), "kind"
# (the quantity on the horizontal axis) and "value".
Row = dict[str, Any]

HEADINGS = {
    "operation": "Our dropout against the framework's own, forward and backward",
    "epoch": "An epoch at the article's settings against floors and other programs",
    "accuracy": "Whole processes, from start to the goal: imports, data and compilation included",
    "growth": "An epoch against its floor as the hidden layers or the batch grow, with peak memory",
    "seeds": "Several seeds trained at once under vmap against the same seeds one after another",
}


def machine(setting: Setting) -> dict[str, str]:
    """Describe what the results depend on: the processor, the threads, the versions, the data."""
    versions = [f"Python {platform.python_version()}"]
    for package in ("torch", "jax", "flax", "optax", "keras", "numpy"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name() if setting.device == "cuda" else processor(),
        "threads": f"{torch.get_num_threads()} (PyTorch), {os.cpu_count()} (machine)",
        "versions": ", ".join(versions),
        "data": load(setting.data).summary,
        "precision": setting.precision,
    }


def title(about: dict[str, str]) -> str:
    """Return the title and the description of the machine, in Markdown."""
    explained = (
        "Seconds are those of one timed run: many calls of an operation, or some of the steps of an"
        " epoch. A ratio is the median of the ratios of all rounds, so it is not the ratio of the"
        " two times beside it."
    )
    lines = [f"- {name}: {text}" for name, text in about.items()]
    return "\n".join(["# Benchmarks", "", *lines, "", explained])


def section(name: str, rows: list[Row]) -> str:
    """Return the heading and the table of a section, in Markdown."""
    has_memory = any("peak_mib" in row for row in rows)
    lines = [
        f"## {HEADINGS[name]}",
        "",
        "| what | at | ratio: median (quartiles) | seconds |" + " peak MiB |" * has_memory,
        "|---|---|---|---|" + "---|" * has_memory,
    ]
    for row in rows:
        seconds = f"{row['seconds']['median']:.3f} / {row['other_seconds']:.3f}"
        line = f"| {row['what']} | {row['at']} | {Spread(**row['ratio'])} | {seconds} |"
        lines.append(line + (f" {row['peak_mib']:.0f} |" if has_memory else ""))
    return "\n".join(lines)


def write(folder: Path, about: dict[str, str], results: dict[str, list[Row]]) -> list[str]:
    """Write all results so far, and return the names of the files.

    Args:
        folder: where to write.
        about: the description of the machine.
        results: the rows of each section.
    """
    text = [title(about), *(section(name, rows) for name, rows in results.items())]
    (folder / "benchmarks.md").write_text("\n\n".join(text) + "\n")
    everything = {"machine": about, "results": results}
    (folder / "benchmarks.json").write_text(json.dumps(everything, indent=1) + "\n")
    files = ["benchmarks.md", "benchmarks.json"]
    plotted = [row for rows in results.values() for row in rows if "kind" in row]
    if plotted:
        plot(plotted, folder / "benchmarks.png")
        files.append("benchmarks.png")
    return files


def plot(rows: list[Row], path: Path) -> None:
    """Plot the ratios over the width, the batch size and the number of seeds, in a panel each."""
    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    figure, panels = plt.subplots(1, len(kinds), figsize=(4 * len(kinds), 3.2), squeeze=False)
    for panel, kind in zip(panels[0], kinds, strict=True):
        for framework in ("torch", "jax"):
            points = [r for r in rows if r["kind"] == kind and r["framework"] == framework]
            x = [row["value"] for row in points]
            median, low, high = (
                [row["ratio"][name] for row in points] for name in ("median", "low", "high")
            )
            panel.plot(x, median, "o-", label=framework)
            panel.fill_between(x, low, high, alpha=0.2)
        panel.set(xscale="log", xlabel=kind, ylim=(0, None))
        panel.set_ylabel("at once / in turn" if kind == "seeds" else "epoch / floor")
        panel.set_xticks(x, [str(value) for value in x])
        panel.minorticks_off()
        panel.axhline(1, color="grey", linewidth=0.8)
        panel.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)
