"""Lay finished runs side by side, and score the weights of each again in NumPy.

python -m experiments.compare runs/torch runs/jax
"""

import dataclasses
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import tyro

from impls.numpy.evaluate import evaluate
from impls.numpy.mlp import MLP
from shared.checks import InputError
from shared.cli import evaluation, one_line_errors, parse
from shared.config import Config
from shared.records import EpochRecord, Header, read_log
from shared.weights import read_file

CHANCE = "two seeds can differ by points of accuracy"
CHANCE_IN_ARTICLE = (
    "five seeds of the article's settings, in both frameworks, gave accuracies from 0.82 to 0.87"
)


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
    parts: dict[str, dict[str, Any]]  # the settings of the epochs `1 to 4`, of `5 to 10`, ...
    history: list[EpochRecord]
    images: int  # in the test
    correct_in_numpy: int

    @property
    def settings(self) -> dict[str, Any]:
        """What the last epochs were made with."""
        return list(self.parts.values())[-1]

    @property
    def median_seconds(self) -> float:
        """The seconds of an epoch, without the first, which may include compilation."""
        return statistics.median(r["seconds"] for r in self.history[1:] or self.history)

    @property
    def agrees(self) -> bool:
        """Whether NumPy classifies as many test images correctly as the run did."""
        return round(self.history[-1]["test_accuracy"] * self.images) == self.correct_in_numpy


def read_run(folder: Path) -> FinishedRun:
    """Read the folder of a run and score its weights in NumPy.

    Raises:
        InputError: the log or the weights cannot be read or do not belong together, or the data is
            not there any more.
    """
    path = folder / "log.jsonl"
    headers, history = read_log(path)
    if not history:
        raise InputError(f"no epoch is finished in {path}")
    weights, metadata = read_file(folder / "weights.safetensors")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    try:
        same = _without_folder(json.loads(metadata["log"])) == _without_folder(lines)
    except (ValueError, KeyError, TypeError, RecursionError):
        same = False
    if not same:
        raise InputError(f"log.jsonl and weights.safetensors in {folder} do not belong together")
    tested = evaluation(weights, headers[-1]["data"])
    if tested.data.sha256 != headers[-1]["sha256"]:
        raise InputError(f"{folder} was made with other images than {tested.data.name} now holds")
    model = MLP(*tested.sizes)
    model.set_weights(weights)
    _, accuracy = evaluate(model, tested.images, tested.labels)
    images = len(tested.labels)
    return FinishedRun(folder, _parts(lines), history, images, round(accuracy * images))


def _without_folder(lines: list[Any]) -> list[Any]:
    """Return the headers of a log, without what differs if the same run is made elsewhere."""
    return [{**h, "config": {**h["config"], "out": ""}} for h in lines if "epoch" not in h]


def _parts(lines: list[Any]) -> dict[str, dict[str, Any]]:
    """Return the settings of each part of a run, by its epochs."""
    parts: list[tuple[Header, list[int]]] = []
    for line in lines:
        if "epoch" in line:
            parts[-1][1].append(line["epoch"])
        else:
            parts.append((line, []))
    return {f"{of[0]} to {of[-1]}": _settings(header) for header, of in parts if of}


def _settings(header: Header) -> dict[str, Any]:
    """Return everything that sets a run apart, but for its folder."""
    versions = {f"version of {package}": number for package, number in header["versions"].items()}
    machine = header["machine"] | {"device": header["machine"]["device"].removesuffix(":0")}
    found = {"framework": header["framework"], **header["config"], **machine, **versions}
    data = {"data": header["data"], "images": header["images"], "sha256": header["sha256"][:12]}
    return {name: value for name, value in (found | data).items() if name != "out"}


def differences(settings: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, list[str]]]:
    """Yield the name of each setting that is not the same everywhere, and its values."""
    frameworks = {some["framework"] for some in settings}
    for name in dict.fromkeys(name for some in settings for name in some):
        values = [str(some.get(name, "not set")) for some in settings]
        of_one_framework = name.startswith("version of") and "not set" in values
        if len(set(values)) > 1 and not (of_one_framework and len(frameworks) > 1):
            yield name, values


def chance(runs: Sequence[FinishedRun]) -> str | None:
    """Return how much two seeds differ, if no two of the runs are seeds of the same settings."""
    settings = [run.settings for run in runs]
    sides = {str({**some, "seed": None}) for some in settings}
    if not 1 < len(runs) == len(sides):
        return None
    article = {
        field.name: field.default for field in dataclasses.fields(Config)
        if field.name not in ("seed", "out", "device", "data")
    } | {"data": "full"}  # fmt: skip
    known = any(some | article == some for some in settings)
    return (
        f"one seed each: {CHANCE_IN_ARTICLE if known else CHANCE}. To see more than chance, train "
        "each with several --seed, or run python -m experiments.article --seeds 5"
    )


def table(runs: Sequence[FinishedRun]) -> str:
    """Return the results, the settings in which the runs differ, and what chance does."""
    lines = [
        f"{'run':20}  epochs  train loss  train accuracy  test loss  test accuracy"
        "  seconds/epoch  NumPy scores the same"
    ]
    for run in runs:
        last, answer = run.history[-1], "yes" if run.agrees else "NO"
        lines.append(
            f"{run.folder!s:20}  {last['epoch']:6}  {last['train_loss']:10.4f}"
            f"  {last['train_accuracy']:14.4f}  {last['test_loss']:9.4f}"
            f"  {last['test_accuracy']:13.4f}  {run.median_seconds:13.2f}"
            f"  {answer}, {run.correct_in_numpy} of {run.images}"
        )
    for run in runs:
        for name, values in differences(list(run.parts.values())):
            made = (f"{value} ({of})" for of, value in zip(run.parts, values, strict=True))
            lines.append(f"the epochs of {run.folder} differ in {name}: {', '.join(made)}")
    found = list(differences([run.settings for run in runs]))
    lines += [f"the runs differ in {name}: {', '.join(values)}" for name, values in found]
    if not found and len(runs) > 1:
        lines.append("the runs differ in no setting")
    if found and (words := chance(runs)):
        lines.append(words)
    return "\n".join(lines)


def main(args: Sequence[str] | None = None) -> None:
    """Print the table. Exit with status 1 if NumPy scores any run differently."""
    with one_line_errors():
        config = parse(CompareConfig, "experiments.compare", args)
        runs = [read_run(folder) for folder in config.runs]
        print(table(runs))
    if not all(run.agrees for run in runs):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
