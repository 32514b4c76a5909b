"""Measure everything, print the tables, and write them as Markdown and JSON, with plots.

python -m benchmarks --help
"""

import dataclasses
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import matplotlib

from benchmarks.timing import Spread, Worker, in_turn, ratios, spread
from shared.config import InputError, one_line_errors, parse
from shared.data import load

matplotlib.use("Agg")

Section = Literal["operation", "epoch", "accuracy", "growth", "seeds"]
SECTIONS: tuple[Section, ...] = ("operation", "epoch", "accuracy", "growth", "seeds")
SIZES = (256, 512, 1024, 2048, 4096)
# Steps that take about half a second at each width, and all of an epoch at most.
WIDTHS = {256: 60, 512: 40, 1024: 20, 2048: 8, 4096: 4}
BATCHES = (64, 256, 1024, 4096)
SEEDS = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """Measure ours beside the peers and the floors, in turn, and report medians and quartiles."""

    only: tuple[Section, ...] = SECTIONS
    """Which parts to run."""
    rounds: int = 7
    """Counted rounds of each comparison."""
    races: int = 9
    """Seeds with which each program runs to the goal."""
    goal: float = 0.853
    """Test accuracy to be reached, dropout off."""
    data: str = "auto"
    """full, sample, auto, or a folder of four IDX files."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where the programs that can choose run."""
    precision: Literal["highest", "high", "medium"] = "highest"
    """Of matrix products, ours and the floors'."""
    quick: bool = False
    """One size of each kind, one round, one race: to see that it runs."""
    out: Path = Path("runs/benchmarks")
    """Folder for benchmarks.md, benchmarks.json and benchmarks.png."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.races < 1:
            raise InputError("rounds and races must be at least 1")


Row = dict[str, Any]


def operation(config: BenchConfig) -> list[Row]:
    """Ours against the framework's own dropout, forward and backward."""
    rows = []
    for ours, theirs in (("torch dropout", "F.dropout"), ("jax dropout", "nnx.Dropout")):
        for dtype in ("float32", "bfloat16"):
            for size in SIZES[:1] if config.quick else SIZES:
                settings = {"size": size, "dtype": dtype, "device": config.device}
                taken = in_turn({p: Worker(p, **settings) for p in (ours, theirs)}, config.rounds)
                rows.append(
                    {"what": f"{ours} / {theirs}", "at": f"{size} x {size}, {dtype}"}
                    | compared(taken[ours], taken[theirs])
                )
    return rows


def epoch(config: BenchConfig) -> list[Row]:
    """An epoch at the article's settings: ours against floors and peers, all in one run."""
    ours = {"data": config.data, "device": config.device, "precision": config.precision}
    peers = {"data": config.data, "device": config.device}
    settings: dict[str, dict[str, Any]] = {
        "torch epoch": ours, "torch floor": ours, "torch loop, F.dropout": peers,
        "article, 0 workers": {"data": config.data}, "article, 4 workers": {"data": config.data},
        "jax epoch": ours, "jax floor": ours, "nnx loop": peers,
    }  # fmt: skip
    if config.device == "cuda":
        settings["torch epoch, graph"] = ours
    if find_spec("keras"):  # of the optional extra `peers`
        settings |= {f"keras on {name}": peers for name in ("torch", "jax")}
    taken = in_turn({p: Worker(p, **words) for p, words in settings.items()}, config.rounds)
    rows = []
    for name, against in (
        ("torch epoch", ("torch floor", "jax floor", "torch loop, F.dropout", "article, 0 workers",
                         "article, 4 workers", "keras on torch", "torch epoch, graph")),
        ("jax epoch", ("jax floor", "nnx loop", "keras on jax", "article, 0 workers")),
    ):  # fmt: skip
        for other in against:
            if other in taken:
                rows.append(
                    {"what": f"{name} / {other}", "at": "article's settings"}
                    | compared(taken[name], taken[other])
                )
    return rows


def accuracy(config: BenchConfig) -> list[Row]:
    """Whole processes, from start to the goal: imports, data and compilation included."""
    names = ("torch", "jax", "article")
    taken: dict[str, list[float]] = {name: [] for name in names}
    epochs: dict[str, list[int]] = {name: [] for name in names}
    for seed in range(config.races):
        for name in names:
            words = (
                name,
                str(seed),
                str(config.goal),
                config.data,
                config.device,
                config.precision,
            )
            command = [sys.executable, "-m", "benchmarks.until", *words]
            started = time.perf_counter()
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            taken[name].append(time.perf_counter() - started)
            if result.returncode:
                raise SystemExit(f"benchmarks.until {' '.join(words)} failed")
            epochs[name].append(json.loads(result.stdout)["epoch"])
    return [
        {"what": f"{name} / article, whole process",
         "at": f"to {config.goal}; epochs {epochs[name]} / {epochs['article']}"}
        | compared(taken[name], taken["article"])
        for name in ("torch", "jax")
    ]  # fmt: skip


