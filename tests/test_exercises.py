"""The exercises: how their networks are trained and kept, their statistics, and their pages."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import __main__ as command
from experiments.exercises import EXERCISES
from experiments.study import on_jax, on_torch, report, runs
from experiments.study.paired import Difference, interval, needed, paired, signs, verdict
from experiments.study.runs import Setting, Store, Study, run_all, train
from shared.config import Config
from shared.data import load
from tests.adapters import Adapter

ROOT = Path(__file__).parents[1]
ANSWERS = ROOT / "docs" / "exercises"
TINY = Setting(
    data="sample", images=600, epochs=2, lr=0.1, hidden_1=16, hidden_2=12, batch_size=100
)


def test_plain_training_is_that_of_the_lesson(trainable: Adapter):
    ours = train(TINY.but(framework=trainable.name, seed=3))
    config = Config(epochs=2, lr=0.1, hidden_1=16, hidden_2=12, batch_size=100, seed=3)
    data = load("sample")
    images, labels = data.train_images[:600], data.train_labels[:600]
    data = dataclasses.replace(data, train_images=images, train_labels=labels)
    history, _ = trainable.run(config, data)
    for curve in runs.CURVES:
        np.testing.assert_allclose(ours[curve], [r[curve] for r in history], rtol=1e-5)


@pytest.mark.parametrize(
    "changes",
    [{"weight_decay": 0.01}, {"max_norm": 0.5}, {"copies": 3}, {"random_labels": True}],
    ids=str,
)
def test_frameworks_agree_on_what_the_exercises_add(changes: dict):
    # Without dropout nothing is random but what both share, so only rounding differs.
    setting = TINY.but(p1=0.0, p2=0.0, **changes)
    ours, theirs = (train(setting.but(framework=framework)) for framework in ("torch", "jax"))
    plain = train(TINY.but(p1=0.0, p2=0.0))
    for curve in ("train_loss", "train_accuracy", "test_loss"):
        np.testing.assert_allclose(ours[curve], theirs[curve], rtol=1e-4)
    same = np.allclose(ours["test_loss"], plain["test_loss"], rtol=1e-5)
    assert same == ("copies" in changes)  # without masks, copies change nothing


def test_max_norm_limits_every_unit(trainable: Adapter):
    added = {"torch": on_torch, "jax": on_jax}[trainable.name]
    arrays = runs.arrays("sample", 600, False)
    model, optimizer, data = added.prepare(TINY.but(max_norm=0.3), arrays)
    next(trainable.train.train(model, optimizer, data, Config(batch_size=100)))
    weights = [w for name, w in model.get_weights().items() if name.endswith("weight")]
    longest = max(np.linalg.norm(weight, axis=1).max() for weight in weights)
    assert longest == pytest.approx(0.3, rel=1e-5)


@pytest.mark.slow
def test_noise_is_used_in_training_and_not_in_evaluation(trainable: Adapter):
    still = TINY.but(framework=trainable.name, lr=0.0, epochs=1)
    noises = ("dropout", "dropconnect", "masks-2", "gaussian")
    drawn = [train(still.but(noise=noise)) for noise in noises]
    drawn.append(train(still.but(copies=2)))
    plain = [train(still.but(noise=noise, p1=0.0, p2=0.0)) for noise in noises[:2]]
    # Each draws something else, without noise all are the same network, and so they are at the end.
    assert len({run["train_loss"][0] for run in (*drawn, plain[0])}) == len(noises) + 2
    np.testing.assert_allclose(plain[1]["train_loss"], plain[0]["train_loss"], rtol=1e-5)
    for run in drawn:
        np.testing.assert_allclose(run["test_loss"], plain[0]["test_loss"], rtol=1e-5)


def test_schedules_reach_the_network(trainable: Adapter):
    setting = TINY.but(framework=trainable.name)
    off = train(setting.but(p1=0.0, p2=0.0))["train_loss"]
    late = train(setting.but(schedule="late", schedule_epochs=1))["train_loss"]
    early = train(setting.but(schedule="early", schedule_epochs=1))["train_loss"]
    on = train(setting)["train_loss"]
    assert late[0] == pytest.approx(off[0], rel=1e-5)
    assert late[1] != pytest.approx(off[1], rel=1e-5)
    assert early[0] == pytest.approx(on[0], rel=1e-5)
    assert early[1] != pytest.approx(on[1], rel=1e-5)


def test_early_and_late_dropout_follow_their_schedules():
    early = Setting(p1=0.2, p2=0.4, schedule="early", schedule_epochs=4)
    rates = [early.rates(epoch) for epoch in range(1, 7)]
    np.testing.assert_allclose([r[1] for r in rates], [0.4, 0.3, 0.2, 0.1, 0, 0])
    np.testing.assert_allclose([r[0] for r in rates], [0.2, 0.15, 0.1, 0.05, 0, 0])
    late = early.but(schedule="late")
    assert [late.rates(epoch)[1] for epoch in range(1, 7)] == [0, 0, 0, 0, 0.4, 0.4]
    assert Setting().rates(1) == Setting().rates(99) == (0.2, 0.5)


def test_jax_compiles_nothing_anew_for_another_learning_rate_or_decay():
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, seconds, **_: compiled.append(event) if "backend_compile" in event else None
    )
    setting = TINY.but(framework="jax", hidden_1=17)
    train(setting)
    assert compiled
    compiled.clear()
    train(setting.but(lr=0.2, weight_decay=0.1, seed=1))
    jax.monitoring.clear_event_listeners()
    assert not compiled


def test_a_run_that_diverges_is_a_result(trainable: Adapter):
    run = train(TINY.but(framework=trainable.name, lr=1e20, epochs=3, noise="gaussian"))
    assert run["train_loss"] == run["test_loss"] == [None] * 3
    assert run["test_accuracy"] == [0.1] * 3  # always the first class
    assert run["fit_loss"] is None
    assert np.isnan(runs.final([run], "test_loss")).all()
    assert runs.final([run]) == pytest.approx(0.1)


def test_random_labels_are_even_and_belong_to_the_seed():
    labels = runs.random_labels(100_000, 1)
    assert set(np.bincount(labels) // 1000) <= {9, 10}  # 10,000 each, and 10 standard deviations
    np.testing.assert_array_equal(labels, runs.random_labels(100_000, 1))
    assert (labels == runs.random_labels(100_000, 2)).mean() < 0.2


def test_a_study_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch, capsys):
    settings = [TINY.but(seed=seed) for seed in range(4)]
    made = []

    def fake(setting):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(setting.seed)
        return {"setting": json.loads(setting.key), "value": setting.seed}

    monkeypatch.setattr(runs, "train", fake)
    path = tmp_path / "runs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_all(Store(path), settings, "", 0)
    path.write_text(path.read_text() + '[]\n{"setting": {"fram')  # the last line was cut off, too
    done = made.copy()
    made.clear()
    run_all(Store(path), settings, "", 0)
    assert capsys.readouterr().err.count("is no run") == 2
    assert (done, made) == ([0, 1], [2, 3])
    assert [Store(path).runs[s.key]["value"] for s in settings] == [0, 1, 2, 3]
    run_all(Store(path), settings, "", 0)  # nothing is left to do
    assert made == [2, 3]


def test_validation_never_sees_the_test_images():
    train_images, _, held_out, _ = runs.arrays("sample", None, True)
    every, _, test, _ = runs.arrays("sample", None, False)
    np.testing.assert_array_equal(np.concatenate([train_images, held_out]), every)
    assert len(train_images) == len(every) * 5 // 6
    assert len(test) == 2000


def gone(group: int) -> None:
    """Wait until no process of a group is left."""
    for _ in range(200):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.05)
    os.killpg(group, signal.SIGKILL)
    pytest.fail("it left processes behind")


@pytest.mark.slow
def test_sigterm_and_ctrl_c_say_in_one_line_how_to_go_on_and_leave_no_process(tmp_path: Path):
    # Whatever the process that runs the tests does with Ctrl-C, this one starts as in a shell.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "experiments", "rates",
               "--quick", "--framework", "torch", "--seeds", "200", "--processes", "1",
               "--out", str(tmp_path)]  # fmt: skip
    study = subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    store = tmp_path / "runs.jsonl"
    while not (store.exists() and store.stat().st_size) and study.poll() is None:
        time.sleep(0.05)
    study.terminate()  # handled as Ctrl-C
    error = study.communicate(timeout=60)[1]
    assert study.returncode == 130
    assert error == "\nstopped: the same command goes on where it was\n"
    assert 0 < len(Store(store).runs) < 200
    gone(study.pid)


def test_settings_are_chosen_on_the_validation_split(tmp_path: Path, monkeypatch):
    seen = []

    def fake(setting):
        seen.append(setting)
        accuracy = 1 - abs(setting.lr - (0.1 if setting.p1 == 0.2 else 0.4))
        return {"setting": json.loads(setting.key), "test_accuracy": [accuracy]}

    monkeypatch.setattr(runs, "train", fake)
    study = Study(Store(tmp_path / "runs.jsonl"), processes=0)
    chosen = study.choose({"a": TINY, "b": TINY.but(p1=0.5)}, "lr", (0.1, 0.2, 0.4))
    assert chosen == {"a": 0.1, "b": 0.4}
    assert len(seen) == 2 * 3 * 3
    assert all(setting.validation for setting in seen)


def test_paired_differences():
    rng = np.random.default_rng(0)
    common = rng.normal(size=200)  # the seeds differ much, but the difference is always 0.5 or so
    a, b = common + 0.5 + 0.1 * rng.normal(size=200), common
    d = paired(a, b)
    assert d.low < 0.5 < d.high
    assert d.high - d.low < 0.04
    assert (d.sign, d.seeds) == (1, 200)
    assert paired(b, a).sign == -1
    assert paired(a, a) == Difference(0.0, 0.0, 0.0, 200, None, 1.0)
    assert paired(np.array([1.0, np.nan, 3.0]), np.zeros(3)).seeds == 2
    alone = paired(np.array([1.0, np.nan]), np.zeros(2))
    assert (alone.seeds, alone.sign, alone.needed) == (1, 0, None)


@pytest.mark.slow
def test_the_interval_covers_as_often_as_it_says():
    # Of 1,000 intervals of 95 %, 20 numbers each, the bootstrap covers about 93 %. Fewer than 900
    # would happen by chance with a probability below 1e-3, computed for 93 % (binomial: 2e-4).
    rng = np.random.default_rng(1)
    covered = sum(low < 0 < high for _, low, high in
                  (interval(rng.normal(size=20)) for _ in range(1000)))  # fmt: skip
    assert covered >= 900


def test_how_many_seeds_would_be_needed():
    # Cohen's table for a paired t-test, 5 % and power 0.8: 34 pairs for d = 0.5, 199 for d = 0.2.
    for effect, expected in ((0.5, 34), (0.2, 199)):
        values = np.array([effect - 1, effect, effect + 1])  # standard deviation 1
        assert needed(paired(values, np.zeros(3))) == str(expected)
    assert needed(paired(np.array([1.0, -1.0, 1e-9]), np.zeros(3))) == "> 10,000"


def test_verdicts_need_every_framework():
    up, down, open_ = (Difference(m, m - 0.5, m + 0.5, 5, 9) for m in (1.0, -1.0, 0.1))
    assert verdict({"torch": up, "jax": up}, "better", "worse") == "better"
    assert verdict({"torch": list(down), "jax": down}, "better", "worse") == "worse"
    assert verdict({"torch": up, "jax": open_}, "better", "worse") == "no clear difference"
    assert signs({"torch": up, "jax": open_}) == {1, 0}


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Store:
    """A store that the exercises share: some runs are the same."""
    return Store(tmp_path_factory.mktemp("exercises") / "runs.jsonl")


@pytest.mark.slow
@pytest.mark.parametrize("name", EXERCISES)
def test_a_quick_look_writes_page_figure_and_numbers(name: str, store: Store, tmp_path: Path):
    module = command.MODULES[name]
    study = Study(store, ("torch", "jax"), 2, True, 0)
    page = report.write(module, report.run(module, study), tmp_path)
    text = page.read_text()
    assert "quick look" in text
    assert module.QUESTION in text
    assert (tmp_path / f"{name}.svg").read_text().startswith("<?xml")
    numbers = json.loads((tmp_path / f"{name}.json").read_text())
    assert report.page(module, numbers) == text  # the page depends on the numbers only


@pytest.mark.parametrize("name", EXERCISES)
def test_every_answer_follows_from_its_numbers(name: str):
    numbers = json.loads((ANSWERS / f"{name}.json").read_text())
    assert not numbers["quick"]
    assert numbers["frameworks"] == ["torch", "jax"]
    assert (ANSWERS / f"{name}.md").read_text() == report.page(command.MODULES[name], numbers)


def test_the_list_of_answers_is_that_of_the_pages():
    assert (ANSWERS / "README.md").read_text() == report.index(ANSWERS, command.MODULES)


def test_numbers_follow_from_the_runs(tmp_path: Path):
    # Nothing is trained: docs/exercises/runs.jsonl holds every run that this exercise asks for.
    (tmp_path / "runs.jsonl").write_bytes((ANSWERS / "runs.jsonl").read_bytes())
    command.main(["width", "--out", str(tmp_path), "--processes", "0"])
    ours, theirs = (json.loads((f / "width.json").read_text()) for f in (tmp_path, ANSWERS))
    assert ours["results"] == theirs["results"]


@pytest.mark.slow  # Python compiles all that is imported anew
def test_without_docstrings_pages_have_titles(tmp_path: Path):
    words = (sys.executable, "-OO", "-m", "experiments")
    listed = subprocess.run((*words, "list"), cwd=ROOT, capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(EXERCISES)
    assert listed.stdout.count("?") >= len(EXERCISES)
    flags = ("--quick", "--framework", "torch", "--processes", "1", "--out", str(tmp_path))
    subprocess.run((*words, "width", *flags), cwd=ROOT, capture_output=True, check=True)
    assert (tmp_path / "width.md").read_text().startswith(f"# {EXERCISES['width']}\n")
    *_, made = Store(tmp_path / "runs.jsonl").runs.values()
    again = train(Setting(**made["setting"]))  # another process trains the same
    np.testing.assert_allclose(again["train_loss"], made["train_loss"], rtol=1e-5)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rate"], "no exercise 'rate'"),
        (["rates", "--seeds", "1"], "seeds must be in 2"),
        (["rates", "--out", "file/folder"], "file/folder"),
        (["rates", "--out", "notes"], "README.md would be overwritten"),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_cannot_be_done_is_one_line(monkeypatch, capsys, tmp_path, words, message):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(runs, "train", pytest.fail)
    Path("file").touch()
    Path("notes").mkdir()
    Path("notes/README.md").write_text("# My notes\n")
    with pytest.raises(SystemExit) as stopped:
        command.main(words)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert Path("notes/README.md").read_text() == "# My notes\n"
