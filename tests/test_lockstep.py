"""A short lockstep. The proof itself is `make lockstep`: ten epochs on the full data."""

import re
import sys

import jax
import numpy as np
import pytest

import experiments.lockstep
from experiments.lockstep import Difference
from shared.config import Config
from shared.randomness import initial_weights
from shared.weights import NAMES
from tests.adapters import JAX, NUMPY

QUICK = ("--epochs", "2", "--hidden-1", "32", "--hidden-2", "24")
FULL_BATCHES = ("--batch-size", "200")  # of 600 images: JAX compiles one step instead of two


def lockstep(monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["lockstep", *map(str, words)])
    experiments.lockstep.main()


def test_float64_agrees_with_the_masks_of_either_framework(monkeypatch, small_folder, capsys):
    lockstep(monkeypatch, *QUICK, "--data", small_folder)
    text = capsys.readouterr().out
    assert text.count("masks drawn by") == 2
    last = re.fullmatch(r"max \|loss difference\| = (\S+)", text.splitlines()[-1])
    assert last, text
    assert float(last[1]) <= 1e-13
    for correct in re.findall(r"torch (\d+), JAX (\d+), NumPy (\d+)", text):
        assert len(set(correct)) == 1


def test_float32_drifts_apart_and_is_drawn(monkeypatch, small_folder, tmp_path, capsys):
    picture = tmp_path / "a" / "lockstep.png"
    words = ("--data", small_folder, "--dtype", "float32", "--masks", "jax", "--plot", picture)
    lockstep(monkeypatch, *QUICK, *FULL_BATCHES, *words)
    assert picture.read_bytes().startswith(b"\x89PNG")
    difference = float(capsys.readouterr().out.split("= ")[-1])
    assert 1e-12 < difference < 1e-3


@pytest.mark.parametrize("broken", ["torch_sample_keep", "loss"])
def test_a_difference_is_found(monkeypatch, small_folder, capsys, broken: str):
    real = experiments.lockstep.torch_sample_keep
    if broken == "loss":  # JAX trains with another learning rate
        make_optimizer = experiments.lockstep.impls.jax.train.make_optimizer
        monkeypatch.setattr(
            "impls.jax.train.make_optimizer", lambda model, lr: make_optimizer(model, lr + 1e-9)
        )
        with pytest.raises(SystemExit) as stop:
            lockstep(monkeypatch, *QUICK, *FULL_BATCHES, "--data", small_folder, "--masks", "jax")
        assert stop.value.code == 1
    else:  # a mask that NumPy cannot replay
        monkeypatch.setattr(
            experiments.lockstep, "torch_sample_keep", lambda *a, **k: ~real(*a, **k)
        )
        with pytest.raises(AssertionError, match="not equal"):
            lockstep(monkeypatch, *QUICK, *FULL_BATCHES, "--data", small_folder, "--masks", "torch")


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
def test_the_verdict(monkeypatch, capsys, changes: dict, code: int, wrong: str):
    monkeypatch.setattr(
        experiments.lockstep,
        "lockstep",
        lambda config, data, source, on_epoch: FINE._replace(**changes if source == wrong else {}),
    )
    monkeypatch.setattr("sys.argv", ["lockstep", "--data", "sample"])
    stop = None
    try:
        experiments.lockstep.main()
    except SystemExit as error:
        stop = error.code
    assert (stop or 0) == code


LOCKSTEP = Config(epochs=2, hidden_1=32, hidden_2=24, batch_size=200, dtype="float64")


@pytest.fixture
def found(small_data, quick_compilation):
    def run(source: str = "jax") -> Difference:
        with jax.enable_x64(True):
            return experiments.lockstep.lockstep(LOCKSTEP, small_data, source, lambda line: None)

    return run


def test_numpy_computes_the_logits_of_both_under_the_same_masks(found):
    assert 0 < found().numpy <= 1e-12


def test_a_difference_in_any_weight_and_in_any_count_is_found(found, monkeypatch):
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


@pytest.mark.parametrize("name", NAMES)
def test_the_largest_difference_of_weights_is_over_all_of_them(found, monkeypatch, name: str):
    real = JAX.mlp.MLP.get_weights
    monkeypatch.setattr(
        JAX.mlp.MLP, "get_weights", lambda self: (w := real(self)) | {name: w[name] + 1e-6}
    )
    assert found().weights == pytest.approx(1e-6, rel=1e-3)


@pytest.mark.parametrize("source", ["jax", "torch"])
@pytest.mark.parametrize("first_wrong", [0, 3])
def test_masks_that_numpy_cannot_replay_are_found_in_each_epoch(
    found, monkeypatch, source: str, first_wrong: int
):
    real = getattr(experiments.lockstep, f"masks_of_{source}")
    monkeypatch.setattr(
        experiments.lockstep,
        f"masks_of_{source}",
        lambda config, shapes, step: tuple(
            ~mask if step >= first_wrong else mask for mask in real(config, shapes, step)
        ),
    )
    with pytest.raises(AssertionError, match="not equal"):
        found(source)