def growth(config: BenchConfig) -> list[Row]:
    """Epoch over floor as the hidden layers or the batch grow, and peak memory beside it."""
    widths = {256: 3} if config.quick else WIDTHS
    batches = (256,) if config.quick else BATCHES
    cases = [("width", w, {"width": w, "steps": n}) for w, n in widths.items()]
    cases += [("batch", b, {"batch": b, "steps": max(4, 15_360 // b)}) for b in batches]
    return [
        _grown(config, framework, ("epoch", "floor"), f"{kind} {value}", kind, value, sizes)
        for framework in ("torch", "jax")
        for kind, value, sizes in cases
    ]


def seeds(config: BenchConfig) -> list[Row]:
    """Several seeds under vmap against the same seeds one after another."""
    parts = ("seeds at once", "seeds in turn")
    return [
        _grown(
            config, framework, parts, f"{value} seeds", "seeds", value,
            {"seeds": value, "steps": 30},
        )
        for framework in ("torch", "jax")
        for value in (SEEDS[:2] if config.quick else SEEDS)
    ]  # fmt: skip


def _grown(
    config: BenchConfig, framework: str, parts: tuple[str, str], at: str, kind: str, value: int,
    sizes: dict[str, int],
) -> Row:  # fmt: skip
    """Compare two programs of a framework at one size; `kind` and `value` are for the plot."""
    common = {"data": config.data, "device": config.device, "precision": config.precision}
    workers = {part: Worker(f"{framework} {part}", **common, **sizes) for part in parts}
    taken = in_turn(workers, config.rounds)
    ours, other = parts
    return {
        "what": f"{framework} {ours} / {other.removeprefix('seeds ')}", "at": at,
        "framework": framework, "kind": kind, "value": value,
        "peak_mib": workers[ours].peak_mib,
    } | compared(taken[ours], taken[other])  # fmt: skip


def compared(ours: list[float], theirs: list[float]) -> Row:
    """Return the ratio of each round as a spread, with the median seconds of both."""
    return {
        "ratio": ratios(ours, theirs)._asdict(),
        "seconds": spread(ours)._asdict(),
        "other_seconds": statistics.median(theirs),
    }


def machine(config: BenchConfig) -> dict[str, str]:
    """Return what a figure depends on: processor, threads, versions, data."""
    import torch

    import impls.jax.evaluate
    import impls.torch.evaluate

    # Several processes of JAX share a GPU: none may take all of its memory at the start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    impls.jax.evaluate.choose_device(config.device)
    device = impls.torch.evaluate.choose_device(config.device)
    versions = []
    for package in ("torch", "jax", "flax", "optax", "keras", "numpy"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return {
        "date": time.strftime("%Y-%m-%d"),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else _processor(),
        "threads": f"{torch.get_num_threads()} (PyTorch), {os.cpu_count()} (machine)",
        "versions": f"Python {platform.python_version()}, " + ", ".join(versions),
        "data": load(config.data).source,
        "rounds": f"{config.rounds}; {config.races} runs to the goal",
        "precision": config.precision,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(": ")[1] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration, IndexError):
        return platform.processor() or platform.machine()


def table(rows: list[Row]) -> str:
    """Return the rows as a table in Markdown."""
    memory = any("peak_mib" in row for row in rows)
    lines = [
        "| what | at | ratio: median (quartiles) | seconds |" + (" peak MiB |" if memory else ""),
        "|---|---|---|---|" + ("---|" if memory else ""),
    ]
    for row in rows:
        seconds = f"{row['seconds']['median']:.3f} / {row['other_seconds']:.3f}"
        line = f"| {row['what']} | {row['at']} | {Spread(**row['ratio'])} | {seconds} |"
        lines.append(line + (f" {row['peak_mib']:.0f} |" if memory else ""))
    return "\n".join(lines)


def plot(rows: list[Row], path: Path) -> None:
    """Draw the ratios over width, batch size and number of seeds, one panel each."""
    import matplotlib.pyplot as plt

    kinds = list(dict.fromkeys(row["kind"] for row in rows))
    figure, panels = plt.subplots(1, len(kinds), figsize=(4 * len(kinds), 3.2), squeeze=False)
    for panel, kind in zip(panels[0], kinds, strict=True):
        for framework in ("torch", "jax"):
            chosen = [r for r in rows if r["kind"] == kind and r["framework"] == framework]
            if not chosen:
                continue
            x = [row["value"] for row in chosen]
            panel.plot(x, [row["ratio"]["median"] for row in chosen], "o-", label=framework)
            low, high = ([row["ratio"][end] for row in chosen] for end in ("low", "high"))
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


def main() -> None:
    """Run the parts asked for; what is finished is written at once."""
    with one_line_errors():
        config = parse(BenchConfig)
        if config.quick:
            config = dataclasses.replace(config, rounds=1, races=1)
        about = machine(config)
    parts = {"operation": operation, "epoch": epoch, "accuracy": accuracy, "growth": growth,
             "seeds": seeds}  # fmt: skip
    config.out.mkdir(parents=True, exist_ok=True)
    results: dict[str, list[Row]] = {}
    text = ["# Benchmarks", "", *(f"- {name}: {value}" for name, value in about.items())]
    print("\n".join(text), flush=True)
    for name in config.only:
        results[name] = parts[name](config)
        heading = (parts[name].__doc__ or "").splitlines()[0]
        text += ["", f"## {heading.rstrip('.')}", "", table(results[name])]
        print("\n".join(text[-4:]), flush=True)
        (config.out / "benchmarks.md").write_text("\n".join(text) + "\n")
        kept = {"machine": about, "results": results}
        (config.out / "benchmarks.json").write_text(json.dumps(kept, indent=1) + "\n")
    drawn = [row for name in ("growth", "seeds") for row in results.get(name, [])]
    if drawn:
        plot(drawn, config.out / "benchmarks.png")
    print(f"\nwrote benchmarks.md, .json{' and .png' if drawn else ''} to {config.out}")


if __name__ == "__main__":
    main()
