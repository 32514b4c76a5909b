"""Measure our implementations, print tables, and write them as Markdown and JSON, with a plot.

python -m benchmarks --help

Our programs are compared with PyTorch's and Flax's own dropout, with usual programs in PyTorch,
Flax and Keras, with the article's program, and with a floor. The floor is a lower bound on the time
of an epoch: it computes only the eight matrix products of each step.
"""

import dataclasses
import json
import os
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

import impls.jax.runtime
import impls.torch.runtime
from benchmarks import report
from benchmarks.programs import Setting
from benchmarks.report import Row
from benchmarks.timing import Worker, compare, run_in_turn
from shared.checks import InputError
from shared.cli import one_line_errors, parse
from shared.config import Precision

Section = Literal["operation", "epoch", "accuracy", "growth", "seeds"]
SIZES = (256, 512, 1024, 2048, 4096)
# The widths, each with the number of steps that take about half a second.
WIDTHS = {256: 60, 512: 40, 1024: 20, 2048: 8, 4096: 4}
BATCHES = (64, 256, 1024, 4096)
SEEDS = (1, 2, 4, 8, 16)


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """Compare our programs with others, and report medians and quartiles."""

    only: tuple[Section, ...] = get_args(Section)
    """The sections to measure."""
    rounds: int = 7
    """Rounds of each comparison. In a round every program runs once."""
    races: int = 9
    """Runs of each program to the goal, with the seeds 0, 1, ..."""
    goal: float = 0.853
    """Test accuracy to reach with dropout off."""
    data: str = "auto"
    """full, sample, auto, or a folder of four IDX files."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute. The article's program always uses the CPU."""
    precision: Precision = "highest"
    """Precision of float32 matrix products in our programs and the floors."""
    quick: bool = False
    """Only try it out: one size of each kind, one round, one run to the goal."""
    out: Path = Path("runs/benchmarks")
    """Folder for benchmarks.md, benchmarks.json and benchmarks.png."""

    def __post_init__(self) -> None:
        if self.rounds < 1 or self.races < 1:
            raise InputError("rounds and races must be at least 1")

    def setting(self, **sizes: Any) -> Setting:
        """Return the setting for one of our programs."""
        return Setting(data=self.data, device=self.device, precision=self.precision, **sizes)


def operation(config: BenchConfig) -> list[Row]:
    """Measure our dropout and the framework's own, forward and backward."""
    rows = []
    for ours, theirs in (("torch dropout", "F.dropout"), ("jax dropout", "nnx.Dropout")):
        for dtype in ("float32", "bfloat16"):
            for size in SIZES[:1] if config.quick else SIZES:
                setting = config.setting(size=size, dtype=dtype)
                workers = {name: Worker(name, setting) for name in (ours, theirs)}
                seconds = run_in_turn(workers, config.rounds)
                rows.append(
                    {"what": f"{ours} / {theirs}", "at": f"{size} x {size}, {dtype}"}
                    | compare(seconds[ours], seconds[theirs])
                )
    return rows


def epoch(config: BenchConfig) -> list[Row]:
    """Measure an epoch of every program at the article's settings, all in the same rounds."""
    ours = config.setting()
    others = Setting(data=config.data, device=config.device)
    article = Setting(data=config.data)
    settings = {
        "torch epoch": ours, "torch floor": ours, "torch loop, F.dropout": others,
        "article, 0 workers": article, "article, 4 workers": article,
        "jax epoch": ours, "jax floor": ours, "nnx loop": others,
    }  # fmt: skip
    if find_spec("keras"):  # Keras is installed with the optional extra `peers`
        settings |= {"keras on torch": others, "keras on jax": others}
    workers = {name: Worker(name, setting) for name, setting in settings.items()}
    seconds = run_in_turn(workers, config.rounds)
    comparisons = {
        "torch epoch": ("torch floor", "jax floor", "torch loop, F.dropout", "article, 0 workers",
                        "article, 4 workers", "keras on torch"),
        "jax epoch": ("jax floor", "nnx loop", "keras on jax", "article, 0 workers"),
    }  # fmt: skip
    return [
        {"what": f"{name} / {other}", "at": "article's settings"}
        | compare(seconds[name], seconds[other])
        for name, references in comparisons.items()
        for other in references
        if other in seconds
    ]


