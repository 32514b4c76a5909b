"""The benchmarks run and measure what they say. No test here depends on how long anything takes."""

import json
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
import torch

import benchmarks.__main__
import benchmarks.until
import impls.jax.train
import impls.torch.train
from benchmarks.article import Article, Images
from benchmarks.programs import Setting, load_examples, number_of_calls, prepare
from benchmarks.timing import Worker, compare, run_in_turn, spread
from shared.config import Config
from shared.data import to_inputs

pytestmark = pytest.mark.usefixtures("quick_compilation", "restored_settings")


@pytest.fixture
def restored_settings():
    """Undo what programs set for their whole process: the precision, and in JAX the device."""
    precision = torch.get_float32_matmul_precision()
    names = ("jax_default_device", "jax_default_matmul_precision")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    torch.set_float32_matmul_precision(precision)
    for name, value in before.items():
        jax.config.update(name, value)


class FakeWorker(Worker):
    """A worker whose first run takes 1000 seconds, and each further run twice the one before."""

    def __init__(self, log: list[str], name: str, seconds: float) -> None:
        self.log, self.name, self.last = log, name, seconds
        self.is_first = True
        self.peak_mib = 5.0

    def seconds(self) -> float:
        self.log.append(self.name)
        if self.is_first:
            self.is_first = False
            return 1000.0
        self.last *= 2
        return self.last

    def close(self) -> None:
        self.log.append(f"{self.name} closed")


def test_ratios_are_taken_within_a_round():
    assert spread([3.0]) == (3.0, 3.0, 3.0)
    assert spread([1.0, 2.0, 3.0, 4.0, 100.0]) == (3.0, 2.0, 4.0)
    # The machine becomes ten times slower between the two programs of the second round.
    assert compare([1, 1, 10, 10], [2, 20, 20, 20]) == {
        "ratio": {"median": 0.5, "low": 0.3875, "high": 0.5},
        "seconds": {"median": 5.5, "low": 1, "high": 10},
        "other_seconds": 20,
    }
    ratio = compare([1.0, 2.0, 9.0], [1.0, 1.0, 1.0])["ratio"]
    assert ratio == {"median": 2.0, "low": 1.5, "high": 5.5}
    with pytest.raises(ValueError, match="zip"):
        compare([1.0], [1.0, 2.0])


def test_programs_take_turns_and_the_first_round_does_not_count():
    log: list[str] = []
    seconds = run_in_turn({"a": FakeWorker(log, "a", 1), "b": FakeWorker(log, "b", 4)}, rounds=2)
    assert log == ["a", "b", "a", "b", "a", "b", "a closed", "b closed"]
    assert seconds == {"a": [2, 4], "b": [8, 16]}


def test_workers_are_closed_when_one_fails():
    log: list[str] = []

    class Broken(FakeWorker):
        def seconds(self) -> float:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_in_turn({"a": FakeWorker(log, "a", 1), "b": Broken(log, "b", 1)}, rounds=1)
    assert log == ["a", "a closed", "b closed"]


def test_a_worker_times_its_program_and_measures_its_own_memory(small_folder):
    ballast = np.ones(2**27)  # a GiB in this process, which the worker must not count
    # This program starts processes itself. In this process, which runs JAX, Python would warn.
    worker = Worker("article, 4 workers", Setting(data=str(small_folder)))
    started = time.perf_counter()
    seconds = worker.seconds()
    assert 0 < seconds < time.perf_counter() - started
    assert 50 < worker.peak_mib < ballast.nbytes / 2**20
    worker.close()
    assert worker._process.returncode == 0


def test_a_worker_that_fails_says_so(capfd):
    with pytest.raises(RuntimeError, match="'no program' ended early"):
        Worker("no program", Setting())
    assert "KeyError: 'no program'" in capfd.readouterr().err


@pytest.mark.parametrize(
    "name",
    ["torch epoch", "torch loop, F.dropout", "article, 0 workers", "jax epoch", "nnx loop"],
)
def test_every_epoch_runs(name: str, small_folder):
    with jax.numpy_dtype_promotion("standard"):  # the metrics of flax do not run with "strict"
        run = prepare(name, Setting(data=str(small_folder)))
        run(0)
        run(1)


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_a_floor_runs_in_the_precision_of_its_setting(name: str, small_folder):
    run = prepare(f"{name} floor", Setting(data=str(small_folder), precision="medium"))
    run(0)
    run(1)
    if name == "torch":
        assert torch.get_float32_matmul_precision() == "medium"
    else:
        assert jax.config.jax_default_matmul_precision == "default"  # JAX's name for it


