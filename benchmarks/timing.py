"""Compare programs fairly on a machine whose speed drifts.

Every program runs in a process of its own (`benchmarks/worker.py`), so that none disturbs another's
threads, memory or settings. They work in turn, round after round; a ratio is taken within a round,
and what is reported is the median of the ratios and their spread.
"""

import json
import os
import statistics
import subprocess
import sys
from typing import Any, NamedTuple


class Spread(NamedTuple):
    """The median of some numbers, and their quartiles."""

    median: float
    low: float
    high: float

    def __str__(self) -> str:
        digits = 2 if self.median >= 0.1 else 3
        return f"{self.median:.{digits}f} ({self.low:.{digits}f} - {self.high:.{digits}f})"


def spread(values: list[float]) -> Spread:
    """Return median and quartiles; of fewer than three numbers, the least and the greatest."""
    if len(values) < 3:
        return Spread(statistics.median(values), min(values), max(values))
    low, _, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(statistics.median(values), low, high)


def ratios(a: list[float], b: list[float]) -> Spread:
    """Return the spread of a[i] / b[i]: round i of one program over round i of the other."""
    return spread([x / y for x, y in zip(a, b, strict=True)])


class Worker:
    """A process that has made a program ready, and runs it when asked.

    Args:
        program: a name in `benchmarks.programs`.
        settings: what that program takes, and `data`, in JSON's types.
    """

    def __init__(self, program: str, **settings: Any):
        self.program, self.peak_mib = program, 0.0
        environment = dict(os.environ)
        if settings.get("device", "cpu") == "cpu":
            environment["CUDA_VISIBLE_DEVICES"] = ""  # what has no flag for it takes a GPU unasked
        if program.startswith("keras"):
            environment["KERAS_BACKEND"] = program.split()[-1]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.worker", program, json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        self._answer()

    def seconds(self) -> float:
        """Run the program once; return what it took, in seconds."""
        assert self._process.stdin
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        return self._answer()["seconds"]

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _answer(self) -> dict[str, float]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise RuntimeError(f"the program {self.program!r} ended early, see above")
        answer = json.loads(line)
        self.peak_mib = answer["peak_mib"]
        return answer


def in_turn(workers: dict[str, Worker], rounds: int, warm: int = 1) -> dict[str, list[float]]:
    """Run every worker once a round, and close them.

    Args:
        workers: by the name to be reported.
        rounds: counted rounds.
        warm: rounds before them that are not counted, for what happens only once.

    Returns:
        The seconds of each counted round, by name.
    """
    taken: dict[str, list[float]] = {name: [] for name in workers}
    try:
        for i in range(warm + rounds):
            for name, worker in workers.items():
                seconds = worker.seconds()
                if i >= warm:
                    taken[name].append(seconds)
    finally:
        for worker in workers.values():
            worker.close()
    return taken
