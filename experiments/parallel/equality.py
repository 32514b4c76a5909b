"""Show that one device and many train the same network: the same losses, the same weights.

python -m experiments.parallel.equality

Each row of the table is a run of the real command, with one process or several. All are compared
with the run of one process and one device: the loss of every step, as every process saw it, the
weights at the end, and the log.

With 353 images in a step, no number of processes gets equal parts. The last step of an epoch of the
sample has 3 images, so that of 4 processes one has none.

Sums over parts are rounded differently, and training may make a rounding error grow. How much, the
last row of each framework tells: one process and one device, but the initial weights are off by
one in the last digit.
"""

import dataclasses
import importlib
import os
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from experiments.parallel import ROOT, keep_rows
from shared.checks import InputError
from shared.cli import one_line_errors, parse
from shared.records import EpochRecord, read_log
from shared.weights import load_weights

LOSS_LIMIT, WEIGHT_LIMIT = 1e-12, 1e-10  # the largest differences allowed in float64


@dataclasses.dataclass(frozen=True)
class EqualityConfig:
    """Compare runs of several processes and devices with one of one device."""

    epochs: int = 10
    """Passes over the training data."""
    data: str = "sample"
    """full, sample, auto, or a folder of four IDX files."""
    batch_sizes: tuple[int, ...] = (256, 353)
    """Examples in a step. There is a column for each."""
    lr: float = 0.1
    """Learning rate of stochastic gradient descent. At 0.5, rounding errors grow."""
    most: int = 4
    """Leave out layouts of more processes or devices."""
    record: Path | None = None
    """A JSON file to keep the rows in, as docs/parallel.json."""


class Layout(NamedTuple):
    """On what a run computes."""

    framework: str  # torch or jax
    processes: int = 1
    devices: int = 1  # of each process
    nudged: bool = False  # the initial weights are off by one in the last digit

    def start(self, losses: Path, flags: list[str], threads: int = 1) -> list[subprocess.Popen]:
        """Start the processes. Each writes the losses that it saw into a file of this name.

        With more than one thread for each, those of one process wait for those of another.
        """
        several = self.processes * self.devices > 1
        module = f"impls.{self.framework}.{'parallel' if several else 'train'}"
        words = ["-m", __spec__.name, module, str(losses), "nudged" if self.nudged else "-", *flags]
        if self.framework == "jax" and several:
            words += ["--devices", str(self.devices)]
        if self.framework == "torch" and several:
            torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node"]
            words = [*torchrun, str(self.processes), *words]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        environments = [environment]
        if self.framework == "jax" and self.processes > 1:
            address = f"127.0.0.1:{free_port()}"
            count = {"JAX_NUM_PROCESSES": str(self.processes), "JAX_COORDINATOR_ADDRESS": address}
            environments = [
                environment | count | {"JAX_PROCESS_ID": str(rank)}
                for rank in range(self.processes)
            ]
        return [
            subprocess.Popen(
                [sys.executable, *words], cwd=ROOT, env=one, text=True,
                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
            )
            for one in environments
        ]  # fmt: skip