def accuracy(config: BenchConfig) -> list[Row]:
    """Measure whole processes from their start until they reach the goal."""
    programs = ("torch", "jax", "article")
    seconds: dict[str, list[float]] = {name: [] for name in programs}
    epochs: dict[str, list[int]] = {name: [] for name in programs}
    setting = json.dumps(dataclasses.asdict(config.setting()))
    for seed in range(config.races):
        for name in programs:
            words = ("benchmarks.until", name, str(seed), str(config.goal), setting)
            command = [sys.executable, "-m", *words]
            started = time.perf_counter()
            result = subprocess.run(command, stdout=subprocess.PIPE, text=True)
            seconds[name].append(time.perf_counter() - started)
            if result.returncode:
                raise SystemExit(f"{' '.join(words)} failed")
            epochs[name].append(json.loads(result.stdout)["epoch"])
    return [
        {
            "what": f"{name} / article, whole process",
            "at": f"to {config.goal}; epochs {epochs[name]} / {epochs['article']}",
        }
        | compare(seconds[name], seconds["article"])
        for name in ("torch", "jax")
    ]


def growth(config: BenchConfig) -> list[Row]:
    """Measure an epoch and its floor as the hidden layers or the batch grow."""
    widths = {256: 3} if config.quick else WIDTHS
    batches = (256,) if config.quick else BATCHES
    cases = [("width", config.setting(width=w, steps=steps)) for w, steps in widths.items()]
    cases += [("batch", config.setting(batch=b, steps=max(4, 15_360 // b))) for b in batches]
    return [
        _point(config, framework, ("epoch", "floor"), kind, setting)
        for framework in ("torch", "jax")
        for kind, setting in cases
    ]


def seeds(config: BenchConfig) -> list[Row]:
    """Measure several seeds at once under vmap, and the same seeds one after another."""
    numbers = SEEDS[:2] if config.quick else SEEDS
    cases = [config.setting(seeds=number, steps=30) for number in numbers]
    return [
        _point(config, framework, ("seeds at once", "seeds in turn"), "seeds", setting)
        for framework in ("torch", "jax")
        for setting in cases
    ]


def _point(
    config: BenchConfig, framework: str, programs: tuple[str, str], kind: str, setting: Setting
) -> Row:
    """Compare two programs of a framework at one point of the plot.

    `kind` names the field of the setting that differs from point to point.
    """
    ours, other = programs
    value = getattr(setting, kind)
    workers = {name: Worker(f"{framework} {name}", setting) for name in programs}
    seconds = run_in_turn(workers, config.rounds)
    return {
        "what": f"{framework} {ours} / {other.removeprefix('seeds ')}",
        "at": f"{value} seeds" if kind == "seeds" else f"{kind} {value}",
        "framework": framework,
        "kind": kind,
        "value": value,
        "peak_mib": workers[ours].peak_mib,
    } | compare(seconds[ours], seconds[other])


SECTIONS = {section.__name__: section for section in (operation, epoch, accuracy, growth, seeds)}


def main() -> None:
    """Measure the sections, and write the results after each of them."""
    # Several JAX processes share a GPU, so none of them may reserve most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    with one_line_errors():
        config = parse(BenchConfig, "benchmarks")
        if config.quick:
            config = dataclasses.replace(config, rounds=1, races=1)
        impls.jax.runtime.choose_device(config.device)
        impls.torch.runtime.choose_device(config.device)
        about = report.machine(config.setting())
    about["rounds"] = f"{config.rounds}; {config.races} runs to the goal"
    config.out.mkdir(parents=True, exist_ok=True)
    print(report.title(about), flush=True)
    results: dict[str, list[Row]] = {}
    files: list[str] = []
    for name in config.only:
        results[name] = SECTIONS[name](config)
        print(f"\n{report.section(name, results[name])}", flush=True)
        files = report.write(config.out, about, results)
    print(f"\nwrote {', '.join(files)} to {config.out}")


if __name__ == "__main__":
    main()
