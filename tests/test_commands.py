"""The commands as a user types them, with good and with bad flags."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from shared.checks import InputError
from shared.cli import one_line_errors
from shared.data import to_inputs
from shared.randomness import initial_weights
from shared.weights import load_weights, to_bytes
from tests.adapters import ALL, NUMPY, TORCH, Adapter
from tests.conftest import small, write_folder

ROOT = Path(__file__).parents[1]
TRAIN = ("--epochs", "1", "--hidden-1", "16", "--hidden-2", "16")


def run(*words: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, *map(str, words)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def call(main, *words: object) -> None:
    """Run a command in this process, because importing takes seconds."""
    main([str(word) for word in words])


@pytest.mark.parametrize("form", ["file", "module"])
def test_train_in_both_forms_from_any_folder(form, small_folder, tmp_path):
    start, cwd = {
        "file": ((ROOT / "impls/torch/train.py",), tmp_path),
        "module": (("-m", "impls.jax.train"), ROOT / "impls"),
    }[form]
    result = run(*start, *TRAIN, "--data", small_folder, "--out", tmp_path / "run", cwd=cwd)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"^epoch  train loss .*\n +1( +\d+\.\d+){5}$", result.stdout, re.M)
    weights = load_weights(tmp_path / "run" / "weights.safetensors")
    assert weights["linear_1.weight"].shape == (16, 784)


@pytest.mark.parametrize("resize", [(), ("--resize", 14)], ids=["", "resized"])
def test_all_score_the_weights_of_a_run_alike(
    trainable: Adapter, resize, small_folder, tmp_path, capsys
):
    data = ("--data", small_folder)
    call(trainable.train.main, *TRAIN, *data, *resize, "--out", tmp_path)
    record = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    (tmp_path / "log.jsonl").write_bytes(b"\xff" * 1000)  # nothing that matters here
    capsys.readouterr()
    for adapter in ALL:
        call(adapter.evaluate.main, "--weights", tmp_path / "weights.safetensors", *data)
    printed = capsys.readouterr().out
    assert [line.split(":")[0] for line in printed.splitlines()[::2]] == ["torch", "jax", "numpy"]
    scores = re.findall(r"test accuracy ([\d.]+)  \((\d+) of 200\)", printed)
    correct = round(record["test_accuracy"] * 200)
    assert scores == [(f"{record['test_accuracy']:.4f}", str(correct))] * 3


def test_a_run_on_large_images_of_the_user_is_scored(framework: Adapter, tmp_path, capsys):
    images = np.random.default_rng(0).integers(0, 256, (20, 130, 130))
    large = {"train_images": images, "train_labels": np.arange(20) % 10}
    data = small(**large, test_images=images[:10], test_labels=np.arange(10))
    folder, path = write_folder(tmp_path / "data", data), tmp_path / "weights"
    path.write_bytes(to_bytes(initial_weights(130**2, 8, 8, 10, seed=0)))
    call(framework.evaluate.main, "--weights", path, "--data", folder)
    assert "20 + 10 images" in capsys.readouterr().out


def test_defaults_are_the_article_s(trainable: Adapter, monkeypatch):
    configs = []
    monkeypatch.setattr("shared.run.load", lambda *_, **__: sys.exit(0))
    real = trainable.train.Run
    monkeypatch.setattr(
        trainable.train, "Run", lambda *a: configs.append((run := real(*a)).config) or run
    )
    with pytest.raises(SystemExit):
        call(trainable.train.main)
    (config,) = configs
    assert (config.epochs, config.batch_size, config.lr) == (10, 256, 0.5)
    assert (config.p1, config.p2, config.hidden_1, config.hidden_2) == (0.2, 0.5, 256, 256)
    assert (config.seed, config.data, config.dtype) == (0, "auto", "float32")
    assert (config.device, config.precision, config.resize) == ("auto", "highest", None)
    assert config.out == Path("runs") / trainable.name


@pytest.mark.parametrize("flags", [(), ("--precision", "medium", "--device", "cpu")], ids=str)
def test_device_and_precision_reach_the_framework(
    trainable: Adapter, flags, small_folder, tmp_path
):
    precision = flags[1] if flags else "highest"
    call(trainable.train.main, *TRAIN, *flags, "--data", small_folder, "--out", tmp_path)
    if trainable.name == "torch":
        assert torch.get_float32_matmul_precision() == precision
    else:
        names = {"highest": "highest", "medium": "default"}  # JAX calls bfloat16 the default
        assert jax.config.jax_default_matmul_precision == names[precision]
        assert jax.config.jax_default_device == jax.devices("cpu")[0]


def test_auto_is_a_gpu_where_there_is_one(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    asked = []
    monkeypatch.setattr(torch, "zeros", lambda *_, device: asked.append(device) or torch.ones(1))
    TORCH.device.use()
    TORCH.device.use("cpu")
    assert asked == ["cuda", "cpu"]


def test_the_number_of_correct_images_is_whole(framework: Adapter, tmp_path, capsys):
    data = small()
    weights = initial_weights(784, 8, 8, 10, seed=0)
    model = NUMPY.mlp.MLP(784, 8, 8)
    found = model(to_inputs(data.test_images[:100])).argmax(1)
    labels = np.where(np.arange(100) < 29, found, (found + 1) % 10)  # 100 * 0.29 is below 29
    some = small(test_images=data.test_images[:100], test_labels=labels)
    (tmp_path / "weights").write_bytes(to_bytes(weights))
    folder = write_folder(tmp_path / "data", some)
    call(framework.evaluate.main, "--weights", tmp_path / "weights", "--data", folder)
    assert "test accuracy 0.2900  (29 of 100)" in capsys.readouterr().out


def refusal(capsys, main, *words: object) -> str:
    """Run a command that must end with status 2. Return what it printed on stderr, unwrapped."""
    with pytest.raises(SystemExit) as stop:
        call(main, *words)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    return " ".join(re.sub(r"[│╭╮╰╯─|]|[+-]{5,}", " ", printed.err).split())


# Wrong flags, each with a text that the explanation must contain.
BAD_FLAGS = {
    "--foo 1": "--foo",
    "--epohcs 3": "Perhaps you meant: --epochs INT",
    "--epochs": "--epochs",
    "--epochs x": "--epochs",
    "--epochs 0": "epochs must be in 1 ... 1000000000, got 0",
    "--epochs 1.5": "--epochs",
    "--batch-size 0": "batch_size must be",
    "--lr nan": "lr must be",
    "--lr -1": "lr must be",
    "--p1 1.5": "p1 must be in [0, 1], got 1.5",
    "--p2 nan": "p2 must be in [0, 1], got nan",
    "--hidden-1 0": "hidden_1 must be",
    "--hidden-2 -3": "hidden_2 must be",
    "--seed -1": "seed must be",
    "--seed 4294967296": "seed must be",
    "--resize 0": "resize must be",
    "--resize 1024": "resize must be in 1 ... 128, got 1024",
    "--resume --overwrite": "choose one",
    "--dtype int8": "--dtype",
    "--data /no/such/folder": "/no/such/folder",
    "--data sample --device nonsense": "no device 'nonsense'",
    "--data sample --out /proc/no/such": "/proc/no",
    "stray": "stray",
}


@pytest.mark.parametrize("words", BAD_FLAGS)
def test_a_bad_train_flag(trainable: Adapter, words: str, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    said = refusal(capsys, trainable.train.main, *words.split())
    assert BAD_FLAGS[words] in said
    by_tyro = f"python -m impls.{trainable.name}.train --help" in said
    assert by_tyro != said.startswith("error: ")
    assert not list(tmp_path.rglob("*.safetensors"))


def test_bad_evaluate_flags_and_files(framework: Adapter, capsys, tmp_path):
    def refused(*words: object) -> str:
        return refusal(capsys, framework.evaluate.main, *words)

    assert "--weights" in refused()
    assert "no weight file" in refused("--weights", tmp_path / "none")
    path = tmp_path / "weights.safetensors"
    path.write_bytes(to_bytes(initial_weights(784, 8, 8, 10, seed=0)))
    assert "/no/such" in refused("--weights", path, "--data", "/no/such")
    for device in ("nonsense", *(["cuda", "mps"] if framework is NUMPY else [])):
        said = refused("--weights", path, "--data", "sample", "--device", device)
        assert f"no device '{device}'" in said
    path.write_bytes(to_bytes(initial_weights(129**2, 8, 8, 10, seed=0)))
    said = refused("--weights", path, "--data", "sample")
    assert "images of 129 x 129 pixels, and these have 28 x 28" in said
    nothing = initial_weights(4, 8, 8, 10, seed=0) | {"linear_1.weight": np.zeros((8, 0), "f4")}
    path.write_bytes(to_bytes(nothing))
    assert "a layer is empty" in refused("--weights", path, "--data", "sample")
    path.write_bytes(to_bytes(initial_weights(783, 8, 8, 10, seed=0)))
    assert "not trained on square images" in refused("--weights", path, "--data", "sample")
    path.write_bytes(to_bytes(initial_weights(784, 8, 8, 5, seed=0)))
    said = refused("--weights", path, "--data", "sample")
    assert "has 5 outputs, but the labels go up to 9" in said


def test_weights_that_overflow_are_scored_without_a_warning(capsys, tmp_path):
    huge = {n: np.full_like(w, 3e38) for n, w in initial_weights(784, 2, 2, 10, seed=0).items()}
    (tmp_path / "weights").write_bytes(to_bytes(huge))
    call(NUMPY.evaluate.main, "--weights", tmp_path / "weights", "--data", "sample")
    assert "test loss nan" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(InputError("no\nfile"), 2, "error: no file\n"),
     (InputError("x" * 10_000), 2, f"error: {'x' * 600}\n"),
     (MemoryError(), 2, "error: there is not enough memory\n"),
     (OSError(28, "No space left on device"), 2, "error: [Errno 28] No space left on device\n"),
     (RuntimeError("CUDA out of memory"), 2, "error: CUDA out of memory\n"),
     (KeyboardInterrupt(), 130, "\nstopped\n")],
    ids=["input", "long", "memory", "disk", "CUDA", "Ctrl-C"],
)  # fmt: skip
def test_an_error_is_one_line_and_a_status(error, status: int, said: str, capsys):
    with pytest.raises(SystemExit) as stop, one_line_errors():
        raise error
    assert stop.value.code == status
    assert capsys.readouterr().err == said


def test_an_error_in_the_program_keeps_its_traceback():
    with pytest.raises(RuntimeError, match="a fault"), one_line_errors():
        raise RuntimeError("a fault")


@pytest.mark.parametrize(
    "module", ["impls.torch.train", "impls.jax.evaluate", "experiments.compare"]
)
def test_usage_names_the_module(module: str, capsys):
    with pytest.raises(SystemExit) as stop:
        call(importlib.import_module(module).main, "--help")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} ")