def free_port() -> int:
    """Return a port of this machine that nobody uses."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        return free.getsockname()[1]


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


class Result(NamedTuple):
    """What a run left behind."""

    losses: list[np.ndarray]  # of all steps, as each process saw them
    weights: dict[str, np.ndarray]
    history: list[EpochRecord]


def run(layout: Layout, folder: Path, *flags: Any, threads: int = 1) -> Result:
    """Train in processes of their own.

    Args:
        layout: on what to compute.
        folder: for the files of the run.
        flags: further flags of the command.
        threads: of each process, in PyTorch.

    Raises:
        InputError: the run failed.
    """
    words = ["--out", str(folder / "run"), *map(str, flags)]
    started = layout.start(folder / "losses", words, threads)
    errors = [process.communicate()[1] for process in started]
    if any(process.returncode for process in started):
        raise InputError(f"{layout} failed: {''.join(errors)[-2000:]}")
    return result(folder, "run", layout.processes)


def result(folder: Path, name: str, processes: int) -> Result:
    """Read what a run in a folder of this name left behind."""
    return Result(
        [np.load(folder / f"losses-{rank}.npy") for rank in range(processes)],
        load_weights(folder / name / "weights.safetensors"),
        read_log(folder / name / "log.jsonl")[1],
    )


class Difference(NamedTuple):
    """The largest differences between two runs."""

    losses: float  # of a step, in any process
    weights: float
    scores: float  # of a number in the log: losses and accuracies of each epoch

    @property
    def small(self) -> bool:
        """Whether the runs are the same up to rounding in float64."""
        largest = max(self.losses, self.scores)
        return largest <= LOSS_LIMIT and self.weights <= WEIGHT_LIMIT


def compare(ours: Result, alone: Result) -> Difference:
    """Compare a run with one of one process and one device."""
    return Difference(
        max(float(np.abs(losses - alone.losses[0]).max()) for losses in ours.losses),
        max(float(np.abs(ours.weights[n] - alone.weights[n]).max()) for n in alone.weights),
        max(
            abs(a[key] - b[key])  # type: ignore[literal-required]  # each key of an EpochRecord
            for a, b in zip(ours.history, alone.history, strict=True)
            for key in a
            if key != "seconds"
        ),
    )


def table(flags: EqualityConfig) -> tuple[list[str], bool]:
    """Return the rows of the table, and whether all runs are the same."""
    rows, same = [], True
    alone: dict[tuple[str, int], Result] = {}
    for layout in LAYOUTS:
        if layout.processes * layout.devices > flags.most:
            continue
        cells = []
        for size in flags.batch_sizes:
            with tempfile.TemporaryDirectory() as folder:
                words = ["--epochs", flags.epochs, "--data", flags.data, "--batch-size", size]
                found = run(layout, Path(folder), *words, "--lr", flags.lr, "--dtype", "float64")
            difference = compare(found, alone.setdefault((layout.framework, size), found))
            same &= difference.small or layout.nudged
            cells += [f"{difference.losses:.1e}", f"{difference.weights:.1e}"]
        name = {"torch": "PyTorch", "jax": "JAX"}[layout.framework]
        name += ", nudged" if layout.nudged else ""
        if layout[1:] != (1, 1, False):
            rows.append(f"| {name} | {layout.processes} | {layout.devices} | {' | '.join(cells)} |")
            print(rows[-1], file=sys.stderr)
    return rows, same


def worker(module: str, losses: str, nudged: str, *flags: str) -> None:
    """Run a train command as it is, and keep the loss of every step that this process saw."""
    command = importlib.import_module(module)
    train: Any = importlib.import_module(f"{module.rpartition('.')[0]}.train")
    train_epoch = train.train_epoch
    seen: list[np.ndarray] = []

    def kept(*args: Any) -> Any:
        results = train_epoch(*args)
        seen.append(np.asarray(results[0], np.float64))
        return results

    train.train_epoch = kept
    if nudged == "nudged":
        _nudge(importlib.import_module(f"{module.rpartition('.')[0]}.mlp"))
    rank = os.environ.get("RANK") or os.environ.get("JAX_PROCESS_ID") or "0"
    command.main(flags)
    np.save(f"{losses}-{rank}.npy", np.concatenate(seen))


def _nudge(mlp: Any) -> None:
    """Move each initial weight of a network to a number next to it."""
    initial_weights = mlp.initial_weights
    rng = np.random.default_rng(0)

    def nudged(*args: Any, **settings: Any) -> dict[str, np.ndarray]:
        weights = initial_weights(*args, **settings)
        return {
            name: np.nextafter(array, rng.choice([-np.inf, np.inf], array.shape))
            for name, array in weights.items()
        }

    mlp.initial_weights = nudged


def main() -> None:
    """Print the table. The status is 1 if a run is not the same."""
    if sys.argv[1:2] and sys.argv[1].startswith("impls."):
        worker(*sys.argv[1:])
        os._exit(0)  # as impls.torch.parallel does
    with one_line_errors():
        flags = parse(EqualityConfig, "experiments.parallel.equality")
        rows, same = table(flags)
        keep_rows("equality", rows, flags.record)
    if not same:
        print("error: a run is not the same", file=sys.stderr)
        raise SystemExit(1)


if __name__ == "__main__":
    main()
