"""How much faster are more processes? Measured on two cores, and computed for many devices.

python -m experiments.parallel.scaling

Measured: an epoch of one process on one core, of two processes that are pinned to a core each, of
two processes that may use both cores, and of one process with two threads. The efficiency is the
time on one core over twice the other time: 1 means that the second core halves the time.

Computed: a step on N devices takes

    FLOP / N / speed  +  2 x (N - 1) / N x bytes / bandwidth  +  2 x latency x log2 N

seconds. The first term is the matrix products of the forward and the backward pass: 6 FLOP for each
weight and example, but 4 in the first layer, because the images need no gradient. The others are
the all-reduce of the gradients, by Rabenseifner's algorithm: each device sends and receives every
gradient about twice, in 2 log2 N rounds.

Left out: everything else that a step computes or sends, such as the logits of other processes in
PyTorch, and that gradients can be sent while others are still computed.

Source of the all-reduce: Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication
Operations in MPICH", IJHPCA 19 (2005), section 4.5.
"""

import dataclasses
import math
import os
import statistics
import subprocess
import sys
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from shared.checks import InputError
from shared.cli import one_line_errors, parse, say
from shared.records import read_log

ROOT = Path(__file__).parents[2]
CORES = sorted(os.sched_getaffinity(0))[:2] if hasattr(os, "sched_getaffinity") else []
FRAMEWORKS = ("torch", "jax")
# One process on one core, two processes pinned or free to use both cores, one process on two cores.
KINDS = ("one core", "pinned", "free", "two threads")


@dataclasses.dataclass(frozen=True)
class ScalingConfig:
    """Time one and two processes, and compute the time of many devices."""

    widths: tuple[int, ...] = (64, 256, 1024, 4096)
    """Units in each hidden layer."""
    epochs: int = 4
    """Epochs of a run. The first is not counted."""
    repeats: int = 3
    """Runs of each kind, in turns."""
    data: str = "sample"
    """full, sample, auto, or a folder of four IDX files."""
    measure: bool = True
    """Whether to measure, or only to compute."""

    def __post_init__(self) -> None:
        if self.epochs < 2 or self.repeats < 1:
            raise InputError("epochs must be at least 2, and repeats at least 1")


def command(framework: str, kind: str) -> tuple[list[str], dict[str, str]]:
    """Return the words that start a run, and its environment variables.

    Args:
        framework: torch or jax.
        kind: one of `KINDS`.
    """
    module = ["-m", f"impls.{framework}.train"]
    variables = {"OMP_NUM_THREADS": "2" if kind == "two threads" else "1"}
    if kind in ("pinned", "free"):
        module = ["-m", "experiments.parallel.pinned", framework] if kind == "pinned" else module
        if framework == "torch":
            run = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
            return [*run, "--nproc-per-node", "2", *module], variables
        return [sys.executable, *module, "--processes", "2"], variables
    return [sys.executable, *module], variables


def seconds(framework: str, kind: str, width: int, flags: ScalingConfig) -> float:
    """Run the train command once, and return the median seconds of its epochs.

    Raises:
        InputError: the run failed.
    """
    words, variables = command(framework, kind)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        settings = {
            "--hidden-1": width, "--hidden-2": width, "--epochs": flags.epochs, "--lr": 0.1,
            "--data": flags.data, "--out": out,
        }  # fmt: skip
        more = [str(word) for pair in settings.items() for word in pair]
        before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, CORES[:1] if kind == "one core" else CORES)  # for the child, too
        done = subprocess.run(
            [*words, *more], cwd=ROOT, env=os.environ | variables, capture_output=True, text=True
        )
        os.sched_setaffinity(0, before)
        if done.returncode:
            raise InputError(f"{' '.join(words)} failed: {done.stderr[-2000:]}")
        records = read_log(out / "log.jsonl")[1]
    return statistics.median(record["seconds"] for record in records[1:])


def measured(flags: ScalingConfig) -> None:
    """Print the seconds of an epoch and the efficiencies.

    Raises:
        InputError: there are no two cores, or this is not Linux.
    """
    if len(CORES) < 2:
        raise InputError("measuring needs Linux and two cores. Try --no-measure")
    say(" " * 19 + "seconds of an epoch" + " " * 24 + "efficiency")
    say("framework  width  one core  pinned    free  two threads    pinned   free  two threads")
    for framework in FRAMEWORKS:
        for width in flags.widths:
            times = {kind: [] for kind in KINDS}  # type: dict[str, list[float]]
            for _ in range(flags.repeats):
                for kind in KINDS:
                    times[kind].append(seconds(framework, kind, width, flags))
            one, *two = (statistics.median(times[kind]) for kind in KINDS)
            numbers = (one, *two, *(one / value / 2 for value in two))
            columns = zip(numbers, (8, 6, 6, 11, 8, 5, 11), strict=True)
            cells = (f"{number:{size}.2f}" for number, size in columns)
            say(f"{framework:9}  {width:5}  " + "  ".join(cells))


class Machine(NamedTuple):
    """What the computed times assume."""

    name: str
    speed: float  # of a device in this training, floating-point operations per second
    bandwidth: float  # between two devices, bytes per second
    latency: float  # of a message, seconds


# Assumptions, except for the speed of a core: about that of PyTorch in the measured table. A GPU
# is slower with a small network, and then computation weighs more.
MACHINES = (
    Machine("CPU cores, 10 Gbit/s Ethernet", 100e9, 1.25e9, 30e-6),
    Machine("GPUs, 400 Gbit/s InfiniBand", 20e12, 50e9, 5e-6),
)
DEVICES = (1, 8, 32, 128, 256, 1024)


def step_seconds(machine: Machine, width: int, rows: int, devices: int) -> tuple[float, float]:
    """Return the seconds that a step computes, and those that it communicates."""
    weights = sum((a + 1) * b for a, b in pairwise((784, width, width, 10)))
    flop = 6 * weights - 2 * 784 * width  # for each example
    own = math.ceil(rows / devices)  # examples, on the device that has most
    sent = 2 * (devices - 1) / devices * 4 * weights  # bytes
    rounds = 2 * math.ceil(math.log2(devices))
    return flop * own / machine.speed, sent / machine.bandwidth + rounds * machine.latency


def computed(width: int, rows: int) -> None:
    """Print the speed-up of a network and a batch size on many devices."""
    say(f"\nwidth {width:,}, {rows:,} images in a step: times as fast as one device (efficiency)")
    say(f"{'':30}" + "".join(f"{devices:>14,}" for devices in DEVICES))
    for machine in MACHINES:
        alone = sum(step_seconds(machine, width, rows, 1))
        cells = []
        for devices in DEVICES:
            faster = alone / sum(step_seconds(machine, width, rows, devices))
            cells.append(f"{faster:.1f} ({faster / devices:.0%})")
        say(f"{machine.name:30}" + "".join(f"{cell:>14}" for cell in cells))
        first = next(
            n for n in range(2, 10**6) if communicates(step_seconds(machine, width, rows, n))
        )
        say(f"{'':30}  communication takes longer than computation from {first:,} devices on")


def communicates(times: tuple[float, float]) -> bool:
    """Whether a step communicates for longer than it computes."""
    return times[1] > times[0]


def main() -> None:
    """Print the measured and the computed table."""
    with one_line_errors():
        flags = parse(ScalingConfig, "experiments.parallel.scaling")
        if flags.measure:
            measured(flags)
    for width in (256, 4096):
        for rows in (256, 65536):
            computed(width, rows)


if __name__ == "__main__":
    main()
