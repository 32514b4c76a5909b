"""Train until the test accuracy with dropout off reaches a goal. The whole process is timed.

python -m benchmarks.until torch|jax|article SEED GOAL '{"data": "sample"}'

The last argument holds fields of `benchmarks.programs.Setting`. The command prints the epoch and
the accuracy that were reached, as JSON.
"""

import json
import sys
from typing import NamedTuple

from benchmarks.programs import Setting
from shared.config import Config
from shared.records import EpochRecord

MOST_EPOCHS = 60


class Goal(NamedTuple):
    """The first epoch, counted from 1, after which the goal is reached, and the accuracy then."""

    epoch: int
    test_accuracy: float


def train_until(framework: str, seed: int, goal: float, setting: Setting) -> Goal | None:
    """Run our `train` at the article's settings until it reaches the goal.

    Returns:
        None if the goal is not reached in MOST_EPOCHS epochs.
    """
    config = Config(
        epochs=MOST_EPOCHS,
        seed=seed,
        data=setting.data,
        device=setting.device,
        precision=setting.precision,
    )

    def goal_is_reached(record: EpochRecord, *_: object) -> bool:
        return record["test_accuracy"] >= goal

    # Only the framework that is measured is imported.
    if framework == "jax":
        import impls.jax.train
        from impls.jax.runtime import compiled_code_on_disk

        with compiled_code_on_disk():
            history, _ = impls.jax.train.train(config, on_epoch=goal_is_reached)
    else:
        import impls.torch.train

        history, _ = impls.torch.train.train(config, on_epoch=goal_is_reached)
    last = history[-1]
    return Goal(last["epoch"], last["test_accuracy"]) if goal_is_reached(last) else None


def article_until(seed: int, goal: float, setting: Setting) -> Goal | None:
    """Do the same with the article's program, on the CPU."""
    import torch

    from benchmarks.article import Article

    torch.manual_seed(seed)
    article = Article(setting.data, workers=0)
    for epoch in range(1, MOST_EPOCHS + 1):
        article.train_epoch()
        accuracy = article.test_accuracy()
        if accuracy >= goal:
            return Goal(epoch, accuracy)
    return None


def main() -> None:
    """Read the command line, train, and print one line."""
    program, seed, goal, fields = sys.argv[1:]
    setting = Setting(**json.loads(fields))
    if program == "article":
        reached = article_until(int(seed), float(goal), setting)
    else:
        reached = train_until(program, int(seed), float(goal), setting)
    if reached is None:
        raise SystemExit(f"{goal} was not reached in {MOST_EPOCHS} epochs")
    print(json.dumps(reached._asdict()))


if __name__ == "__main__":
    main()
