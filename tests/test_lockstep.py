"""A short lockstep. The proof itself is `make lockstep`: ten epochs on the full data."""

import itertools
import re
import sys

import numpy as np
import optax
import pytest

import experiments.lockstep
from experiments.lockstep import Difference, main
from shared.config import Config
from shared.randomness import initial_weights
from shared.weights import NAMES
from tests.adapters import JAX, NUMPY, TORCH

QUICK = ("--epochs", "2", "--hidden-1", "32", "--hidden-2", "24")
FULL_BATCHES = ("--batch-size", "200")  # of 600 images: JAX compiles one step instead of two


def test_float64_agrees_with_the_masks_of_either_framework(small_folder, capsys):
    main([*QUICK, "--data", str(small_folder)])
    text = capsys.readouterr().out
    assert text.count("masks drawn by") == 2
    last = re.fullmatch(r"max \|loss difference\| = (\S+)", text.splitlines()[-1])
    assert last, text
    assert float(last[1]) <= 1e-13
    counts = re.findall(r"torch (\d+), JAX (\d+), NumPy (\d+)", text)
    assert len(counts) == 2
    assert all(len(set(correct)) == 1 for correct in counts)


def test_float32_drifts_apart_and_is_drawn(small_folder, tmp_path, capsys):
    picture = tmp_path / "a" / "lockstep.png"
    words = ("--dtype", "float32", "--masks", "jax", "--plot", str(picture))
    main([*QUICK, *FULL_BATCHES, "--data", str(small_folder), *words])
    assert picture.read_bytes().startswith(b"\x89PNG")
    difference = float(capsys.readouterr().out.split("= ")[-1])
    assert 1e-12 < difference < 1e-3


def test_the_line_of_an_epoch_is_about_that_epoch(small_data, monkeypatch):
    real, steps, lines = TORCH.train.train_step, itertools.count(), []

    def train_step(*args, **kwargs):
        loss, correct = real(*args, **kwargs)
        return loss + (1e-6 if next(steps) < 3 else 0), correct

    monkeypatch.setattr(TORCH.train, "train_step", train_step)
    experiments.lockstep.lockstep(LOCKSTEP, small_data, "jax", lines.append)
    first, second = (float(line.split()[3]) for line in lines)
    assert second < 1e-12 < 9e-7 < first


@pytest.mark.parametrize(
    ("plot", "reason"),
    [("a.gif", ".png or .svg"), ("file/a.png", "file"), ("folder.png", "Is a directory"),
     ("a.png", "needs matplotlib")],
)  # fmt: skip
def test_a_plot_that_cannot_be_is_said_before_the_work(
    monkeypatch, small_folder, tmp_path, capsys, plot: str, reason: str
):
    monkeypatch.setattr(experiments.lockstep, "lockstep", pytest.fail)
    if "matplotlib" in reason:
        monkeypatch.setitem(sys.modules, "matplotlib", None)
    (tmp_path / "file").touch()
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(SystemExit) as stop:
        main(["--data", str(small_folder), "--plot", str(tmp_path / plot)])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.count("\n") == 1
    assert reason in error


def test_a_loss_that_is_no_number_ends_with_status_1_and_spares_the_old_picture(
    small_folder, tmp_path, capsys
):
    picture = tmp_path / "a.png"
    picture.write_bytes(b"a picture")
    words = ("--lr", "1e38", "--plot", str(picture))
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, *FULL_BATCHES, "--data", str(small_folder), *words])
    assert stop.value.code == 1
    assert picture.read_bytes() == b"a picture"
    assert re.fullmatch(
        r"error: the losses are nan and nan at step \d, in epoch 1\. .*\n", capsys.readouterr().err
    )


def test_another_learning_rate_is_found(monkeypatch, small_folder):
    sgd = optax.sgd
    monkeypatch.setattr(optax, "sgd", lambda lr: sgd(lr + 1e-9))
    with pytest.raises(SystemExit) as stop:
        main([*QUICK, *FULL_BATCHES, "--data", str(small_folder), "--masks", "jax"])
    assert stop.value.code == 1


FINE = Difference(np.array([0.0, 1e-13]), 1e-11, 1e-13, (7, 7, 7))


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({}, 0),
        ({"loss_per_step": np.array([0.0, 2e-12, 0.0])}, 1),
        ({"weights": 2e-10}, 1),
        ({"numpy": 2e-12}, 1),
        ({"correct": (7, 7, 8)}, 1),
        ({"correct": (8, 7, 7)}, 1),
        ({"correct": (7, 8, 7)}, 1),
    ],
)
@pytest.mark.parametrize("wrong", ["jax", "torch"])
def test_the_verdict(monkeypatch, changes: dict, code: int, wrong: str):
    monkeypatch.setattr(
        experiments.lockstep,
        "lockstep",
        lambda config, data, source, on_epoch: FINE._replace(**changes if source == wrong else {}),
    )
    stop = 0
    try:
        main(["--data", "sample"])
    except SystemExit as error:
        stop = error.code
    assert stop == code


LOCKSTEP = Config(epochs=2, hidden_1=32, hidden_2=24, batch_size=200, dtype="float64")


@pytest.fixture
def found(small_data):
    def run(source: str = "jax") -> Difference:
        return experiments.lockstep.lockstep(LOCKSTEP, small_data, source, lambda line: None)

    return run


def test_a_difference_in_any_weight_and_in_any_count_is_found(found, monkeypatch):
    assert 0 < found().numpy <= 1e-12
    monkeypatch.setattr(
        JAX.mlp.MLP, "get_weights", lambda self: initial_weights(784, 32, 24, 10, seed=9)
    )
    real = NUMPY.evaluate.evaluate
    monkeypatch.setattr(NUMPY.evaluate, "evaluate", lambda *a: (0.0, real(*a)[1] + 1 / len(a[2])))
    difference = found()
    torch_correct, jax_correct, numpy_correct = difference.correct
    assert torch_correct == jax_correct  # JAX counts with its own weights
    assert numpy_correct == torch_correct + 1  # NumPy has those of PyTorch
    assert difference.weights > 0.1
    assert difference.numpy > 0.1


@pytest.mark.parametrize("name", [NAMES[0], NAMES[3], NAMES[4]])
def test_the_largest_difference_of_weights_is_over_all_of_them(found, monkeypatch, name: str):
    real = JAX.mlp.MLP.get_weights
    monkeypatch.setattr(
        JAX.mlp.MLP, "get_weights", lambda self: (w := real(self)) | {name: w[name] + 1e-6}
    )
    assert found().weights == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize("adapter", [JAX, TORCH], ids=lambda adapter: adapter.name)
@pytest.mark.parametrize("first_wrong", [0, 6])  # of two masks in each of the three steps
def test_masks_that_numpy_cannot_replay_are_found_in_each_epoch(
    found, monkeypatch, adapter, first_wrong: int
):
    real, drawn = adapter.dropout.sample_keep, []

    def wrong(*args, **kwargs):
        drawn.append(args)
        keep = real(*args, **kwargs)
        return ~keep if len(drawn) > first_wrong else keep

    monkeypatch.setattr(adapter.dropout, "sample_keep", wrong)
    with pytest.raises(AssertionError, match="not equal"):
        found(adapter.name)
    assert len(drawn) == first_wrong + 2
