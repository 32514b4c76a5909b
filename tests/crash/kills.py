"""Stop train commands at random moments of their whole life, and let them go on."""

import bisect
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shared.checks import InputError
from shared.records import EPOCH_HEADER
from shared.run import CHECKPOINT, LOG, WEIGHTS
from shared.weights import read_file

ROOT = Path(__file__).parents[2]
EPOCHS = 6
SMALL = ["--data", "sample", "--epochs", str(EPOCHS), "--hidden-1", "32", "--hidden-2", "32"]
OTHER = {"torch": "jax", "jax": "torch"}
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
MOMENTS = PYTHON, BEFORE, FIRST, LATER, WRITTEN, ENDED = (
    "stopped while Python itself started, with its own traceback",
    "stopped before training",
    "stopped before the first checkpoint",
    "stopped later in training",
    "stopped after the weights were written",
    "had ended before the signal",
)
FAILURES = IGNORED, ERROR, LOST = ("ignored the signal", "ended with an error", "lost")
ENDS = TWICE, MIXED, SAME = (
    "runs that were stopped twice or more",
    "runs that went on in the other framework",
    "runs that ended the same, byte for byte",
)


def start(framework: str, out: Path, *flags: str) -> subprocess.Popen:
    """Start a train command. What it prints goes into files beside its folder."""
    command = [sys.executable, "-m", f"impls.{framework}.train", *SMALL, "--out", str(out), *flags]
    with open(f"{out}.stdout", "w") as said, open(f"{out}.stderr", "w") as errors:
        return subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=errors)


def read(out: Path, stream: str = "stdout") -> str:
    """Return what a command has printed."""
    return Path(f"{out}.{stream}").read_text()


def last_epoch(printed: str) -> int:
    """Return the last epoch that was printed, 0 if there is none."""
    return max(map(int, re.findall(r"^ +(\d+) ", printed, re.M)), default=0)


def life(framework: str, out: Path) -> list[float]:
    """Train undisturbed. Return the second of the start, of each line, and of the end."""
    began, times, process = time.monotonic(), [0.0], start(framework, out)
    while process.poll() is None:
        if read(out).count("\n") >= len(times):
            times.append(time.monotonic() - began)
        time.sleep(0.002)
    return [*times, time.monotonic() - began]


def stop(process: subprocess.Popen, out: Path, line: int, seconds: float, number: int) -> str:
    """Send a signal so many seconds after a line was printed, and return what became of it."""
    while process.poll() is None and read(out).count("\n") < line:
        time.sleep(0.002)
    time.sleep(seconds)
    if process.poll() is None:
        process.send_signal(signal.SIGSTOP)  # it stands still while we look how far it is
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
    if process.poll() is not None:
        assert process.returncode == 0, read(out, "stderr")
        return ENDED
    printed, there = read(out), saved(out)
    moment = BEFORE if EPOCH_HEADER not in printed else LATER if there else FIRST
    moment = WRITTEN if (out / WEIGHTS).exists() else moment
    process.send_signal(number)
    process.send_signal(signal.SIGCONT)
    status, error = process.wait(timeout=300), read(out, "stderr")
    if status == 0 and max(last_epoch(printed), there) < EPOCHS:
        return IGNORED
    if (
        not printed
        and error.endswith("KeyboardInterrupt\n")
        and not re.search(rf'"{ROOT}/(impls|shared)/(?!__init__)', error)
    ):
        return PYTHON
    if status not in (0, -number, 128 + number) or re.search("Traceback|Exception ignored", error):
        print(f"status {status}, {moment}: {error}", file=sys.stderr)
        return ERROR
    return moment


def saved(out: Path) -> int:
    """Return how many epochs a stopped run can go on after."""
    for path in (out / "unfinished" / CHECKPOINT, out / WEIGHTS):
        if path.exists():
            return read_file(path)[1]["log"].count('"epoch"')
    return 0


def result(out: Path) -> tuple[bytes, list]:
    """Return the weights and the log of a finished run, without seconds and folder."""
    log = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    inside = json.loads(read_file(out / WEIGHTS)[1]["log"])
    for line in [*log, *inside]:
        line.pop("seconds", None)
        line.get("config", {}).pop("out", None)
    assert log == inside, "the log in the weight file is another one"
    return (out / WEIGHTS).read_bytes(), log


def ending(out: Path, made: list[str], expected: dict[str, tuple[bytes, list]]) -> str:
    """Return how a run ended, if `made` names the framework of each of its epochs."""
    owner, owners, (weights, log) = "", [], result(out)
    for line in log:
        owner = line.get("framework", owner)
        owners += [owner] if "epoch" in line else []
    assert owners == made, f"the log says {owners}, and not {made}"
    assert not (out / "unfinished").exists(), "something is left over"
    if sum("framework" in line for line in log) > 1:
        return MIXED
    assert (weights, log) == expected[owner], "it ended in another way"
    return SAME


def one_run(framework: str, seed: int, folder: Path, lives: dict, expected: dict) -> Counter:
    """Start a run, stop it once or more often, and let it go on until it is finished."""
    rng, counts, out = (
        random.Random(f"{framework}-{seed}"),
        Counter[str](),
        folder / f"{framework}-{seed}",
    )
    made: list[str] = []  # the framework of each epoch that is saved
    resume: list[str] = []
    stops, now, process = 0, framework, None
    try:
        while not process or process.returncode:
            every = rng.choice((1, 2))
            process = start(now, out, "--checkpoint-every", str(every), *resume)
            if not resume or rng.random() < 0.3:
                # A third of the signals comes before the first line, in the seconds of imports,
                # half in training, and the rest when all is written, while the process ends.
                times, part = lives[now], rng.choice((0, 0, 1, 1, 1, 2))
                edges = (0, times[1], times[-2], times[-1])
                moment = rng.uniform(edges[part], edges[part + 1])
                line = bisect.bisect(times, moment) - 1
                outcome = stop(process, out, line, moment - times[line], rng.choice(SIGNALS))
                counts[outcome] += 1
                stops += 1
            else:
                assert process.wait(timeout=300) == 0, read(out, "stderr")
            made += [now] * (saved(out) - len(made))
            assert len(made) >= last_epoch(read(out)) // every * every, "an epoch is not saved"
            resume = ["--resume"]
            now = OTHER[now] if rng.random() < 0.15 else now
        counts[ending(out, made, expected)] += 1
    except (AssertionError, InputError, OSError, subprocess.TimeoutExpired) as error:
        print(f"{out}: {error!r}", file=sys.stderr)
        counts[LOST] += 1
        if process:
            process.kill()
    return counts + Counter({TWICE: int(stops > 1)})


def measure(frameworks: Sequence[str], runs: int, folder: Path) -> dict[str, Counter]:
    """Stop so many runs of each framework, two at a time. Count what became of them."""
    with ThreadPoolExecutor(2) as pool:
        lives = dict(zip(OTHER, pool.map(lambda f: life(f, folder / f), OTHER), strict=True))
        expected = {name: result(folder / name) for name in OTHER}
        todo = [(framework, seed) for framework in frameworks for seed in range(runs)]
        done = pool.map(lambda of: one_run(of[0], of[1], folder, lives, expected), todo)
        counts: dict[str, Counter] = {name: Counter() for name in frameworks}
        for (framework, _), count in zip(todo, done, strict=True):
            counts[framework] += count
    return counts
