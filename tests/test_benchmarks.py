"""The benchmarks measure what they say. No test here depends on how long anything takes."""

import contextlib
import importlib
import json
import types

import jax
import numpy as np
import pytest
import torch

import benchmarks.__main__
import benchmarks.on_torch
import impls.torch.dropout
from benchmarks import report, timing
from benchmarks.article import Images
from benchmarks.programs import PROGRAMS, Setting, prepare
from benchmarks.until import train_until
from shared.data import to_inputs


def test_ratios_are_taken_within_a_round():
    # The machine becomes ten times slower between the two programs of the second round.
    assert timing.compare([1, 1, 10, 10], [2, 20, 20, 20]) == {
        "ratio": {"median": 0.5, "low": 0.3875, "high": 0.5}, "seconds": 5.5, "other_seconds": 20,
    }  # fmt: skip
    ratio = timing.compare([1.0, 2.0, 9.0], [1.0, 1.0, 1.0])
    assert report.figure(ratio) == "2.00 (1.50 - 5.50)"


def test_programs_take_turns_and_the_first_round_does_not_count(monkeypatch):
    log = []

    class Process(contextlib.nullcontext):
        """In the place of a process. The first run takes 1000 s, each other one twice the last."""

        def submit(self, function, *args):
            if function is timing._start:
                self.program, self.seconds = args[0], 500
            else:
                log.append(self.program)
                self.seconds *= 2
            seconds = self.seconds
            return types.SimpleNamespace(result=lambda: seconds)

        def __enter__(self):
            return self

    monkeypatch.setattr(timing, "new_process", Process)
    measured = timing.measure(["a", "b"], Setting(), rounds=2)
    assert measured == {"a": [2000, 4000], "b": [2000, 4000]}
    assert log == ["a", "b", "a", "b", "a", "b"]


def test_seconds_end_when_the_device_has_computed(monkeypatch):
    now = [0]
    monkeypatch.setattr("time.perf_counter", lambda: sum(now))
    monkeypatch.setattr(jax, "block_until_ready", now.append)
    assert timing.seconds_of(lambda i: 10 + i, 1) == 11
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: now.append(100))
    assert timing.seconds_of(lambda i: 10, 0) == 110


HERE = [name for name in PROGRAMS if not any(w in name for w in ("keras", "4 workers", "whole"))]


@pytest.mark.parametrize("name", HERE)
def test_every_program_runs(name: str, small_folder, monkeypatch):
    monkeypatch.setattr(Setting, "calls", 2)
    lesson = impls.torch.dropout.apply_keep
    monkeypatch.setattr(impls.torch.dropout, "apply_keep", lesson)  # some programs change it
    run = prepare(name, Setting(data=str(small_folder), size=64, units="bfloat16", steps=2))
    with jax.numpy_dtype_promotion("standard"):  # the metrics of flax do not run with "strict"
        run(0)
        results = run(1)
    if name in ("jax epoch", "jax floor", "nnx loop"):  # what has to be waited for
        assert jax.tree.leaves(results)
    assert (impls.torch.dropout.apply_keep is lesson) == (not name.endswith(("fill", "backward")))


@pytest.mark.parametrize("selection", benchmarks.on_torch.SELECTIONS)
def test_other_selections_give_the_same_bits_and_gradients(selection: str, monkeypatch):
    results = []
    for _ in range(2):
        x = torch.randn(40, 50, generator=torch.Generator().manual_seed(1)).T.requires_grad_()
        source = torch.Generator().manual_seed(0)
        y = impls.torch.dropout.dropout(x, 0.3, training=True, generator=source)
        y.square().sum().backward()
        results.append((y.detach().numpy(), x.grad.numpy()))
        monkeypatch.setattr(impls.torch.dropout, "apply_keep", None)  # put back at the end
        benchmarks.on_torch._select_with(selection)
    np.testing.assert_array_equal(*results)


def test_the_article_program_sees_the_same_pixels(small_data):
    image, label = Images(small_data.train_images, small_data.train_labels)[7]
    np.testing.assert_array_equal(image.reshape(-1), to_inputs(small_data.train_images[7:8])[0])
    assert (image.shape, label) == ((1, 28, 28), small_data.train_labels[7])


@pytest.mark.parametrize("module", ["on_torch", "on_jax", "article"])
def test_a_process_ends_at_the_first_epoch_that_reaches_the_goal(module: str, small_folder):
    program = importlib.import_module(f"benchmarks.{module}")
    one, two = program.accuracies(Setting(data=str(small_folder), epochs=2))
    setting = Setting(data=str(small_folder), epochs=2, goal=two)
    assert train_until(setting, module) == (1 if one >= two else 2)
    with pytest.raises(RuntimeError, match="did not reach 2 in 1 epochs"):
        train_until(Setting(data=str(small_folder), epochs=1, goal=2), module)


@pytest.mark.slow
def test_the_command_measures_and_writes(small_folder, tmp_path, capsys, monkeypatch):
    case = (report.ARTICLE, {}, {"torch epoch": ["torch floor"]})
    monkeypatch.setitem(benchmarks.__main__.SECTIONS, "epoch", [case])
    words = ("--quick", "--data", str(small_folder), "--only", "epoch", "--out", str(tmp_path))
    benchmarks.__main__.main(words)
    written = json.loads((tmp_path / "benchmarks.json").read_text())
    (row,) = written["results"]["epoch"]
    assert row["ratio"]["median"] == pytest.approx(row["seconds"] / row["other_seconds"])
    assert (tmp_path / "benchmarks.md").read_text() == report.page(*written.values())
    assert "| torch epoch / torch floor | article" in capsys.readouterr().out


def test_a_device_that_is_not_there_is_one_line(capsys):
    if torch.cuda.is_available():
        pytest.skip("there is a device")
    with pytest.raises(SystemExit, match="2"):
        benchmarks.__main__.main(["--device", "cuda"])
    assert capsys.readouterr().err.startswith("error: no device 'cuda'")


@pytest.mark.parametrize("name", ["docs/benchmarks.md", *report.FIGURES])
def test_pages_have_the_figures_of_the_json(name: str):
    """If not: python -m benchmarks --out docs, then python -m benchmarks.report."""
    about, results = json.loads((report.ROOT / "docs" / "benchmarks.json").read_text()).values()
    text = (report.ROOT / name).read_text()
    if name in report.FIGURES:
        assert text == report.fill(text, report.FIGURES[name], results)
    else:
        assert text == report.page(about, results)


def test_figures_are_put_in_in_order():
    ratios = [{"median": median, "low": 1.0, "high": 2.0} for median in (0.05, 3.0)]
    rows = [{"what": "a / b", "at": at, "ratio": r} for at, r in zip("xy", ratios, strict=True)]
    text = "| 9.99 (0.00 - 0.00) | 0.00 (0.00–0.00) | 1.5 | 2.0 (1.0) |"
    filled = "| 3.00 (1.00 - 2.00) | 0.050 (1.000–2.000) | 1.5 | 2.0 (1.0) |"
    assert report.fill(text, ("a / b, y", "a / b, x"), {"growth": rows}) == filled
    with pytest.raises(ValueError, match="expected 1 figures, found 2"):
        report.fill(text, ("a / b, y",), {"growth": rows})
