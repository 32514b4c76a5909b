"""What a log holds, and what is said of it."""

import json
import math

import numpy as np
import pytest

from shared.checks import InputError
from shared.config import Config, RunConfig
from shared.records import DivergedError, epoch_record, make_header, read_log, slow_epochs_note


def record(epoch: int, accuracy: float, seconds: float, **changes):
    return {
        "epoch": epoch, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0,
        "test_accuracy": accuracy, "seconds": seconds, **changes,
    }  # fmt: skip


def test_a_record_weighs_each_batch_by_its_size():
    losses, correct = np.float32([1.0, 2.0, 4.0]), np.array([3, 2, 1])
    made = epoch_record(7, losses, correct, (0.5, 0.25), examples=10, batch_size=4, seconds=1.5)
    assert made == {
        "epoch": 7, "train_loss": (4 * 1 + 4 * 2 + 2 * 4) / 10, "train_accuracy": 0.6,
        "test_loss": 0.5, "test_accuracy": 0.25, "seconds": 1.5,
    }  # fmt: skip


@pytest.mark.parametrize("loss", [math.inf, math.nan])
def test_a_loss_that_is_no_number_ends_a_run(loss: float):
    with pytest.raises(DivergedError, match=f"the loss is {loss} at step 5, in epoch 2"):
        epoch_record(2, np.array([1, 1, loss]), np.ones(3), (1.0, 0.1), 3, 1, 0.1)
    with pytest.raises(DivergedError, match=f"the loss is {loss} on the test images, after epoch"):
        epoch_record(3, np.ones(1), np.ones(1), (loss, 0.1), 1, 1, 0.1)


def test_the_header_holds_every_setting_and_what_rounding_depends_on(small_data, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setenv("ATEN_CPU_CAPABILITY", "avx2")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    header = make_header("jax", RunConfig(lr=0.1), small_data, "cpu:0")
    assert header["config"] == {**Config(lr=0.1).__dict__, "out": "runs/run"}
    assert header["machine"]["OMP_NUM_THREADS"] == "3"
    assert header["machine"]["ATEN_CPU_CAPABILITY"] == "avx2"
    assert "MKL_NUM_THREADS" not in header["machine"]
    assert {"python", "numpy", "jax", "jaxlib", "flax", "optax"} == set(header["versions"])


def test_a_log_that_cannot_be_read_says_why(small_data, tmp_path):
    header, log = make_header("torch", Config(), small_data, "cpu"), tmp_path / "log.jsonl"
    for lines, complaint in (
        ([record(1, 0.5, 1.0)], "does not start with a header"),
        ([header, record(2, 0.5, 1.0)], "epoch 1 is missing or impossible"),
        ([header, record(1, 0.5, 1.0), record(1, 0.5, 1.0)], "epoch 2 is missing"),
        ([header, record(1, 0.5, math.nan)], "seconds is nan"),
        ([header, record(1, 0.5, 1.0, train_loss=10**400)], "train_loss is 1000"),
        ([header, record(1, 1.5, 1.0)], "impossible"),
        ([header | {"data": []}], r"data is \[\]"),
    ):
        log.write_text("\n".join(map(json.dumps, lines)))
        with pytest.raises(InputError, match=complaint):
            read_log(log)
    with pytest.raises(
        InputError, match=r"there is no .* Name a folder that a train command wrote"
    ):
        read_log(tmp_path / "none")
    with pytest.raises(InputError, match=r"cannot read .*: Is a directory"):
        read_log(tmp_path)


def test_a_run_slower_than_its_own_quickest_epochs_says_so(monkeypatch):
    def epochs_of(*seconds: float):
        return [record(i, 0.5, s) for i, s in enumerate(seconds, 1)]

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    note = slow_epochs_note(epochs_of(9.0, 1.0, 3.0, 2.5), "torch")
    assert "the quickest epoch took 1.00 s, the mean 2.17 s" in note
    assert "OMP_NUM_THREADS=1" in note
    assert "OMP" not in slow_epochs_note(epochs_of(9.0, 1.0, 3.0, 2.5), "jax")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP" not in slow_epochs_note(epochs_of(9.0, 1.0, 3.0, 2.5), "torch")
    assert slow_epochs_note(epochs_of(9.0, 1.0, 1.5, 1.2), "torch") is None  # the first may compile
    assert slow_epochs_note(epochs_of(9.0, 1.0), "torch") is None
