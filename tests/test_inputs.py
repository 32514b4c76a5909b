"""Odd inputs that `python -m tests.reliability.inputs` found: each is one clear line now."""

import importlib
import io
import json
import os
import sys
import warnings

import numpy as np
import pytest
import safetensors.numpy

import experiments.lockstep
from impls.jax import runtime
from impls.numpy import prng
from shared.checks import InputError
from shared.cli import mend_streams, one_line_errors, parse, say, show
from shared.config import EvaluateConfig, RunConfig
from shared.files import check_writable
from shared.folder import CHECKPOINT, LOG, PREVIOUS, RunFolder, read_header, write_checkpoint
from shared.randomness import initial_weights
from shared.records import DivergedError, TrainResult, epoch_record, make_header, read_log
from tests.adapters import JAX, NUMPY, TORCH, Adapter
from tests.test_records import MACHINE, record


@pytest.fixture
def header(small_data, tmp_path):
    return make_header("torch", ("torch",), RunConfig(out=tmp_path), small_data, MACHINE)


def refusal_of_log(path) -> str:
    with pytest.raises(InputError) as refused:
        read_log(path)
    said = str(refused.value)
    assert said.isprintable()
    assert len(said) < 700
    return said


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"train_loss": 10**400}, "train_loss is"),
        ({"seconds": float("nan")}, "seconds is nan"),
        ({"epoch": "\x1b[31m"}, "epoch is"),
        ({"test_accuracy": True}, "test_accuracy is True"),
    ],
    ids=str,
)
def test_odd_numbers_in_a_log(changes, complaint, header, tmp_path):
    log = tmp_path / LOG
    log.write_text(f"{json.dumps(header)}\n{json.dumps(record(1, 0.5, 1.0) | changes)}")
    assert complaint in refusal_of_log(log)


def test_odd_logs(header, tmp_path):
    log = tmp_path / LOG
    lines = [json.dumps(header), *[json.dumps(record(1, 0.5, 1.0))] * 2]
    log.write_text("\n".join(lines))
    assert "epoch 1 is behind epoch 1" in refusal_of_log(log)
    log.write_text(json.dumps({**header, "data": []}))
    assert "data is not text" in refusal_of_log(log)
    log.write_bytes(b"\xff" * 1000)
    assert "cannot read" in refusal_of_log(log)
    os.truncate(log, 2**40)
    assert "it has more than" in refusal_of_log(log)
    log.unlink()
    os.mkfifo(log)
    assert "not a regular file" in refusal_of_log(log)
    assert "Name a folder" in refusal_of_log(tmp_path / "none")
    assert "cannot read" in refusal_of_log(tmp_path / ("x" * 300))


@pytest.mark.parametrize("text", ["[]", "{}", "NaN", '{"config": 1}', "[" * 100_000])
def test_a_weight_file_with_odd_metadata_does_not_say_of_which_run_it_is(text, tmp_path):
    weights = initial_weights(4, 2, 2, 2, seed=0)
    safetensors.numpy.save_file(weights, tmp_path / "weights", {"header": text})
    assert read_header(tmp_path / "weights") is None


@pytest.mark.parametrize(
    "history",
    [[], {}, None, [1], [{}], [record(2, 0.5, 1.0)], [record(1, 0.5, float("nan"))],
     [record(e, 0.5, 1.0) for e in (2, 1)]],
)  # fmt: skip
def test_a_checkpoint_with_an_odd_history_gives_way_to_the_one_before(
    history, header, tmp_path, capsys
):
    weights = initial_weights(784, 4, 4, 10, seed=0)
    for run in (TrainResult([record(1, 0.5, 1.0)], weights), TrainResult(history, weights)):
        write_checkpoint(tmp_path / CHECKPOINT, run, header)
    config = RunConfig(out=tmp_path, resume=True)
    with RunFolder(config, header) as folder:
        assert len(folder.start.history) == 1
    assert f"Going on from {PREVIOUS} instead" in capsys.readouterr().err
    (tmp_path / PREVIOUS).unlink()
    with pytest.raises(InputError, match="cannot go on from"), RunFolder(config, header):
        pass


