"""The commands: reading the flags, and what `train` and `evaluate` do in every framework."""

import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tyro
from tqdm import tqdm

from shared.checks import InputError
from shared.config import Config, EvaluateConfig
from shared.data import load, side_of, to_inputs
from shared.idx import Data
from shared.records import (
    EPOCH_HEADER,
    EpochRecord,
    TrainResult,
    epoch_line,
    open_log,
    slow_epochs_note,
    write_line,
)
from shared.weights import layer_sizes, load_weights, save_weights

# The packages whose versions go into the log of a run.
PACKAGES = {"torch": ("torch",), "jax": ("jax", "jaxlib", "flax", "optax")}

Settings = TypeVar("Settings")


def parse(
    settings: type[Settings], module: str, *, args: Sequence[str] | None = None, **defaults: Any
) -> Settings:
    """Read the command line into a dataclass.

    A wrong flag or value ends the process with status 2, after an explanation by tyro.

    Args:
        settings: the dataclass. Its fields are the flags.
        module: the command's module, for the line `usage: python -m MODULE`.
        args: the words of the command line, those of this process if None.
        defaults: defaults that differ for this command.
    """
    # If `defaults` is empty, a field without a default value becomes a required flag.
    default = settings(**defaults) if defaults else tyro.MISSING_NONPROP
    return tyro.cli(settings, prog=f"python -m {module}", args=args, default=default)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """On an InputError, print its message in one line on stderr and exit with status 2."""
    try:
        yield
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        raise SystemExit(2) from None


def train_main(
    framework: str,
    train: Callable[..., TrainResult],
    choose_device: Callable[[str], Any],
) -> None:
    """Run the train command of a framework.

    Args:
        framework: its name, torch or jax.
        train: `train` of that implementation.
        choose_device: raises InputError for a device that does not exist.
    """
    with one_line_errors():
        config = parse(Config, f"impls.{framework}.train", out=Path("runs") / framework)
        choose_device(config.device)  # now, because the log of an earlier run is overwritten below
        data = load(config.data, resize=config.resize)
        train_and_save(framework, train, config, data)
        print(f"wrote {config.out}/log.jsonl and {config.out}/weights.safetensors")


def train_and_save(
    framework: str, train: Callable[..., TrainResult], config: Config, data: Data
) -> TrainResult:
    """Train, print and log every epoch, and write the log and the weights into config.out.

    Args:
        framework: its name, torch or jax.
        train: `train` of that implementation.
        config: the settings.
        data: what to train on.

    Returns:
        What `train` returned.

    Raises:
        InputError: the log or the weights cannot be written.
    """
    with (
        open_log(framework, PACKAGES[framework], config, data) as log,
        tqdm(total=config.epochs, unit="epoch", disable=None) as bar,  # None: only on a terminal
    ):
        print(f"{framework}: {data.summary}\n{EPOCH_HEADER}", flush=True)

        def on_epoch(record: EpochRecord) -> None:
            write_line(log, record)
            bar.write(epoch_line(record))
            bar.update()

        result = train(config, data, on_epoch)
    try:
        save_weights(config.out / "weights.safetensors", result.weights)
    except OSError as error:
        raise InputError(f"cannot write the weights to {config.out}: {error}") from None
    if note := slow_epochs_note(result.history):
        print(note)
    return result


def evaluate_main(framework: str, evaluate_weights: Callable[..., tuple[float, float]]) -> None:
    """Run the evaluate command of a framework: print loss and accuracy on the test images.

    Args:
        framework: its name, torch, jax or numpy.
        evaluate_weights: the function of that name in that implementation.
    """
    with one_line_errors():
        config = parse(EvaluateConfig, f"impls.{framework}.evaluate")
        weights = load_weights(config.weights)
        data = data_for(weights, config.data)
        images, labels = to_inputs(data.test_images), data.test_labels
        loss, accuracy = evaluate_weights(weights, images, labels, config.device)
    correct = round(accuracy * len(labels))
    print(f"{framework}: {data.summary}")
    print(f"test loss {loss:.6f}  test accuracy {accuracy:.4f}  ({correct} of {len(labels)})")


def data_for(weights: Mapping[str, np.ndarray], name: str) -> Data:
    """Load data for a trained network, with the images in the size that it was trained on.

    Args:
        weights: the network's, as in a weight file.
        name: as in `shared.data.load`.

    Raises:
        InputError: the data cannot be had, or the network does not fit it.
    """
    inputs, *_, outputs = layer_sizes(weights)
    side = side_of(inputs)
    data = load(name)
    if data.test_images.shape[1] != side:
        data = load(name, resize=side)
    if outputs <= data.test_labels.max():
        raise InputError(
            f"the network has {outputs} outputs, but the labels go up to {data.test_labels.max()}"
        )
    return data
