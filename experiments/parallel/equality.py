"""Show that one device and many train the same network: the same losses, the same weights.

python -m experiments.parallel.equality

Each line of the table is a run of the real train command, with one process or several. All are
compared with the run of one process and one device: the loss of every step, as every process saw
it, the weights at the end, and the log.

With 353 images in a step, no number of processes gets equal parts. The last step of an epoch of the
sample has 3 images, so that of 4 processes one has none.

Sums over parts are rounded differently, and training may make a rounding error grow. How much, the
last line of each framework tells: one process and one device, but the initial weights are off by
one in the last digit. With the article's learning rate, 0.5, training on the sample is unstable,
and this alone changes losses by more than 1e-12.
"""

import dataclasses
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from shared.checks import InputError
from shared.cli import one_line_errors, parse, say
from shared.records import EpochRecord, read_log
from shared.weights import load_weights

LOSS_LIMIT, WEIGHT_LIMIT = 1e-12, 1e-10  # the largest differences allowed in float64
ROOT = Path(__file__).parents[2]
FILES = [".lock", "log.jsonl", "weights.safetensors"]


@dataclasses.dataclass(frozen=True)
class ParallelTableConfig:
    """Compare runs of several processes and devices with one of one device."""

    epochs: int = 10
    """Passes over the training data."""
    data: str = "sample"
    """full, sample, auto, or a folder of four IDX files."""
    batch_sizes: tuple[int, ...] = (256, 353)
    """Examples in a step. There is a table for each."""
    lr: float = 0.1
    """Learning rate of stochastic gradient descent."""

    def __post_init__(self) -> None:
        if not self.batch_sizes:
            raise InputError("batch_sizes must name at least one size")


class Layout(NamedTuple):
    """On what a run computes."""

    framework: str  # torch or jax
    processes: int = 1
    devices: int = 1  # of each process
    nudged: bool = False  # the initial weights are off by one in the last digit

    def command(self, losses: Path) -> list[str]:
        """Return the words that start a run, which writes its losses into files of this name."""
        module = ["-m", "experiments.parallel.run", self.framework, str(losses)]
        module += ["nudged"] if self.nudged else []
        if self.framework == "torch":
            words = ["-m", "torch.distributed.run", "--standalone"]
            torchrun = [*words, "--nproc-per-node", str(self.processes)]
            return [sys.executable, *(torchrun if self.processes > 1 else []), *module]
        counts = ["--processes", str(self.processes), "--devices", str(self.devices)]
        return [sys.executable, *module, *counts]


LAYOUTS = (
    Layout("torch", 1),
    Layout("torch", 2),
    Layout("torch", 4),
    Layout("torch", nudged=True),
    Layout("jax", 1),
    Layout("jax", 2),
    Layout("jax", 4),
    Layout("jax", 1, 2),
    Layout("jax", 1, 4),
    Layout("jax", 2, 2),
    Layout("jax", nudged=True),
)


class Run(NamedTuple):
    """What a run left behind."""

    losses: list[np.ndarray]  # of all steps, as each process saw them
    weights: dict[str, np.ndarray]
    history: list[EpochRecord]
    files: list[str]  # in its folder


def run(layout: Layout, folder: Path, *flags: Any) -> Run:
    """Train in processes of their own.

    Args:
        layout: on what to compute.
        folder: for the files of the run.
        flags: further flags of the train command.

    Raises:
        InputError: the run failed.
    """
    out = folder / "run"
    words = [*layout.command(folder / "losses"), "--out", str(out), *map(str, flags)]
    # One thread for each process: otherwise those of one process wait for those of another.
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"{' '.join(words)} failed: {done.stderr[-2000:]}")
    return Run(
        [np.load(folder / f"losses-{rank}.npy") for rank in range(layout.processes)],
        load_weights(out / "weights.safetensors"),
        read_log(out / "log.jsonl")[1],
        sorted(path.name for path in out.iterdir()),
    )


class Difference(NamedTuple):
    """The largest differences between two runs."""

    losses: float  # of a step, in any process
    weights: float
    scores: float  # of a number in the log: losses and accuracies of each epoch
    files: bool  # whether a file is missing, or there is one more than those of one run


def compare(ours: Run, alone: Run) -> Difference:
    """Compare a run with one of one process and one device."""
    scores = [
        abs(a[key] - b[key])  # type: ignore[literal-required]  # each key of an EpochRecord
        for a, b in zip(ours.history, alone.history, strict=True)
        for key in a
        if key != "seconds"
    ]
    return Difference(
        max(float(np.abs(losses - alone.losses[0]).max()) for losses in ours.losses),
        max(float(np.abs(ours.weights[n] - alone.weights[n]).max()) for n in alone.weights),
        max(scores),
        ours.files != FILES,
    )


def equal(difference: Difference) -> bool:
    """Whether two runs are the same up to rounding in float64."""
    return (
        difference.losses <= LOSS_LIMIT
        and difference.weights <= WEIGHT_LIMIT
        and difference.scores <= LOSS_LIMIT
        and not difference.files
    )


def main() -> None:
    """Print a table for each batch size. The status is 1 if a run is not the same."""
    with one_line_errors():
        flags = parse(ParallelTableConfig, "experiments.parallel.equality")
        same = True
        for batch_size in flags.batch_sizes:
            same &= table(flags, batch_size)
    say("\nLargest differences from the run of one process and one device: of the loss of a step,")
    say("of a weight at the end, of a number in the log.")
    if not same:
        print("error: a run is not the same", file=sys.stderr)
        raise SystemExit(1)


def table(flags: ParallelTableConfig, batch_size: int) -> bool:
    """Print a table for one batch size, and return whether all runs are the same."""
    say(
        f"\n{flags.epochs} epochs of {flags.data} in float64, {batch_size} images in a step, "
        f"learning rate {flags.lr}\n"
        "framework  processes  devices  steps     loss     weight        log"
    )
    same = True
    alone: dict[str, Run] = {}
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            words = ["--epochs", flags.epochs, "--data", flags.data, "--batch-size", batch_size]
            result = run(layout, Path(folder), *words, "--lr", flags.lr, "--dtype", "float64")
        difference = compare(result, alone.setdefault(layout.framework, result))
        note = "" if equal(difference) else "  NOT THE SAME"
        if layout.nudged:
            note = "  initial weights off in the last digit"
        else:
            same &= equal(difference)
        say(
            f"{layout.framework:9}  {layout.processes:9}  {layout.devices:7}"
            f"  {len(result.losses[0]):5}  {difference.losses:7.1e}  {difference.weights:9.1e}"
            f"  {difference.scores:9.1e}{note}"
        )
    return same


if __name__ == "__main__":
    main()
