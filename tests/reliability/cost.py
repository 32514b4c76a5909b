"""Time what a checkpoint after each epoch costs."""

import importlib
import statistics
import tempfile
import time
from itertools import pairwise
from pathlib import Path

from shared.config import RunConfig
from shared.data import load
from shared.folder import RunFolder
from shared.records import EpochRecord, make_header


def measure(framework: str, epochs: int) -> dict[str, float]:
    """Train on the article's settings, and time the checkpoints.

    Returns:
        The median seconds of an epoch with its evaluation, and of the checkpoint behind it.
    """
    train = importlib.import_module(f"impls.{framework}.train").train
    describe = importlib.import_module(f"impls.{framework}.runtime").describe
    data = load("auto")
    times: list[float] = [time.perf_counter()]
    with tempfile.TemporaryDirectory() as name:
        config = RunConfig(epochs=epochs, out=Path(name))
        header = make_header(framework, (), config, data, describe(config.device))
        with RunFolder(config, header) as folder:

            def on_epoch(record: EpochRecord, get_weights) -> None:
                times.append(time.perf_counter())
                folder.add(record, get_weights())
                times.append(time.perf_counter())

            train(config, data, on_epoch)
    steps = [b - a for a, b in pairwise(times)]
    return {
        "images": len(data.train_images),
        "epoch": statistics.median(steps[2::2]),  # not the first, which may be compiled
        "checkpoint": statistics.median(steps[3::2]),
    }
