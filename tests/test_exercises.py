"""The exercises: how their networks are trained and kept, their statistics, and their pages."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

import impls.jax.train
import impls.torch.train
from experiments import __main__ as command
from experiments.exercises import EXERCISES
from experiments.study import report, runs
from experiments.study.paired import (
    Difference,
    interval,
    needed,
    paired,
    plain,
    signs,
    verdict,
)
from experiments.study.runs import Setting, Store, Study, run_all, train
from shared.config import Config
from shared.data import load

ANSWERS = Path(__file__).parents[1] / "docs" / "exercises"
TINY = Setting(
    data="sample", images=600, epochs=2, lr=0.1, hidden_1=16, hidden_2=12, batch_size=100
)


@pytest.fixture
def sample_of_600():
    import dataclasses

    data = load("sample")
    return dataclasses.replace(
        data, train_images=data.train_images[:600], train_labels=data.train_labels[:600]
    )


@pytest.mark.parametrize("trained_in", ["torch", "jax"])
def test_plain_training_is_that_of_the_implementation(trained_in: str, sample_of_600):
    ours = train(TINY.but(framework=trained_in, seed=3))
    config = Config(epochs=2, lr=0.1, hidden_1=16, hidden_2=12, batch_size=100, seed=3)
    implementation = {"torch": impls.torch.train, "jax": impls.jax.train}[trained_in]
    history = implementation.train(config, sample_of_600).history
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
    for curve in ("train_loss", "test_loss"):
        np.testing.assert_allclose(ours[curve], theirs[curve], rtol=1e-4)
    same = np.allclose(ours["test_loss"], plain["test_loss"], rtol=1e-5)
    assert same == ("copies" in changes)  # without masks, copies change nothing


@pytest.mark.parametrize("trained_in", ["torch", "jax"])
def test_max_norm_limits_every_unit(trained_in: str):
    import importlib

    setting = TINY.but(framework=trained_in, max_norm=0.3)
    images, labels, *_ = runs.arrays("sample", 600, False)
    trainer = importlib.import_module(f"experiments.study.on_{trained_in}").Trainer(
        setting, images, labels
    )
    trainer.epoch(np.arange(600), 0.2, 0.5, 0)
    norms = [
        np.linalg.norm(weight, axis=1)
        for name, weight in trainer.weights().items()
        if name.endswith("weight")
    ]
    assert max(n.max() for n in norms) == pytest.approx(0.3, rel=1e-5)


@pytest.mark.parametrize("trained_in", ["torch", "jax"])
def test_noise_is_used_in_training_and_not_in_evaluation(trained_in: str):
    still = TINY.but(framework=trained_in, lr=0.0, epochs=1)
    noises = ("dropout", "dropconnect", "masks-2", "gaussian")
    drawn = [train(still.but(noise=noise)) for noise in noises]
    plain = [train(still.but(noise=noise, p1=0.0, p2=0.0)) for noise in noises[:2]]
    # Each draws something else, without noise all are the same network, and so they are at the end.
    assert len({run["train_loss"][0] for run in (*drawn, plain[0])}) == len(noises) + 1
    np.testing.assert_allclose(plain[1]["train_loss"], plain[0]["train_loss"], rtol=1e-5)
    for run in drawn:
        np.testing.assert_allclose(run["test_loss"], plain[0]["test_loss"], rtol=1e-5)


@pytest.mark.parametrize("trained_in", ["torch", "jax"])
def test_schedules_reach_the_network(trained_in: str):
    setting = TINY.but(framework=trained_in)
    off = train(setting.but(p1=0.0, p2=0.0))["train_loss"]
    late = train(setting.but(schedule="late", schedule_epochs=1))["train_loss"]
    early = train(setting.but(schedule="early", schedule_epochs=1))["train_loss"]
    on = train(setting)["train_loss"]
    assert late[0] == pytest.approx(off[0], rel=1e-5)
    assert late[1] != pytest.approx(off[1], rel=1e-5)
    assert early[0] == pytest.approx(on[0], rel=1e-5)
    assert early[1] != pytest.approx(on[1], rel=1e-5)


def test_random_labels_are_even_and_belong_to_the_seed():
    labels = runs.random_labels(100_000, 1)
    # Chi-squared with 9 degrees of freedom. False alarm: 1e-9.
    assert scipy.stats.chisquare(np.bincount(labels)).pvalue > 1e-9
    assert len(np.bincount(labels)) == 10
    np.testing.assert_array_equal(labels, runs.random_labels(100_000, 1))
    assert (labels == runs.random_labels(100_000, 2)).mean() < 0.2


def test_early_and_late_dropout_follow_their_schedules():
    early = Setting(p1=0.2, p2=0.4, schedule="early", schedule_epochs=4)
    rates = [early.rates(epoch) for epoch in range(1, 7)]
    np.testing.assert_allclose([r[1] for r in rates], [0.4, 0.3, 0.2, 0.1, 0, 0])
    np.testing.assert_allclose([r[0] for r in rates], [0.2, 0.15, 0.1, 0.05, 0, 0])
    late = early.but(schedule="late")
    assert [late.rates(epoch)[1] for epoch in range(1, 7)] == [0, 0, 0, 0, 0.4, 0.4]
    assert Setting().rates(1) == Setting().rates(99) == (0.2, 0.5)


def test_validation_never_sees_the_test_images():
    train_images, _, held_out, _ = runs.arrays("sample", None, True)
    every, _, test, _ = runs.arrays("sample", None, False)
    np.testing.assert_array_equal(np.concatenate([train_images, held_out]), every)
    assert len(train_images) == len(every) * 5 // 6
    assert len(test) == 2000


def test_a_study_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch):
    settings = [TINY.but(seed=seed) for seed in range(4)]
    made = []

    def fake(setting):
        if len(made) == 2:
            raise KeyboardInterrupt
        made.append(setting.seed)
        whole = dict.fromkeys((*runs.CURVES, "fit_loss", "fit_accuracy", "measured"))
        return {"setting": json.loads(setting.key), "value": setting.seed, **whole}

    monkeypatch.setattr(runs, "train", fake)
    path = tmp_path / "runs.jsonl"
    with pytest.raises(KeyboardInterrupt):
        run_all(Store(path), settings, "", 0)
    path.write_text(path.read_text() + '{"setting": {"fram')  # a line that was cut off, too
    done = made.copy()
    made.clear()
    run_all(Store(path), settings, "", 0)
    assert (done, made) == ([0, 1], [2, 3])
    assert [Store(path).runs[s.key]["value"] for s in settings] == [0, 1, 2, 3]
    run_all(Store(path), settings, "", 0)  # nothing is left to do
    assert made == [2, 3]


def test_ctrl_c_says_in_one_line_how_to_go_on(tmp_path: Path):
    # Whatever the process that runs the tests does with Ctrl-C, this one starts as in a shell.
    command = ["env", "--default-signal=INT", sys.executable, "-m", "experiments", "rates",
               "--quick", "--framework", "torch", "--seeds", "200", "--processes", "1",
               "--out", str(tmp_path)]  # fmt: skip
    study = subprocess.Popen(
        command, cwd=ANSWERS.parents[1], stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    store = tmp_path / "runs.jsonl"
    while not (store.exists() and store.stat().st_size) and study.poll() is None:
        time.sleep(0.05)
    os.killpg(study.pid, signal.SIGINT)
    error = study.communicate(timeout=60)[1]
    assert study.returncode == 130
    assert error == "\nstopped: the same command goes on where it was\n"
    assert 0 < len(Store(store).runs) < 200


def test_runs_are_told_apart_by_every_part_of_their_setting():
    base = Setting()
    changes = {
        "framework": "jax", "seed": 1, "images": 5, "validation": True, "epochs": 3,
        "batch_size": 7, "lr": 0.1, "p1": 0.3, "p2": 0.3, "hidden_1": 9, "hidden_2": 9,
        "noise": "uniform", "schedule": "early", "schedule_epochs": 2, "weight_decay": 0.1,
        "max_norm": 1.0, "copies": 2, "random_labels": True, "data": "sample", "measure": "x",
    }  # fmt: skip
    assert set(changes) == set(Setting.__dataclass_fields__)
    assert len({base.but(**{name: value}).key for name, value in changes.items()}) == len(changes)


def test_another_process_trains_the_same(tmp_path: Path):
    settings = [TINY.but(seed=seed, epochs=1) for seed in (0, 1)]
    run_all(store := Store(tmp_path / "runs.jsonl"), settings, "", 1)
    for setting in settings:
        assert store.runs[setting.key]["train_loss"] == pytest.approx(
            train(setting)["train_loss"], rel=1e-5
        )


def test_settings_are_chosen_on_the_validation_split(tmp_path: Path, monkeypatch):
    seen = []

    def fake(setting):
        seen.append(setting)
        accuracy = 1 - abs(setting.lr - 0.2) - abs(setting.p1 - 0.5)
        return {"setting": json.loads(setting.key), "test_accuracy": [accuracy]}

    monkeypatch.setattr(runs, "train", fake)
    study = Study(Store(tmp_path / "runs.jsonl"), processes=0)
    chosen = study.choose({"a": TINY}, {"lr": (0.1, 0.2, 0.4), "p1": (0.2, 0.5)})
    assert chosen == {"a": {"lr": 0.2, "p1": 0.5}}
    assert len(seen) == 3 * 2 * 3
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


def test_verdicts_of_five_seeds_are_rarely_false():
    # Of 1,000 differences of mean 0, the t-test calls 5 % clear, the bootstrap alone some 16 %.
    # More than 90 happen by chance with a probability of 1e-7 (binomial, 5 %).
    rng = np.random.default_rng(2)
    clear = sum(paired(rng.normal(size=5), np.zeros(5)).sign != 0 for _ in range(1000))
    assert clear <= 90


@pytest.mark.parametrize(
    "line", ["[]", "1", "null", '"x"', "{}", '{"setting": null}', '{"setting": {"new": 1}}',
             "[" * 100_000, '{"setting": {}}'], ids=lambda line: line[:20],
)  # fmt: skip
def test_lines_that_are_no_runs_are_left_out(line: str, tmp_path: Path, capsys):
    path = tmp_path / "runs.jsonl"
    path.write_bytes(line.encode() + b"\n\xff\xfe\n")
    assert Store(path).runs == {}
    assert capsys.readouterr().err == f"note: {path} has 2 lines that are no runs\n"


def test_a_readme_of_somebody_else_is_not_overwritten(monkeypatch, capsys, tmp_path: Path):
    (tmp_path / "README.md").write_text("# My notes\n")
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, "rates", "--quick", "--out", str(tmp_path))
    assert stopped.value.code == 2
    assert "README.md would be overwritten" in capsys.readouterr().err
    assert (tmp_path / "README.md").read_text() == "# My notes\n"


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


@pytest.mark.parametrize("name", EXERCISES)
def test_a_quick_look_writes_page_figure_and_numbers(name: str, tmp_path: Path):
    module = command.MODULES[name]
    study = Study(Store(tmp_path / "runs.jsonl"), ("torch",), 2, True, 0)
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


@pytest.mark.parametrize("name", EXERCISES)
def test_predictions_and_answers_fit_on_a_slide(name: str):
    numbers = json.loads((ANSWERS / f"{name}.json").read_text())
    module = command.MODULES[name]
    for text in (module.predict(), module.answer(numbers["results"]).text):
        assert len(text.split()) < 160  # many of them are symbols


def test_huge_differences_are_short():
    assert plain(Difference(3.1e25, -0.7, 9.3e25, 5, 34)) == "+3e+25 [-0.700, +9e+25], n = 34"


def test_the_list_of_answers_is_that_of_the_pages():
    assert (ANSWERS / "README.md").read_text() == report.index(ANSWERS, command.MODULES)


def run_command(monkeypatch, *words: str) -> None:
    monkeypatch.setattr("sys.argv", ["experiments", *words])
    command.main()


def test_list_names_every_exercise_with_its_question(monkeypatch, capsys):
    run_command(monkeypatch, "list")
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(EXERCISES)
    assert all("?" in line for line in lines)


def test_a_folder_that_cannot_be_written_is_one_line(monkeypatch, capsys, tmp_path: Path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, "width", "--quick", "--framework", "torch", "--seeds", "2",
                    "--processes", "0", "--out", str(tmp_path / "file" / "folder"))  # fmt: skip
    assert stopped.value.code == 2
    assert "cannot write to" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["rate"], "no exercise 'rate'"), (["rates", "--seeds", "1"], "seeds must be in 2")],
)
def test_a_wrong_command_is_one_line(monkeypatch, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        run_command(monkeypatch, *words)
    error = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in error
