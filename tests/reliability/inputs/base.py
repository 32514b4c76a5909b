"""What most attempts start from: a folder of small data, a weight file, a finished run."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from shared.config import Config
from shared.idx import Data, write_folder
from shared.randomness import initial_weights
from shared.records import make_header
from shared.weights import to_bytes

SIDE = 4
SMALL = ("--hidden-1", "8", "--hidden-2", "8", "--epochs", "1")
MACHINE: Any = {"processor": "of a test", "device": "cpu", "threads": 1}
Change = Callable[[bytes], bytes]


def small_data(folder: Path, train: int = 20, test: int = 10, side: int = SIDE) -> Data:
    """Write a folder of IDX files, with a few images of random pixels."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (train + test, side, side), np.uint8)
    labels = np.arange(train + test) % 10
    data = Data(images[:train], labels[:train], images[train:], labels[train:], str(folder))
    write_folder(folder, data)
    return data


def weights(side: int = SIDE) -> dict[str, np.ndarray]:
    """Return the weights of a small network."""
    return initial_weights(side**2, 8, 8, 10, seed=0)


def finished_run(folder: Path, data: Data) -> None:
    """Write what a finished run leaves behind, with the weights it started from."""
    folder.mkdir()
    header = make_header("torch", ("torch",), Config(epochs=1, out=folder), data, MACHINE)
    record = {
        "epoch": 1, "train_loss": 2.3, "train_accuracy": 0.1, "test_loss": 2.3,
        "test_accuracy": score(data), "seconds": 0.1,
    }  # fmt: skip
    (folder / "log.jsonl").write_text(f"{json.dumps(header)}\n{json.dumps(record)}\n")
    config = {name: value for name, value in header["config"].items() if name != "out"}
    metadata = {"header": json.dumps({**header, "config": config})}
    (folder / "weights.safetensors").write_bytes(to_bytes(weights(), metadata))


def score(data: Data) -> float:
    """Return the accuracy of these weights."""
    from impls.numpy.evaluate import evaluate_weights
    from shared.data import to_inputs

    return evaluate_weights(weights(), to_inputs(data.test_images), data.test_labels)[1]


def flipped(content: bytes, bit: int) -> bytes:
    """Return the content with one bit changed."""
    changed = bytearray(content)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)
