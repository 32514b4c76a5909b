"""Kill training runs at random moments and at every system call of a save, and see what is left.

python -m tests.kill --kills 200

Each run that was killed goes on with --resume, and must end with the same weights and log, byte for
byte but for the times, as a run that nobody killed. strace (Debian's package) kills at a system
call, or lets it fail as on a full or a broken disk.
"""

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
EPOCHS = 6
SMALL = ["--data", "sample", "--epochs", str(EPOCHS), "--hidden-1", "32", "--hidden-2", "32"]
# A save without any framework, which takes a fraction of a second to start.
SAVE = """
import sys, os, signal
from pathlib import Path
from shared.folder import CHECKPOINT, write_checkpoint
from shared.randomness import initial_weights
from shared.records import TrainResult
path = Path(sys.argv[1]) / CHECKPOINT
run = TrainResult([{"epoch": 2}], initial_weights(784, 8, 8, 10, seed=2))
write_checkpoint(path, run, {})
"""
CALLS = ("openat", "write", "fsync", "chmod", "rename", "read", "close")


def trained(framework: str, out: Path, *flags: str) -> subprocess.Popen:
    """Start a run."""
    command = [sys.executable, "-m", f"impls.{framework}.train", *SMALL, "--out", str(out), *flags]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )


def result(out: Path) -> tuple[bytes, list]:
    """Return what a run left behind, without times and the name of the folder."""
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    lines[0]["config"].pop("out")
    for line in lines[1:]:
        line.pop("seconds")
    return (out / "weights.safetensors").read_bytes(), lines


def random_kills(framework: str, number: int, folder: Path, seed: int = 0) -> Counter:
    """Kill runs with SIGKILL at random moments after their log begins, and let them go on."""
    whole = folder / "whole"
    started = time.monotonic()
    trained(framework, whole).communicate()
    longest = time.monotonic() - started
    expected, rng, outcomes = result(whole), random.Random(seed), Counter()
    for _ in range(number):
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        process = trained(framework, out)
        time.sleep(rng.uniform(0.3, 1) * longest)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        finished = process.returncode == 0
        again = trained(framework, out, "--resume")
        _, error = again.communicate()
        same = again.returncode == 0 and result(out) == expected
        outcomes["had ended before" if finished else "killed"] += 1
        outcomes["ended the same" if same else f"NOT THE SAME: {error}"] += 1
    return outcomes


def saved(folder: Path) -> list[int]:
    """Return the numbers of epochs that the whole checkpoints in a folder hold."""
    from shared.checks import InputError
    from shared.folder import CHECKPOINT, PREVIOUS, read_checkpoint

    epochs = []
    for name in (CHECKPOINT, PREVIOUS):
        try:
            epochs.append(read_checkpoint(folder / name)[0].history[-1]["epoch"])
        except InputError:
            continue
    return epochs


def save(folder: Path, *strace: str) -> subprocess.CompletedProcess:
    """Save the checkpoint of epoch 2 over that of epoch 1, in a process under strace."""
    from shared.folder import CHECKPOINT, write_checkpoint
    from shared.randomness import initial_weights
    from shared.records import TrainResult

    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    before = TrainResult([{"epoch": 1}], initial_weights(784, 8, 8, 10, seed=1))  # type: ignore[typeddict-item]
    write_checkpoint(folder / CHECKPOINT, before, {})  # type: ignore[typeddict-item]
    command = ["strace", "-f", "-o", str(folder.parent / "trace"), *strace, sys.executable, "-c"]
    return subprocess.run(
        [*command, SAVE, str(folder)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


def moments(folder: Path) -> dict[str, range]:
    """Return which calls of each kind belong to the save, from a clean trace: numbers from 1."""
    save(folder)
    counts: Counter = Counter()
    found: dict[str, list[int]] = {}
    for line in (folder.parent / "trace").read_text().splitlines():
        name = (re.match(r"\d+ +(\w+)\(", line) or [None, ""])[1]
        counts[name] += 1
        inside = str(folder) in line or name in ("fsync", "write")
        if name in CALLS and inside:
            found.setdefault(name, []).append(counts[name])
    return {name: range(min(at), max(at) + 1) for name, at in found.items()}


def faults(folder: Path, most: int) -> Counter:
    """Kill a save at its system calls, and let them fail. At most so many of each kind of call."""
    outcomes: Counter = Counter()
    for name, numbers in moments(folder / "save").items():
        for number in list(numbers)[:most]:
            for what in ("signal=SIGKILL", "error=ENOSPC", "error=EIO"):
                save(folder / "save", "-e", f"inject={name}:{what}:when={number}")
                whole = saved(folder / "save")
                kept = bool(whole) and max(whole) in (1, 2)
                outcomes[what] += 1
                if not kept:
                    outcomes[f"LOST at {name} {number}, {what}"] += 1
    return outcomes


def main() -> None:
    """Print what became of every run. Exit with status 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="random kills of each framework")
    parser.add_argument("--faults", type=int, default=1000, help="at most so many of each call")
    parser.add_argument("--frameworks", nargs="*", default=["torch", "jax"])
    flags = parser.parse_args()
    bad = False
    with tempfile.TemporaryDirectory() as name:
        found = {"saves": faults(Path(name), flags.faults)}
        for framework in flags.frameworks:
            folder = Path(name) / framework
            folder.mkdir()
            found[framework] = random_kills(framework, flags.kills, folder)
    for kind, outcomes in found.items():
        for outcome, number in outcomes.items():
            print(f"{kind}: {number} {outcome}")
            bad |= outcome.startswith(("NOT", "LOST"))
    raise SystemExit(bad)


if __name__ == "__main__":
    main()
