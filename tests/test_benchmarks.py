"""The benchmarks run and compute what they say. Nothing here asserts a time."""

import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import torch

import benchmarks.__main__
import benchmarks.programs
import benchmarks.until
from benchmarks.article import Images, program
from benchmarks.programs import PROGRAMS, first_steps, make_ready
from benchmarks.timing import Worker, in_turn, ratios, spread
from impls.jax.train import train
from shared.config import Config
from shared.data import to_inputs

pytestmark = pytest.mark.usefixtures("quick_compilation")
EPOCHS = [name for name in PROGRAMS if "dropout" not in name.lower() and "keras" not in name]


class FakeWorker(Worker):
    """A worker that takes as long as its name says, doubled every round, and slow at first."""

    def __init__(self, log: list[str], name: str, base: float):
        self.log, self.name, self.next, self.first = log, name, base, True
        self.peak_mib = 5.0

    def seconds(self) -> float:
        self.log.append(self.name)
        if self.first:
            self.first = False
            return 1000.0
        self.next *= 2
        return self.next

    def close(self) -> None:
        self.log.append(f"{self.name} closed")


def test_ratios_are_taken_within_a_round():
    # The machine becomes ten times slower half-way: a ratio of medians would not be 0.5.
    assert ratios([1, 1, 10, 10], [2, 2, 20, 20]) == (0.5, 0.5, 0.5)
    assert ratios([1.0, 2.0, 9.0], [1.0, 1.0, 1.0]) == (2.0, 1.5, 5.5)
    assert spread([3.0]) == (3.0, 3.0, 3.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 100.0]) == (3.0, 2.0, 4.0)
    with pytest.raises(ValueError, match="zip"):
        ratios([1.0], [1.0, 2.0])


def test_programs_take_turns_and_the_first_round_does_not_count():
    log: list[str] = []
    taken = in_turn({"a": FakeWorker(log, "a", 1), "b": FakeWorker(log, "b", 4)}, rounds=2)
    assert log == ["a", "b", "a", "b", "a", "b", "a closed", "b closed"]
    assert taken == {"a": [2, 4], "b": [8, 16]}
    assert benchmarks.__main__.compared(taken["a"], taken["b"]) == {
        "ratio": {"median": 0.25, "low": 0.25, "high": 0.25},
        "seconds": {"median": 3, "low": 2, "high": 4},
        "other_seconds": 12,
    }


def test_workers_are_closed_when_one_fails():
    log: list[str] = []

    class Broken(FakeWorker):
        def seconds(self) -> float:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        in_turn({"a": FakeWorker(log, "a", 1), "b": Broken(log, "b", 1)}, rounds=1)
    assert log == ["a", "a closed", "b closed"]


def test_a_worker_is_a_process_that_times_its_program(small_folder):
    worker = Worker("torch floor", data=str(small_folder), steps=2)
    before = time.perf_counter()
    seconds = worker.seconds()
    assert 0 < seconds < time.perf_counter() - before
    assert worker.peak_mib > 50
    worker.close()
    assert worker._process.returncode == 0


def test_the_peak_of_memory_is_the_workers_own(small_folder):
    ballast = np.ones(2**27)  # a GiB, in the parent
    worker = Worker("torch floor", data=str(small_folder), steps=2)
    worker.close()
    assert 50 < worker.peak_mib < ballast.nbytes / 2**20


def test_the_article_program_runs_with_workers_of_its_own(small_folder):
    worker = Worker("article, 4 workers", data=str(small_folder))  # JAX must not see a fork
    assert worker.seconds() > 0
    worker.close()


def test_a_worker_that_fails_says_so(capfd):
    with pytest.raises(RuntimeError, match="'torch floor' ended early"):
        Worker("torch floor", data="/nowhere")
    assert "/nowhere" in capfd.readouterr().err


@pytest.mark.parametrize("name", [n for n in EPOCHS if "seeds" not in n and "4 workers" not in n])
def test_every_epoch_runs(name: str, small_folder, monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)  # of a process of its own
    with jax.numpy_dtype_promotion("standard"):  # flax's metrics count on it
        run = make_ready(name, data=str(small_folder))
        run(0)
        run(1)


