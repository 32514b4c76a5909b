"""Kill training runs at random moments, and let them go on."""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[2]
EPOCHS = 12
SMALL = ["--data", "sample", "--epochs", str(EPOCHS), "--hidden-1", "32", "--hidden-2", "32"]


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


def epochs_saved(out: Path) -> int:
    """Return the number of epochs in the last checkpoint of a folder, 0 if there is none."""
    from shared.checks import InputError
    from shared.folder import CHECKPOINT, PREVIOUS, read_checkpoint

    saved = [0]
    for name in (CHECKPOINT, PREVIOUS):
        try:
            saved.append(len(read_checkpoint(out / name)[0].history))
        except InputError:
            continue
    return max(saved)


def begun(process: subprocess.Popen, out: Path, epochs: int) -> None:
    """Return when the log of a run has so many epochs, or the run has ended."""
    log = out / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > epochs):
        time.sleep(0.005)


def measure(framework: str, number: int, folder: Path, seed: int = 0) -> Counter:
    """Stop runs at random moments, and let them go on.

    SIGKILL, SIGTERM and SIGINT take turns. A tenth of the runs is stopped before it trains, a fifth
    in the first epoch or later, and the others after the first epoch.

    Args:
        framework: torch or jax.
        number: how many runs.
        folder: an empty one.
        seed: of the moments.

    Returns:
        What became of the runs, and how often.
    """
    whole = folder / "whole"
    started = time.monotonic()
    process = trained(framework, whole)
    begun(process, whole, 0)
    start = time.monotonic() - started
    begun(process, whole, 1)
    first = time.monotonic() - started - start
    begun(process, whole, EPOCHS)
    others = time.monotonic() - started - start - first
    process.communicate()
    expected, rng, outcomes = result(whole), random.Random(seed), Counter()
    for i in range(number):
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        process = trained(framework, out)
        if i % 10 == 0:
            time.sleep(rng.uniform(0, start))
        elif i % 10 < 3:
            begun(process, out, 0)
            time.sleep(rng.uniform(0, first + others))
        else:
            begun(process, out, 1)
            time.sleep(rng.uniform(0, others))
        trains = (out / "log.jsonl").exists()
        process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[i % 3])
        _, told = process.communicate()
        if process.returncode == 0:
            outcomes["had ended before"] += 1
        elif not trains:
            outcomes["stopped before it trained"] += 1
        elif (out / "weights.safetensors").exists():
            outcomes["stopped after all was written"] += 1
        else:
            outcomes[f"stopped, {'with' if epochs_saved(out) else 'before'} a checkpoint"] += 1
        if trains and "Traceback" in told:
            outcomes[f"FAILED: a traceback. {told}"] += 1
        again = trained(framework, out, "--resume")
        _, error = again.communicate()
        if again.returncode == 0 and result(out) == expected:
            outcomes["ended the same, byte for byte"] += 1
        else:
            outcomes[f"FAILED: ended in another way. {error}"] += 1
    return outcomes
