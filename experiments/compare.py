"""Lay finished runs side by side, and score the weights of each again in NumPy.

python -m experiments.compare runs/torch runs/jax
"""

import dataclasses
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from impls.numpy.evaluate import evaluate_weights
from shared.checks import InputError
from shared.cli import data_for, one_line_errors, parse, show
from shared.data import to_inputs
from shared.folder import belong_together, read_header
from shared.records import EpochRecord, read_log
from shared.weights import load_weights


@dataclasses.dataclass(frozen=True)
class CompareConfig:
    """Compare the results of runs, and score their weights in NumPy."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional] = (
        Path("runs/torch"),
        Path("runs/jax"),
    )
    """Folders that a train command wrote."""


class FinishedRun(NamedTuple):
    """A run as it stands in its folder, and the score of its weights in NumPy."""

    folder: Path
    settings: dict[str, Any]  # the configuration, with the data that was really used
    last: EpochRecord
    median_seconds: float  # of an epoch, without the first, which may include compilation
    images: int  # in the test
    correct: int  # of these, by the run itself
    correct_in_numpy: int

    @property
    def agrees(self) -> bool:
        """Whether NumPy classifies as many test images correctly as the run did."""
        return self.correct == self.correct_in_numpy


def read_run(folder: Path) -> FinishedRun:
    """Read the folder of a run and score its weights in NumPy.

    Raises:
        InputError: the log or the weights are missing or damaged, or no epoch was finished.
    """
    header, history = read_log(folder / "log.jsonl")
    if not history:
        raise InputError(f"no epoch is finished in {folder}/log.jsonl")
    path = folder / "weights.safetensors"
    weights = load_weights(path)
    if not belong_together(header, read_header(path)):
        raise InputError(f"log.jsonl and weights.safetensors in {folder} do not belong together")
    data = data_for(weights, header["data"])
    if header["images"] != data.images:
        raise InputError(
            f"{folder} was made with {header['images']} images, but {header['data']} now has"
            f" {data.images}"
        )
    labels = data.test_labels
    _, accuracy = evaluate_weights(weights, to_inputs(data.test_images), labels)
    return FinishedRun(
        folder,
        settings={"framework": header["framework"]}
        | header["config"]
        | {"data": header["data"], "images": header["images"]}
        | {f"version of {package}": number for package, number in header["versions"].items()},
        last=history[-1],
        median_seconds=statistics.median(r["seconds"] for r in history[1:] or history),
        images=len(labels),
        correct=round(history[-1]["test_accuracy"] * len(labels)),
        correct_in_numpy=round(accuracy * len(labels)),
    )


def table(runs: Sequence[FinishedRun]) -> str:
    """Return the results as a table, and the settings in which the runs differ."""
    lines = [
        f"{'run':20}  epochs  train loss  train accuracy  test loss  test accuracy"
        "  seconds/epoch  NumPy scores the same"
    ]
    for run in runs:
        last, answer = run.last, "yes" if run.agrees else "NO"
        lines.append(
            f"{run.folder!s:20}  {last['epoch']:6}  {last['train_loss']:10.4f}"
            f"  {last['train_accuracy']:14.4f}  {last['test_loss']:9.4f}"
            f"  {last['test_accuracy']:13.4f}  {run.median_seconds:13.2f}"
            f"  {answer}, {run.correct_in_numpy} of {run.images}"
        )
    names = dict.fromkeys(name for run in runs for name in run.settings if name != "out")
    for name in names:
        if name.startswith("version of") and not all(name in run.settings for run in runs):
            continue  # of a package of one framework
        values = [str(run.settings.get(name, "not known")) for run in runs]
        if len(set(values)) > 1:
            lines.append(f"the runs differ in {name}: {', '.join(values)}")
    if len(lines) == 1 + len(runs) and len(runs) > 1:
        lines.append("the runs differ in no setting")
    return "\n".join(lines)


def main() -> None:
    """Print the table. Exit with status 1 if NumPy scores any run differently."""
    with one_line_errors():
        config = parse(CompareConfig, "experiments.compare")
        runs = [read_run(folder) for folder in config.runs]
        show(table(runs))
    if not all(run.agrees for run in runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
