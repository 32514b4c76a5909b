"""Lay two finished runs side by side, and check both with NumPy.

python -m experiments.compare runs/torch runs/jax
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from impls.numpy.evaluate import evaluate_weights
from shared.config import InputError, one_line_errors, parse
from shared.runs import read_log, test_inputs
from shared.weights import load_weights


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Compare runs, and score their weights with NumPy."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (
        Path("runs/torch"),
        Path("runs/jax"),
    )
    """Folders that train wrote."""


def compare(run: Path) -> tuple[str, bool]:
    """Return a row of the table for one run, and whether NumPy agrees to the last image."""
    header, history = read_log(run / "log.jsonl")
    if not history:
        raise InputError(f"{run} has no finished epoch")
    weights = load_weights(run / "weights.safetensors")
    images, labels, _ = test_inputs(header["config"]["data"], weights)
    _, accuracy = evaluate_weights(weights, images, labels)
    last = history[-1]
    # The first epoch may include compilation.
    seconds = sorted(record["seconds"] for record in history[1:] or history)
    agrees = round(accuracy * len(labels)) == round(last["test_accuracy"] * len(labels))
    row = (
        f"{run!s:20} {last['epoch']:6} {last['train_loss']:11.4f} {last['train_accuracy']:10.4f}"
        f" {last['test_loss']:10.4f} {last['test_accuracy']:9.4f} {accuracy:9.4f}"
        f" {'agree' if agrees else 'DIFFER':>6} {seconds[len(seconds) // 2]:8.2f}"
    )
    return row, agrees


def main() -> None:
    """Print the table; exit with 1 if NumPy scores any run otherwise than the run itself did."""
    with one_line_errors():
        config = parse(CompareConfig)
        rows = [compare(run) for run in config.runs]
    print(
        f"{'run':20} {'epochs':>6} {'train loss':>11} {'train acc.':>10} {'test loss':>10}"
        f" {'test acc.':>9} {'in NumPy':>9} {'same?':>6} {'median s':>8}"
    )
    print("\n".join(row for row, _ in rows))
    if not all(agrees for _, agrees in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
