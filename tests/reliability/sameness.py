"""Run the same command again, and with another number of threads, and compare the files."""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from shared.weights import load_weights
from tests.reliability.kills import ROOT, result

TRAIN = ["--data", "sample", "--epochs", "3"]


def run(framework: str, out: Path, flags: list[str], prefix: list[str]) -> None:
    """Train in a process of its own."""
    command = [sys.executable, "-m", f"impls.{framework}.train", *TRAIN, "--out", str(out), *flags]
    subprocess.run([*prefix, *command], cwd=ROOT, check=True, capture_output=True)


def measure(framework: str, dtype: str, repeats: int) -> dict[str, float | int]:
    """Train with two threads, again, and with one thread.

    Returns:
        How many repeats gave the same files byte for byte, and the largest difference of a weight
        between one thread and two.
    """
    flags = ["--dtype", dtype]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        two = ["env", "OMP_NUM_THREADS=2"]
        run(framework, folder / "first", flags, two)
        same = 0
        for i in range(repeats):
            run(framework, folder / f"again-{i}", flags, two)
            same += result(folder / f"again-{i}") == result(folder / "first")
        run(framework, folder / "one", flags, ["env", "OMP_NUM_THREADS=1", "taskset", "-c", "0"])
        one, both = (load_weights(folder / n / "weights.safetensors") for n in ("one", "first"))
        return {
            "repeats": repeats,
            "same": same,
            "one thread": max(float(np.abs(one[n] - both[n]).max()) for n in one),
        }
