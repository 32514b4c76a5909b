"""Train in a new process until the test accuracy with dropout off reaches a goal."""

import dataclasses
import importlib

from benchmarks.programs import Run, Setting
from benchmarks.timing import new_process


def whole_process(setting: Setting, module: str) -> Run:
    """A process from its start, imports included, to its end. Each run has another seed."""

    def run(i: int) -> None:
        with new_process() as process:
            process.submit(train_until, dataclasses.replace(setting, seed=i), module).result()

    return run


def train_until(setting: Setting, module: str) -> int:
    """Train until the goal of the setting is reached, and return how many epochs it took.

    Raises:
        RuntimeError: that is not so after the last epoch of the setting.
    """
    accuracies = importlib.import_module(f"benchmarks.{module}").accuracies(setting)
    for epoch, accuracy in enumerate(accuracies, 1):
        if accuracy >= setting.goal:
            return epoch
    raise RuntimeError(f"{module} did not reach {setting.goal} in {setting.epochs} epochs")
