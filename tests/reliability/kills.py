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
EPOCHS = 6
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


def measure(framework: str, number: int, folder: Path, seed: int = 0) -> Counter:
    """Kill runs at random moments between their start and their end, and let them go on.

    SIGKILL, SIGTERM and SIGINT take turns.

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
    trained(framework, whole).communicate()
    longest = time.monotonic() - started
    expected, rng, outcomes = result(whole), random.Random(seed), Counter()
    for i in range(number):
        out = folder / "killed"
        shutil.rmtree(out, ignore_errors=True)
        process = trained(framework, out)
        time.sleep(rng.uniform(0.2, 1) * longest)
        process.send_signal((signal.SIGKILL, signal.SIGTERM, signal.SIGINT)[i % 3])
        _, told = process.communicate()
        if process.returncode == 0:
            outcomes["had ended before"] += 1
        else:
            outcomes[f"stopped, {'with' if epochs_saved(out) else 'before'} a checkpoint"] += 1
        if "Traceback" in told:
            outcomes["FAILED: a traceback"] += 1
        again = trained(framework, out, "--resume")
        _, error = again.communicate()
        if again.returncode == 0 and result(out) == expected:
            outcomes["ended the same, byte for byte"] += 1
        else:
            outcomes[f"FAILED: ended in another way. {error}"] += 1
    return outcomes
