"""Train many times in one process, and look at its memory, memory maps and file handles."""

import argparse
import dataclasses
import importlib
import json
import random
import subprocess
import sys
from pathlib import Path

import psutil

from shared.config import Config
from shared.data import load
from shared.idx import Data

ROOT = Path(__file__).parents[2]


def small_data() -> Data:
    """Return 600 training and 200 test images of the sample."""
    sample = load("sample")
    return dataclasses.replace(
        sample,
        train_images=sample.train_images[:600],
        train_labels=sample.train_labels[:600],
        test_images=sample.test_images[:200],
        test_labels=sample.test_labels[:200],
    )


def state() -> dict[str, int]:
    """Return the memory of this process in bytes, and its numbers of memory maps and handles."""
    me = psutil.Process()
    return {
        "memory": me.memory_info().rss,
        "maps": len(me.memory_maps(grouped=False)),
        "handles": me.num_fds(),
    }


def many_calls(framework: str, calls: int, every: int) -> list[dict[str, int]]:
    """Train again and again: other learning rates, dropout rates, seeds, batch and layer sizes.

    Returns:
        The state of the process after each `every` calls.
    """
    train = importlib.import_module(f"impls.{framework}.train").train
    data, rng, states = small_data(), random.Random(0), []
    for call in range(1, calls + 1):
        config = Config(
            epochs=1,
            lr=rng.uniform(0.01, 0.5),
            p1=rng.uniform(0, 0.9),
            p2=rng.uniform(0, 0.9),
            seed=call,
            hidden_1=rng.randrange(8, 65),
            hidden_2=rng.randrange(8, 65),
            batch_size=rng.choice((64, 100, 256)),
        )
        train(config, data)
        if call % every == 0:
            states.append({"calls": call, **state()})
    return states


def many_epochs(framework: str, epochs: int, every: int) -> list[dict[str, int]]:
    """Train one small network for many epochs.

    Returns:
        The state of the process after each `every` epochs.
    """
    train = importlib.import_module(f"impls.{framework}.train").train
    states = []

    def look(record, _):
        if record["epoch"] % every == 0:
            states.append({"epochs": record["epoch"], **state()})

    train(Config(epochs=epochs, hidden_1=32, hidden_2=32, lr=0.1), small_data(), look)
    return states


Halves = dict[str, dict[str, tuple[int, int]]]


def measure(framework: str, what: str, number: int) -> Halves:
    """Call `many_calls` or `many_epochs` in a process of its own, and return `halves`."""
    command = [sys.executable, "-m", "tests.reliability.load", framework, what, str(number)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return halves(json.loads(done.stdout))


def halves(states: list[dict[str, int]]) -> Halves:
    """Return the least and the largest values in two halves of the time, without its first tenth.

    Returns:
        For "first half" and "second half": memory in bytes, maps, handles, and calls or epochs.
    """
    states = states[len(states) // 10 :]
    middle = len(states) // 2
    return {
        name: {
            key: (min(state[key] for state in half), max(state[key] for state in half))
            for key in half[0]
        }
        for name, half in (("first half", states[:middle]), ("second half", states[middle:]))
    }


def main() -> None:
    """Print the states as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("framework")
    parser.add_argument("what", choices=("many_calls", "many_epochs"))
    parser.add_argument("number", type=int)
    flags = parser.parse_args()
    every = max(1, flags.number // 100)
    print(json.dumps(globals()[flags.what](flags.framework, flags.number, every)))


if __name__ == "__main__":
    main()