@pytest.mark.parametrize("name", ["torch dropout", "F.dropout", "jax dropout", "nnx.Dropout"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_every_operation_runs(name: str, dtype: str, monkeypatch):
    for module in ("on_torch", "on_jax"):
        monkeypatch.setattr(f"benchmarks.{module}.number_of_calls", lambda _: 2)
    prepare(name, Setting(size=64, dtype=dtype))(0)


def test_the_smaller_an_operation_the_more_often_it_is_called():
    assert [number_of_calls(size) for size in (256, 1024, 4096)] == [128, 8, 2]


@pytest.mark.parametrize("name", ["torch", "jax"])
def test_seeds_at_once_are_the_seeds_in_turn(name: str, small_folder):
    setting = Setting(data=str(small_folder), seeds=3)
    at_once, in_turn = (prepare(f"{name} seeds {how}", setting) for how in ("at once", "in turn"))
    for i in range(2):
        losses = at_once(i)
        assert losses.shape == (3, 3)
        np.testing.assert_allclose(losses, in_turn(i), rtol=1e-3)
    assert len(np.unique(losses[:, 0])) == 3, "the seeds do not differ"


def test_the_article_program_learns_and_is_scored_with_dropout_off(small_folder):
    torch.manual_seed(0)  # it draws from the global generator
    article = Article(str(small_folder), workers=0)
    for _ in range(20):
        article.train_epoch()
    first, second = article.test_accuracy(), article.test_accuracy()
    assert first == second, "dropout is on"
    assert first > 0.4
    assert article.net.is_training


def test_the_article_program_sees_the_same_pixels(small_data):
    image, label = Images(small_data.train_images, small_data.train_labels)[7]
    assert image.shape == (1, 28, 28)
    np.testing.assert_array_equal(image.reshape(-1), to_inputs(small_data.train_images[7:8])[0])
    assert label == small_data.train_labels[7]


@pytest.mark.parametrize(
    ("batch", "steps", "expected"),
    [(256, None, (600, 3)), (256, 2, (512, 2)), (64, 100, (600, 10))],
)
def test_examples_and_steps_of_a_run(batch, steps, expected, small_folder, small_data):
    setting = Setting(data=str(small_folder), batch=batch, steps=steps)
    images, labels, number_of_steps = load_examples(setting)
    assert (len(images), number_of_steps) == expected
    np.testing.assert_array_equal(images, to_inputs(small_data.train_images[: len(images)]))
    np.testing.assert_array_equal(labels, small_data.train_labels[: len(images)])


def three_accuracies(name: str, folder: str) -> list[float]:
    """Return the test accuracy after each of three epochs with the seed 0."""
    if name == "article":
        torch.manual_seed(0)
        article = Article(folder, workers=0)
        accuracies = []
        for _ in range(3):
            article.train_epoch()
            accuracies.append(article.test_accuracy())
        return accuracies
    train = {"torch": impls.torch.train.train, "jax": impls.jax.train.train}[name]
    return [record["test_accuracy"] for record in train(Config(epochs=3, data=folder)).history]


@pytest.mark.parametrize("name", ["torch", "jax", "article"])
def test_until_stops_at_the_first_epoch_that_reaches_the_goal(
    name: str, small_folder, monkeypatch, capsys
):
    accuracies = three_accuracies(name, str(small_folder))
    goal = accuracies[1]
    epoch = 1 if accuracies[0] >= goal else 2
    fields = json.dumps({"data": str(small_folder)})
    monkeypatch.setattr(sys, "argv", ["until", name, "0", str(goal), fields])
    benchmarks.until.main()
    assert json.loads(capsys.readouterr().out) == {
        "epoch": epoch, "test_accuracy": accuracies[epoch - 1],
    }  # fmt: skip
    monkeypatch.setattr(benchmarks.until, "MOST_EPOCHS", 1)
    monkeypatch.setattr(sys, "argv", ["until", name, "0", "1.1", fields])
    with pytest.raises(SystemExit, match=r"1\.1 was not reached in 1 epochs"):
        benchmarks.until.main()


def test_the_command_writes_tables_json_and_plots(small_folder, tmp_path, monkeypatch, capsys):
    settings: dict[str, list[Setting]] = {}

    def fake_worker(name: str, setting: Setting) -> FakeWorker:
        settings.setdefault(name, []).append(setting)
        return FakeWorker([], name, 1)

    monkeypatch.setattr(benchmarks.__main__, "Worker", fake_worker)
    out = tmp_path / "bench"
    words = ("--quick", "--data", str(small_folder), "--precision", "medium", "--out", str(out))
    only = ("--only", "operation", "epoch", "growth", "seeds")
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words, *only])
    benchmarks.__main__.main()
    written = json.loads((out / "benchmarks.json").read_text())
    assert list(written["results"]) == ["operation", "epoch", "growth", "seeds"]
    assert "torch" in written["machine"]["versions"]
    assert written["machine"]["rounds"] == "1; 1 runs to the goal"
    ratio = written["results"]["growth"][0]["ratio"]
    assert ratio == {"median": 1.0, "low": 1.0, "high": 1.0}
    text = (out / "benchmarks.md").read_text()
    assert "| torch dropout / F.dropout | 256 x 256, float32 | 1.00 (1.00 - 1.00) |" in text
    assert text.splitlines()[-1] in capsys.readouterr().out
    assert (out / "benchmarks.png").stat().st_size > 5000
    ours = Setting(data=str(small_folder), precision="medium")
    assert settings["torch epoch"][0] == settings["jax floor"][0] == ours
    assert settings["nnx loop"] == [Setting(data=str(small_folder))]
    assert [setting.seeds for setting in settings["jax seeds at once"]] == [1, 2]


def test_a_race_reports_both_programs(monkeypatch):
    class Result:
        returncode, stdout = 0, '{"epoch": 3, "test_accuracy": 0.9}'

    monkeypatch.setattr(subprocess, "run", lambda *_, **__: Result())
    rows = benchmarks.__main__.accuracy(benchmarks.__main__.BenchConfig(races=2))
    assert [row["what"] for row in rows] == [
        "torch / article, whole process", "jax / article, whole process",
    ]  # fmt: skip
    assert "epochs [3, 3] / [3, 3]" in rows[0]["at"]


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--rounds", "0"], "rounds and races must be at least 1"),
        (["--device", "cuda"], "error: no device 'cuda'"),
    ],
)
def test_bad_settings_end_with_status_2(words: list[str], error: str, monkeypatch, capsys):
    if "cuda" in words and torch.cuda.is_available():
        pytest.skip("there is a device")
    monkeypatch.setattr(sys, "argv", ["benchmarks", *words])
    with pytest.raises(SystemExit) as stop:
        benchmarks.__main__.main()
    assert stop.value.code == 2
    assert error in capsys.readouterr().err
