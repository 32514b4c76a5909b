"""What is in the log of a run, when it is there, and what `compare` reads from it."""

import math
import os
import signal
from pathlib import Path

import pytest

import experiments.compare
from experiments.compare import FinishedRun, read_run
from shared.cli import train_and_save
from shared.config import Config, RunConfig
from shared.data import load
from shared.randomness import initial_weights
from shared.records import Machine, make_header, write_line
from shared.weights import save_weights

MACHINE: Machine = {"processor": "of a test", "device": "cpu", "threads": 1}


def record(epoch: int, accuracy: float, seconds: float, **changes):
    return {
        "epoch": epoch, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0,
        "test_accuracy": accuracy, "seconds": seconds, **changes,
    }  # fmt: skip


@pytest.fixture
def folder(small_folder, tmp_path):
    out = tmp_path / "run"
    data = load(str(small_folder))
    config = Config(out=out, data="auto")  # which was the small folder then
    out.mkdir()
    with (out / "log.jsonl").open("w") as log:
        write_line(log, make_header("torch", ("torch",), config, data, MACHINE))
        # 57 / 200 * 200 is less than 57 in floating point.
        for epoch, accuracy, seconds in (
            (1, 1.0, 90.0), (2, 0.0, 1.0), (3, 1.0, 3.0), (4, 1.0, 4.0), (5, 57 / 200, 8.0),
        ):  # fmt: skip
            write_line(log, record(epoch, accuracy, seconds))
    save_weights(out / "weights.safetensors", initial_weights(784, 16, 16, 10, seed=0))
    return out


def test_a_run_is_its_last_epoch_and_the_median_of_its_seconds(folder, monkeypatch):
    assert int(57 / 200 * 200) == 56
    monkeypatch.setattr(experiments.compare, "evaluate_weights", lambda *_: (1.0, 57 / 200))
    run = read_run(folder)
    assert run.last["epoch"] == 5
    assert run.median_seconds == 3.5  # of 1, 3, 4 and 8: not the least, nor the mean, nor the most
    assert (run.images, run.correct, run.correct_in_numpy) == (200, 57, 57)
    assert "       5 " in experiments.compare.table([run])


def test_one_image_more_or_less_is_no_agreement():
    run = FinishedRun(Path("run"), {}, record(1, 0.8, 1.0), 1.0, 10_000, 8000, 8000)
    assert run.agrees
    assert not run._replace(correct_in_numpy=7999).agrees
    assert not run._replace(correct_in_numpy=8001).agrees


def test_the_log_is_always_json(folder):
    with (folder / "log.jsonl").open("a") as log, pytest.raises(ValueError, match="not JSON"):
        write_line(log, record(6, 0.1, 1.0, train_loss=math.nan))


def test_the_log_of_a_run_is_in_the_file_while_it_runs(tmp_path, small_data, capsys):
    config = RunConfig(out=tmp_path / "run")
    log = config.out / "log.jsonl"

    def train(config, data, on_epoch, start):
        assert log.read_text().count("\n") == 1, "the header is not in the file"
        on_epoch(record(1, 0.5, 1.0), lambda: initial_weights(784, 16, 16, 10, seed=0))
        assert log.read_text().count("\n") == 2, "the epoch is not in the file"
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as stopped:
        train_and_save("torch", train, config, small_data, MACHINE)
    assert stopped.value.code == 130
    names = sorted(path.name for path in config.out.iterdir())
    assert names == [".lock", "checkpoint.safetensors", "log.jsonl"]


def test_a_line_of_the_log_is_written_at_once():
    calls = []

    class Log:
        def write(self, text):
            calls.append(text)

        def flush(self):
            calls.append("flush")

    write_line(Log(), {"epoch": 1})
    assert calls == ['{"epoch": 1}\n', "flush"]
