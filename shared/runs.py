"""What a run is from outside: its records, its folder, its lines on the screen."""

import dataclasses
import json
import platform
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np
from tqdm import tqdm

from shared.config import Config, EvaluateConfig, InputError, one_line_errors, parse
from shared.data import load, side_of, to_inputs
from shared.weights import layer_sizes, load_weights, save_weights


class TrainResult(NamedTuple):
    """What `train` returns: one record per epoch, and the final weights as in a weight file."""

    history: list[dict[str, Any]]
    weights: dict[str, np.ndarray]


def epoch_record(
    epoch: int,
    losses: np.ndarray,
    correct: np.ndarray,
    test: tuple[float, float],
    *,
    n: int,
    batch_size: int,
    seconds: float,
) -> dict[str, Any]:
    """Make the record of an epoch, as it stands in log.jsonl.

    Args:
        epoch: counted from 1.
        losses, correct: mean loss and number of correct examples of each step, dropout on,
            shape (steps,).
        test: loss and accuracy on the test images, dropout off.
        n: training examples.
        batch_size: of all steps but the last, which has what is left.
        seconds: what the training pass took, evaluation not counted.
    """
    sizes = np.minimum(batch_size, n - batch_size * np.arange(len(losses)))
    return {
        "epoch": epoch,
        "train_loss": float(np.average(losses.astype(np.float64), weights=sizes)),
        "train_accuracy": int(correct.sum()) / n,
        "test_loss": test[0],
        "test_accuracy": test[1],
        "seconds": seconds,
    }


def train_main(
    name: str,
    packages: tuple[str, ...],
    train: Callable[..., TrainResult],
    choose_device: Callable[[str], Any],
) -> None:
    """Run a train command: read the flags, train, print a line and log a record per epoch.

    Args:
        name: of the implementation.
        packages: whose versions to log.
        train: takes a configuration, data, and what to call with each epoch's record.
        choose_device: raises InputError for a device that is not there.
    """
    with one_line_errors():
        config = parse(Config, out=Path("runs") / name)
        choose_device(config.device)  # before an older log is overwritten
        data = load(config.data, resize=config.resize)
        with (
            _open_log(config.out) as log,
            tqdm(total=config.epochs, unit="epoch", disable=None) as bar,
        ):
            print(f"{name}: {data.source}", flush=True)
            header = {
                "config": dataclasses.asdict(config) | {"out": str(config.out)},
                "versions": {p: version(p) for p in ("numpy", *packages)}
                | {"python": platform.python_version()},
                "data": data.source,
            }
            _write_line(log, header)

            def on_epoch(record: dict[str, Any]) -> None:
                _write_line(log, record)
                bar.write(epoch_line(record))
                bar.update()

            result = train(config, data, on_epoch)
        try:
            save_weights(config.out / "weights.safetensors", result.weights)
        except OSError as error:
            raise InputError(f"cannot write the weights to {config.out}: {error}") from None
        print(f"wrote {config.out}/log.jsonl and {config.out}/weights.safetensors")


def evaluate_main(name: str, evaluate_weights: Callable[..., tuple[float, float]]) -> None:
    """Run an evaluate command: read the flags, print loss and accuracy on the test images."""
    with one_line_errors():
        config = parse(EvaluateConfig)
        weights = load_weights(config.weights)
        images, labels, source = test_inputs(config.data, weights)
        loss, accuracy = evaluate_weights(weights, images, labels, config.device)
    correct = round(accuracy * len(labels))
    print(f"{name}: {source}")
    print(f"test loss {loss:.6f}  test accuracy {accuracy:.4f}  ({correct} of {len(labels)})")


def test_inputs(
    source: str, weights: Mapping[str, np.ndarray]
) -> tuple[np.ndarray, np.ndarray, str]:
    """Load test images of the size that these weights were trained on, and their labels."""
    inputs, outputs = layer_sizes(weights)[0], layer_sizes(weights)[-1]
    side = side_of(inputs)
    data = load(source)
    if data.test_images.shape[1] != side:
        data = load(source, resize=side)
    if outputs <= data.test_labels.max():
        raise InputError(f"a network of {inputs} inputs and {outputs} outputs does not fit")
    return to_inputs(data.test_images), data.test_labels, data.source


def epoch_line(record: Mapping[str, Any]) -> str:
    """Return the line that a person reads."""
    return (
        f"epoch {record['epoch']:3}"
        f"  train loss {record['train_loss']:.4f}  train accuracy {record['train_accuracy']:.4f}"
        f"  test loss {record['test_loss']:.4f}  test accuracy {record['test_accuracy']:.4f}"
        f"  {record['seconds']:.2f} s"
    )


def read_log(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the first line of a log.jsonl, and the list of its epochs' records."""
    try:
        header, *history = [json.loads(line) for line in path.read_text().splitlines()]
        str(header["config"]["data"])
        for record in history:
            epoch_line(record)
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not the log of a run: {error!r}") from None
    return header, history


def _open_log(folder: Path) -> TextIO:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return open(folder / "log.jsonl", "w")
    except OSError as error:
        raise InputError(f"cannot write to {folder}: {error}") from None


def _write_line(log: TextIO, record: dict[str, Any]) -> None:
    log.write(json.dumps(record) + "\n")
    log.flush()
