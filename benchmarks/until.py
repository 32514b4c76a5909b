"""Train until the test accuracy, dropout off, first reaches a goal; the whole process is timed.

python -m benchmarks.until torch|jax|article SEED GOAL DATA DEVICE PRECISION

Prints the epoch and the accuracy reached, as JSON.
"""

import importlib
import json
import sys
from typing import Any

MOST_EPOCHS = 60


class Reached(Exception):  # noqa: N818 - no error, a goal
    """The goal is reached; the record of the epoch comes with it."""


def train_until(
    framework: str, seed: int, goal: float, data: str, device: str, precision: Any
) -> dict[str, Any] | None:
    """Run our `train`, at the article's settings, and stop it at the goal."""
    module = importlib.import_module(f"impls.{framework}.train")
    from shared.config import Config

    if framework == "jax":
        module.keep_compiled_code()

    def stop(record: dict[str, Any]) -> None:
        if record["test_accuracy"] >= goal:
            raise Reached(record)

    try:
        config = Config(
            epochs=MOST_EPOCHS, seed=seed, data=data, device=device, precision=precision
        )
        module.train(config, None, stop)
    except Reached as reached:
        return reached.args[0]
    return None


def article_until(seed: int, goal: float, data: str) -> dict[str, Any] | None:
    """Run the article's program, always on the CPU; after each epoch, accuracy without dropout."""
    import torch

    from benchmarks.article import program

    torch.manual_seed(seed)
    _, epoch, accuracy = program(data, 0)
    for i in range(1, MOST_EPOCHS + 1):
        epoch()
        if (reached := accuracy()) >= goal:
            return {"epoch": i, "test_accuracy": reached}
    return None


def main() -> None:
    """Read the words, train, print one line."""
    name, seed, goal, data, device, precision = sys.argv[1:]
    if name == "article":
        record = article_until(int(seed), float(goal), data)
    else:
        record = train_until(name, int(seed), float(goal), data, device, precision)
    if record is None:
        raise SystemExit(f"{goal} was not reached in {MOST_EPOCHS} epochs")
    print(json.dumps({"epoch": record["epoch"], "test_accuracy": record["test_accuracy"]}))


if __name__ == "__main__":
    main()