def test_a_checkpoint_with_more_epochs_than_the_run_is_refused(header, tmp_path):
    weights = initial_weights(784, 4, 4, 10, seed=0)
    run = TrainResult([record(epoch, 0.5, 1.0) for epoch in range(1, 12)], weights)
    write_checkpoint(tmp_path / CHECKPOINT, run, header)
    config = RunConfig(out=tmp_path, resume=True)
    with pytest.raises(InputError, match="more epochs"), RunFolder(config, header):
        pass


def test_a_folder_in_the_place_of_the_weights_cannot_be_replaced(header, tmp_path):
    (tmp_path / "weights.safetensors").mkdir()
    config = RunConfig(out=tmp_path, overwrite=True)
    with pytest.raises(InputError, match="cannot replace"), RunFolder(config, header):
        pass


def test_a_pipe_in_the_place_of_the_weights_is_not_waited_for(header, tmp_path):
    os.mkfifo(tmp_path / "weights.safetensors")
    config = RunConfig(out=tmp_path, resume=True)
    with pytest.raises(InputError, match="does not say of which run"), RunFolder(config, header):
        pass


def test_a_loss_on_the_test_images_that_is_infinite_ends_the_run():
    with pytest.raises(DivergedError, match="the loss is inf on the test images, after epoch 3"):
        epoch_record(3, np.ones(1), np.ones(1), (float("inf"), 0.1), 1, 1, 0.1)


def test_an_error_is_one_short_line_without_control_characters(capsys):
    for error, expected in (
        (InputError("no \x1b[31m\nred" + "x" * 10_000), "error: no ?[31m redxxx"),
        (MemoryError(), "error: there is not enough memory\n"),
    ):
        with pytest.raises(SystemExit), one_line_errors():
            raise error
        said = capsys.readouterr().err
        assert said.startswith(expected)
        assert len(said) < 610