@pytest.mark.parametrize("name", ["torch dropout", "F.dropout", "jax dropout", "nnx.Dropout"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_operation_runs(name: str, dtype: str, monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    make_ready(name, size=512, dtype=dtype)(0)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_seeds_at_once_are_the_seeds_in_turn(name: str, small_folder, monkeypatch):
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    at_once, in_a_row = (
        make_ready(f"{name} seeds {how}", seeds=3, data=str(small_folder))
        for how in ("at once", "in turn")
    )
    for i in range(2):
        a, b = at_once(i), in_a_row(i)
        assert a.shape == (3, 3)
        np.testing.assert_allclose(a, b, rtol=1e-3)
    assert len(np.unique(a[:, 0])) == 3, "the seeds do not differ"


def test_the_step_of_the_graph_trains_as_the_epoch_does(small_folder):
    plain, graph = (
        make_ready(f"torch epoch{form}", data=str(small_folder)) for form in ("", ", graph")
    )
    for i in range(2):  # 600 examples: two full batches and a short one
        np.testing.assert_array_equal(graph(i), plain(i))


def test_the_article_program_learns_and_is_scored_with_dropout_off(small_folder):
    torch.manual_seed(0)  # it draws from the global generator
    net, epoch, accuracy = program(str(small_folder), 0)
    for _ in range(20):
        epoch()
    first, second = accuracy(), accuracy()
    assert first == second, "dropout is on"
    assert first > 0.4
    assert net.is_training


def test_steps_and_examples(small_data):
    assert first_steps(small_data, 256, None) == (600, 3)
    assert first_steps(small_data, 256, 2) == (512, 2)
    assert first_steps(small_data, 64, 100) == (600, 10)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_until_stops_at_the_first_epoch_that_reaches_the_goal(name, small_folder, monkeypatch):
    monkeypatch.setattr(benchmarks.until, "MOST_EPOCHS", 4)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    folder = str(small_folder)
    import impls.torch.train

    run = {"torch": impls.torch.train.train, "jax": train}[name]
    scores = [r["test_accuracy"] for r in run(Config(epochs=4, data=folder)).history]
    goal = scores[1]
    record = benchmarks.until.train_until(name, 0, goal, folder, "cpu", "highest")
    assert record is not None
    assert record["epoch"] == next(i for i, a in enumerate(scores, 1) if a >= goal)
    assert benchmarks.until.train_until(name, 0, 1.1, folder, "cpu", "highest") is None


def test_the_command_writes_tables_json_and_plots(small_folder, tmp_path, monkeypatch, capsys):
    log: list[str] = []
    monkeypatch.setattr(benchmarks.__main__, "Worker", lambda name, **_: FakeWorker(log, name, 1))
    out = tmp_path / "bench"
    words = ("benchmarks", "--quick", "--data", str(small_folder))
    more = ("--out", str(out), "--only", "operation", "epoch", "growth", "seeds")
    monkeypatch.setattr(sys, "argv", [*words, *more])
    benchmarks.__main__.main()
    kept = json.loads((out / "benchmarks.json").read_text())
    assert list(kept["results"]) == ["operation", "epoch", "growth", "seeds"]
    assert "torch" in kept["machine"]["versions"]
    assert kept["machine"]["rounds"] == "1; 1 runs to the goal"
    ratio = kept["results"]["growth"][0]["ratio"]
    assert ratio == {"median": 1.0, "low": 1.0, "high": 1.0}
    text = (out / "benchmarks.md").read_text()
    assert "| torch dropout / F.dropout | 256 x 256, float32 | 1.00 (1.00 - 1.00) |" in text
    assert text.splitlines()[-1] in capsys.readouterr().out
    assert (out / "benchmarks.png").stat().st_size > 5000


def test_a_race_reports_both_programs(tmp_path, monkeypatch):
    class Result:
        returncode, stdout = 0, '{"epoch": 3, "test_accuracy": 0.9}'

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Result())
    rows = benchmarks.__main__.accuracy(benchmarks.__main__.BenchConfig(races=2))
    assert [row["what"] for row in rows] == [
        "torch / article, whole process", "jax / article, whole process",
    ]  # fmt: skip
    assert "epochs [3, 3] / [3, 3]" in rows[0]["at"]


@pytest.mark.parametrize(
    ("words", "error"), [(["--rounds", "0"], "rounds"), (["--device", "cuda"], "no device 'cuda'")]
)
def test_bad_settings_are_one_line(words: list[str], error: str, monkeypatch, capsys):
    if error.startswith("no device") and torch.cuda.is_available():
        pytest.skip("there is a device")
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as stop:
        benchmarks.__main__.main()
    assert stop.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {error}")


def test_the_article_sees_the_same_pixels(small_data):
    image, label = Images(small_data.train_images, small_data.train_labels)[7]
    assert image.shape == (1, 28, 28)
    np.testing.assert_array_equal(image.reshape(-1), to_inputs(small_data.train_images[7:8])[0])
    assert label == small_data.train_labels[7]
