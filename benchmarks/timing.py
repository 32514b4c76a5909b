"""Fair comparisons of programs on a machine whose speed changes all the time.

Every program has a process of its own (`benchmarks/worker.py`), so that no program changes the
threads, the memory or the settings of another. In each round every program runs once. The
times of two programs are divided within each round. What is reported is the median of these ratios
and their quartiles.
"""

import dataclasses
import json
import os
import statistics
import subprocess
import sys
from typing import Any, NamedTuple

from benchmarks.programs import Setting


class Spread(NamedTuple):
    """The median of some numbers, and the lower and upper quartile."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 2 if self.median >= 0.1 else 3
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} - {self.high:.{digits}f})"


def spread(values: list[float]) -> Spread:
    """Return the median and the quartiles, or the minimum and maximum of one or two numbers."""
    if len(values) < 3:
        return Spread(statistics.median(values), min(values), max(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), low, high)


def compare(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Compare the seconds of two programs, one number per round.

    Returns:
        The spread of the ratios ours[i] / theirs[i], the spread of `ours`, and the median of
        `theirs`.
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "ratio": spread(ratios)._asdict(),
        "seconds": spread(ours)._asdict(),
        "other_seconds": statistics.median(theirs),
    }


class Worker:
    """A process that prepares a program and then runs it each time it is asked.

    Args:
        program: a name in `benchmarks.programs`.
        setting: what to measure the program at.

    Attributes:
        peak_mib: the largest amount of memory that the process has used.
    """

    def __init__(self, program: str, setting: Setting) -> None:
        self.program, self.peak_mib = program, 0.0
        environment = dict(os.environ)
        if setting.device == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""  # Keras would use a GPU that it sees
        if program.startswith("keras"):
            environment["KERAS_BACKEND"] = program.split()[-1]
        words = (program, json.dumps(dataclasses.asdict(setting)))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._read_answer()

    def seconds(self) -> float:
        """Run the program once and return how many seconds it took."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._read_answer()["seconds"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _read_answer(self) -> dict[str, float]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"the program {self.program!r} ended early, see above")
        answer = json.loads(line)
        self.peak_mib = answer["peak_mib"]
        return answer


def run_in_turn(workers: dict[str, Worker], rounds: int) -> dict[str, list[float]]:
    """Run every worker once a round, and close all of them at the end.

    Before the rounds that count there is one that does not, because the first run of a program
    includes work that happens only once, such as compilation.

    Args:
        workers: the workers, by name.
        rounds: how many rounds count.

    Returns:
        For each name, the seconds of each round that counts.
    """
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    try:
        for _ in range(1 + rounds):
            for name, worker in workers.items():
                seconds[name].append(worker.seconds())
    finally:
        for worker in workers.values():
            worker.close()
    return {name: values[1:] for name, values in seconds.items()}