def test_what_a_stream_cannot_print_is_escaped(monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", None)  # closed
    mend_streams()
    say("数")
    assert stream.buffer.getvalue() == b"\\u6570\n"
    with sys.stderr as closed:
        assert closed.write("nobody reads this")


def test_a_result_that_cannot_be_printed_is_an_error(monkeypatch):
    with open("/dev/full", "w") as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        with pytest.raises(InputError, match="cannot print the result: No space left"):
            show("x" * 10)


def test_help_on_a_narrow_terminal(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "1")  # with which tyro never ends
    with pytest.raises(SystemExit):
        parse(EvaluateConfig, "impls.torch.evaluate", args=["--help"])
    assert "usage" in capsys.readouterr().out


def test_a_plot_that_cannot_be_written_is_refused_before_the_run(
    monkeypatch, small_folder, tmp_path, capsys
):
    (tmp_path / "plot.png").mkdir()
    (tmp_path / "link.png").symlink_to("/dev/full")
    monkeypatch.setattr(experiments.lockstep, "run", pytest.fail)
    for plot in ("plot.png", "link.png", "x" * 300 + ".png"):
        words = ["lockstep", "--data", str(small_folder), "--plot", str(tmp_path / plot)]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as stop:
            experiments.lockstep.main()
        assert stop.value.code == 2
        assert capsys.readouterr().err.startswith("error: cannot write the plot ")


def test_looking_whether_a_file_can_be_written_changes_nothing(tmp_path):
    (tmp_path / "there").write_text("kept")
    check_writable(tmp_path / "there")
    check_writable(tmp_path / "new")
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [("there", "kept")]


def test_a_damaged_cache_of_compiled_code_is_emptied_without_a_word(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with (
        warnings.catch_warnings(record=True) as seen,
        runtime.compiled_code_on_disk(),
    ):
        warnings.simplefilter("always")
        folder = tmp_path / "dropout-three-ways" / "jax"
        (folder / "a-cache").write_bytes(b"damaged")
        (folder / "b-cache").mkdir()
        warnings.warn("Error reading persistent compilation cache entry", stacklevel=1)
        warnings.warn("another warning", stacklevel=1)
        assert not list(folder.iterdir())
    assert [str(one.message) for one in seen] == ["another warning"]


def source(framework: Adapter) -> str:
    return {TORCH: "generator", JAX: "key", NUMPY: "rng"}[framework]


def test_odd_arguments_are_one_sentence(framework: Adapter):
    dropout, x = framework.dropout, framework.array(np.ones((2, 3), np.float32))
    keep = framework.array(np.ones((2, 3), bool))
    other = JAX.array(np.float32([1])) if framework == TORCH else TORCH.array(np.float32([1]))
    for call, words in (
        (lambda: dropout.sample_keep((2, 3), 0.5, **{source(framework): 0}), "got int"),
        (lambda: dropout.sample_keep((2.5,), 0.5, **framework.source(0)), "whole numbers"),
        (lambda: dropout.sample_keep(None, 0.5, **framework.source(0)), "whole numbers"),
        (lambda: dropout.sample_keep((2**70,), 0.5, **framework.source(0)), "no array has"),
        (lambda: dropout.sample_keep((-1,), 0.5, **framework.source(0)), "no array has"),
        (lambda: dropout.apply_keep(other, keep, 0.5), "x is a .*, but the mask a "),
        (lambda: dropout.apply_keep([1.0], keep, 0.5), "floating point numbers, got list"),
        (lambda: dropout.apply_keep(x, [[True] * 3] * 2, 0.5), "booleans, got list"),
        (lambda: dropout.apply_keep(x, x, 0.5), "booleans, got float32"),
        (lambda: dropout.apply_keep(x, np.ma.masked_array(np.ones((2, 3), bool)), 0.5), "dense"),
    ):
        with pytest.raises((TypeError, ValueError), match=words) as refused:
            call()
        assert "\n" not in str(refused.value)


def test_odd_arguments_of_noise_are_one_sentence(framework: Adapter):
    noise = importlib.import_module(f"impls.{framework.name}.noise")
    x, w, b = (framework.array(np.ones(s, np.float32)) for s in ((4, 3), (2, 3), (2,)))
    half = framework.array(np.ones((2, 3), np.float16))
    options = {"training": True, **framework.source(0)}
    for call, words in (
        (lambda: noise.dropconnect(x, w, b, "0.5", **options), "p must be a real number"),
        (lambda: noise.dropconnect(x, [1], b, 0.5, **options), "weight must be of the class"),
        (lambda: noise.dropconnect(x, half, b, 0.5, **options), "the dtype of x"),
        (lambda: noise.dropconnect(x, b, b, 0.5, **options), "do not fit"),
        (lambda: noise.noise(x, 0.5, kind="masks", masks=1.5, **options), "a whole number"),
        (lambda: noise.noise(x, 0.5, kind="masks", masks=10**400, **options), "at most a million"),
    ):
        with pytest.raises((TypeError, ValueError), match=words):
            call()
    if framework != NUMPY:
        layer = noise.Noise(0.5)
        with pytest.raises(TypeError, match="keep must be"):
            layer(x, keep=[1])
        with pytest.raises(ValueError, match="keep has the shape"):
            layer(x, keep=w)


def test_odd_arguments_of_the_prng():
    key = prng.key(np.int64(3))
    for call in (
        lambda: prng.key(1.5), lambda: prng.fold_in(key, "x"), lambda: prng.split(None),
        lambda: prng.bits(key, (2,), np.float32), lambda: prng.bernoulli(key, 10**400),
        lambda: prng.Generator().manual_seed(0.5), lambda: prng.rand((2,), generator=key),
        lambda: prng.random(np.random, (2,)), lambda: prng.uniform(key, -1),
    ):  # fmt: skip
        with pytest.raises((TypeError, ValueError)):
            call()


def test_weights_that_overflow_are_scored_without_a_warning():
    weights = initial_weights(4, 2, 2, 10, seed=0)
    huge = {name: np.full_like(array, 3e38) for name, array in weights.items()}
    loss, _ = NUMPY.evaluate.evaluate_weights(huge, np.ones((3, 4), np.float32), np.arange(3))
    assert not np.isfinite(loss)
