"""Measure our implementations, print tables, and write them as Markdown and JSON.

python -m benchmarks --help

Our programs are compared with PyTorch's and Flax's own dropout, with usual programs in PyTorch,
Flax and Keras, with the article's program, and with a floor. The floor is a lower bound on the time
of an epoch: it computes only the eight matrix products of each step.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, get_args

from benchmarks import report
from benchmarks.programs import Setting
from benchmarks.timing import compare, measure
from shared.cli import one_line_errors, parse
from shared.config import check_range

# For each program, those that it is compared with. They run in the same rounds.
OPERATIONS = {
    "torch dropout": ("F.dropout",),
    "torch dropout, threshold_backward": ("torch dropout",),
    "torch dropout, masked_fill": ("torch dropout",),
    "jax dropout": ("nnx.Dropout",),
}
EPOCHS = {
    "torch epoch": ("torch floor", "torch loop, F.dropout", "keras on torch",
                    "article, 0 workers", "article, 4 workers"),
    "torch epoch, threshold_backward": ("torch epoch", "torch loop, F.dropout"),
    "torch epoch, masked_fill": ("torch epoch",),
    "jax epoch": ("jax floor", "nnx loop", "keras on jax", "article, 0 workers"),
}  # fmt: skip
PROCESSES = {f"{name}, whole process": ("article, whole process",) for name in ("torch", "jax")}
FLOORS = {f"{name} epoch": (f"{name} floor",) for name in ("torch", "jax")}

# In each section: what the programs are measured at, in words and as a setting, and which.
SIZES = (256, 512, 1024, 2048, 4096)
STEPS = {256: 60, 512: 40, 1024: 20, 2048: 8, 4096: 4}  # half a second at each width
BATCHES = {64: 240, 256: 60, 1024: 15, 4096: 4}
Section = Literal["operation", "epoch", "accuracy", "growth"]
SECTIONS: dict[Section, list[tuple[str, dict[str, Any], Mapping[str, Sequence[str]]]]] = {
    "operation": [
        (f"{size} x {size}, {dtype}", {"size": size, "units": dtype}, OPERATIONS)
        for dtype in ("float32", "bfloat16")
        for size in SIZES
    ],
    "epoch": [(report.ARTICLE, {}, EPOCHS)],
    "accuracy": [(report.ARTICLE, {}, PROCESSES)],
    "growth": [
        *((f"width {w}", {"hidden_1": w, "hidden_2": w, "steps": n}, FLOORS)
          for w, n in STEPS.items()),
        *((f"batch {b}", {"batch_size": b, "steps": n}, FLOORS) for b, n in BATCHES.items()),
    ],
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """Compare our programs with others, and report medians and quartiles."""

    only: tuple[Section, ...] = get_args(Section)
    """The sections to measure."""
    rounds: int = 7
    """Rounds of each comparison. In a round every program runs once."""
    data: str = "auto"
    """full, sample, auto, or a folder of four IDX files."""
    device: Literal["cpu", "cuda"] = "cpu"
    """Where to compute. The article's program always uses the CPU."""
    quick: bool = False
    """Only try it out: one round, one size, and any accuracy."""
    out: Path = Path("runs/benchmarks")
    """Folder for benchmarks.md and benchmarks.json."""

    def __post_init__(self) -> None:
        check_range(self, rounds=10**6)


def rows(
    at: str, setting: Setting, comparisons: Mapping[str, Sequence[str]], rounds: int
) -> list[report.Row]:
    """Measure programs in the same rounds, and return a row for each comparison."""
    pairs = [
        (ours, other)
        for ours, others in comparisons.items()
        for other in others
        if find_spec("keras") or "keras" not in other  # it comes with the optional extra `peers`
    ]
    seconds = measure(list(dict.fromkeys(sum(pairs, ()))), setting, rounds)
    return [
        {"what": f"{ours} / {other}", "at": at} | compare(seconds[ours], seconds[other])
        for ours, other in pairs
    ]


def main(args: Sequence[str] | None = None) -> None:
    """Measure the sections, and write the results after each of them."""
    with one_line_errors():
        config = parse(BenchConfig, "benchmarks", args)
        setting = Setting(data=config.data, device=config.device)
        if config.quick:
            config = dataclasses.replace(config, rounds=1)
            setting = dataclasses.replace(setting, goal=0.1)
        about = report.machine(setting, config.rounds)
        config.out.mkdir(parents=True, exist_ok=True)
        print(report.heading(about), flush=True)
        results: report.Results = {}
        for section in config.only:
            results[section] = []
            for at, changes, comparisons in SECTIONS[section][: 1 if config.quick else None]:
                of_case = dataclasses.replace(setting, **changes)
                results[section] += rows(at, of_case, comparisons, config.rounds)
            print(f"\n{report.table(section, results[section])}", flush=True)
            report.write(config.out, about, results)
        print(f"\nwrote benchmarks.md and benchmarks.json to {config.out}")


if __name__ == "__main__":
    main()
