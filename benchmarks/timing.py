"""Fair comparisons of programs on a machine whose speed changes all the time.

Every program has a process of its own, so that no program changes the threads, the memory or the
settings of another. In each round every program runs once. The times of two programs are divided
within each round. What is reported is the median of these ratios and their quartiles.
"""

import os
import signal
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from multiprocessing import get_context
from typing import Any

import numpy as np

from benchmarks.programs import Run, Setting, prepare


def compare(ours: list[float], theirs: list[float]) -> dict[str, Any]:
    """Compare the seconds of two programs, one number per round.

    Returns:
        Median and quartiles of the ratios ours[i] / theirs[i], and the medians of the seconds.
    """
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75]).tolist()
    return {
        "ratio": {"median": median, "low": low, "high": high},
        "seconds": float(np.median(ours)),
        "other_seconds": float(np.median(theirs)),
    }


def measure(programs: list[str], setting: Setting, rounds: int) -> dict[str, list[float]]:
    """Let programs take turns, each in a process of its own.

    Returns:
        For each program, the seconds of each round. There is one round more, the first, that does
        not count: it includes work that happens only once, such as compilation.
    """
    with ExitStack() as stack:
        processes = {program: stack.enter_context(new_process()) for program in programs}
        for program, process in processes.items():
            process.submit(_start, program, setting).result()
        seconds: dict[str, list[float]] = {program: [] for program in programs}
        for i in range(1 + rounds):
            for program, process in processes.items():
                seconds[program].append(process.submit(_clock, i).result())
    return {program: values[1:] for program, values in seconds.items()}


def new_process() -> ProcessPoolExecutor:
    """Return a new process, which has imported nothing yet."""
    return ProcessPoolExecutor(1, get_context("spawn"), _settle)


def _settle() -> None:
    """Set what holds for the whole process, before a framework is imported."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # at Ctrl-C, only the command says something
    # Several JAX processes share a GPU, so none of them may reserve most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


_run: Run  # of the program that this process measures


def _start(program: str, setting: Setting) -> None:
    global _run
    if setting.device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Keras would use a GPU that it sees
    _run = prepare(program, setting)


def _clock(i: int) -> float:
    return seconds_of(_run, i)


def seconds_of(run: Run, i: int) -> float:
    """Return how many seconds a run takes, until the device has computed everything."""
    started = time.perf_counter()
    results = run(i)
    # JAX, and PyTorch on a GPU, return before they have computed.
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch and torch.cuda.is_initialized():
        torch.cuda.synchronize()
    if jax:
        jax.block_until_ready(results)
    return time.perf_counter() - started
