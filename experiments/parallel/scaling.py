"""How much faster is a second core, for two processes and for two threads?

python -m experiments.parallel.scaling

The efficiency is the time of an epoch on one core over twice that on two: 1 means that the second
core halves the time. Nothing else should run meanwhile.
"""

import dataclasses
import os
import statistics
import tempfile
from pathlib import Path

from experiments.parallel import keep_rows
from experiments.parallel.equality import Layout, run
from shared.checks import InputError
from shared.cli import one_line_errors, parse
from shared.config import check_range


@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """Time one process on one core, two processes, and one process with two threads."""

    widths: tuple[int, ...] = (64, 256, 1024, 4096)
    """Units in each hidden layer."""
    epochs: int = 4
    """Epochs of a run. The first is not counted."""
    repeats: int = 3
    """Runs of each kind, in turns."""
    data: str = "sample"
    """full, sample, auto, or a folder of four IDX files."""
    record: Path | None = None
    """A JSON file to keep the rows in, as docs/parallel.json."""

    def __post_init__(self) -> None:
        check_range(self, epochs=10**6, repeats=1000)
        if self.epochs < 2:
            raise InputError("epochs must be at least 2")


def seconds(layout: Layout, cores: int, threads: int, width: int, flags: ScalingConfig) -> float:
    """Run a train command once, and return the median seconds of its epochs but the first."""
    words = ["--hidden-1", width, "--hidden-2", width, "--epochs", flags.epochs, "--lr", 0.1]
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(before)[:cores])  # for the processes that are started, too
    try:
        with tempfile.TemporaryDirectory() as folder:
            more = ["--data", flags.data]
            history = run(layout, Path(folder), *words, *more, threads=threads).history
    finally:
        os.sched_setaffinity(0, before)
    return statistics.median(record["seconds"] for record in history[1:])


def row(framework: str, width: int, flags: ScalingConfig) -> str:
    """Return a row: one core, two processes, two threads, with their efficiencies."""
    kinds = [(Layout(framework), 1, 1), (Layout(framework, 2), 2, 1), (Layout(framework), 2, 2)]
    times = [[seconds(*kind, width, flags) for kind in kinds] for _ in range(flags.repeats)]
    one, processes, threads = (statistics.median(of) for of in zip(*times, strict=True))
    name = {"torch": "PyTorch", "jax": "JAX"}[framework]
    cells = (f"{two:.2f} ({one / two / 2:.0%})" for two in (processes, threads))
    return f"| {name} | {width:,} | {one:.2f} | {' | '.join(cells)} |"


def main() -> None:
    """Print the table."""
    with one_line_errors():
        flags = parse(ScalingConfig, "experiments.parallel.scaling")
        if not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2:
            raise InputError("this needs Linux and two cores")
        rows = [row(name, width, flags) for name in ("torch", "jax") for width in flags.widths]
        keep_rows("scaling", rows, flags.record)


if __name__ == "__main__":
    main()
