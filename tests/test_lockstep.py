"""A short lockstep. The proof itself is `make lockstep`: ten epochs on the full data."""

import re
import sys

import pytest

import experiments.lockstep

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
