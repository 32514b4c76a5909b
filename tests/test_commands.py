"""The commands as a user types them, with good and with bad flags."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import experiments.article
import experiments.compare
import experiments.train_both
from experiments.compare import read_run
from shared.checks import InputError
from shared.data import FOLDER_VARIABLE
from shared.randomness import initial_weights
from shared.weights import load_weights, save_weights
from tests.adapters import ALL, JAX, TORCH, WITH_GRADIENT, Adapter

pytestmark = pytest.mark.usefixtures("quick_compilation")
ROOT = Path(__file__).parents[1]
TRAIN = ("--epochs", "1", "--hidden-1", "16", "--hidden-2", "16")
QUICK = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}


def run(
    *words: object, cwd: Path = ROOT, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, words)],
        cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True,
    )  # fmt: skip


def call(monkeypatch: pytest.MonkeyPatch, main, *words: object) -> None:
    """Run a command in this process, because importing takes seconds."""
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    main()


@pytest.mark.parametrize(
    ("form", "folder"),
    [
        ("module", "root"),
        ("module", "impls"),
        ("module", "elsewhere"),
        ("file", "elsewhere"),
    ],
)
def test_train_in_both_forms_from_any_folder(
    trainable: Adapter, form: str, folder: str, small_folder, tmp_path
):
    name = trainable.name
    start = {
        "module": ("-m", f"impls.{name}.train"),
        "file": (ROOT / "impls" / name / "train.py",),
    }[form]
    cwd = {"root": ROOT, "impls": ROOT / "impls", "elsewhere": tmp_path}[folder]
    out = tmp_path / "run"
    result = run(*start, *TRAIN, "--data", small_folder, "--out", out, cwd=cwd, env=QUICK)
    assert (result.returncode, result.stderr) == (0, "")
    assert re.search(r"^epoch  train loss .*\n +1( +\d+\.\d+){5}$", result.stdout, re.M), (
        result.stdout
    )
    assert load_weights(out / "weights.safetensors")["linear_1.weight"].shape == (16, 784)


def test_log_and_weights(trainable: Adapter, monkeypatch, small_folder, tmp_path, capsys):
    out = tmp_path / "a" / "run"
    words = (*TRAIN, "--epochs", 2, "--data", small_folder, "--out", out)
    call(monkeypatch, trainable.train.main, *words)
    header, *records = map(json.loads, (out / "log.jsonl").read_text().splitlines())
    assert header["config"]["epochs"] == 2
    assert header["config"]["p2"] == 0.5
    assert trainable.name in header["versions"]
    assert header["data"] == str(small_folder)
    assert header["images"] == "600 + 200"
    assert [record["epoch"] for record in records] == [1, 2]
    assert list(records[0]) == (
        ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy", "seconds"]
    )
    assert sorted(path.name for path in out.iterdir()) == [
        ".lock",
        "log.jsonl",
        "weights.safetensors",
    ]
    assert len(re.findall(r"^ +[12]( +\d+\.\d+){5}$", capsys.readouterr().out, re.M)) == 2

    # The same command gives the same bytes again.
    weights = (out / "weights.safetensors").read_bytes()
    call(monkeypatch, trainable.train.main, *words, "--overwrite")
    assert (out / "weights.safetensors").read_bytes() == weights

    # All frameworks classify equally many images correctly with these weights.
    capsys.readouterr()
    for adapter in ALL:
        call(monkeypatch, adapter.evaluate.main, "--weights", out / "weights.safetensors",
             "--data", small_folder)  # fmt: skip
    scores = re.findall(r"test accuracy ([\d.]+)  \((\d+) of 200\)", capsys.readouterr().out)
    assert len(scores) == 3
    assert len(set(scores)) == 1
    assert int(scores[0][1]) == round(records[-1]["test_accuracy"] * 200)


def test_defaults_are_the_article_s(trainable: Adapter, monkeypatch):
    configs = []
    monkeypatch.setattr(
        "shared.cli.parse", lambda kind, module, **d: configs.append(kind(**d)) or exit(0)
    )
    with pytest.raises(SystemExit):
        call(monkeypatch, trainable.train.main)
    (config,) = configs
    assert (config.epochs, config.batch_size, config.lr) == (10, 256, 0.5)
    assert (config.p1, config.p2, config.hidden_1, config.hidden_2) == (0.2, 0.5, 256, 256)
    assert (config.seed, config.data, config.dtype) == (0, "auto", "float32")
    assert (config.device, config.precision, config.resize) == ("auto", "highest", None)
    assert config.out == Path("runs") / trainable.name


def refusal(monkeypatch, capsys, main, *words: object) -> str:
    """Run a command that must end with status 2. Return what it printed on stderr, unwrapped."""
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, main, *words)
    printed = capsys.readouterr()
    assert stop.value.code == 2
    assert "Traceback" not in printed.err
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
    "--dtype int8": "--dtype",
    "--data /no/such/folder": "/no/such/folder",
    "--data sample --device nonsense": "no device 'nonsense'",
    "--data sample --out /proc/no/such": "cannot write to /proc/no/such",
    "stray": "stray",
}


@pytest.mark.parametrize("words", BAD_FLAGS)
def test_a_bad_train_flag(trainable: Adapter, words: str, monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    said = refusal(monkeypatch, capsys, trainable.train.main, *words.split())
    assert BAD_FLAGS[words] in said
    if "/" not in words and "device" not in words:
        assert f"python -m impls.{trainable.name}.train --help" in said


def test_bad_evaluate_flags_and_files(framework: Adapter, monkeypatch, capsys, tmp_path):
    def refused(*words: object) -> str:
        return refusal(monkeypatch, capsys, framework.evaluate.main, *words)

    assert "--weights" in refused()
    assert "no weight file" in refused("--weights", tmp_path / "none")
    path = tmp_path / "weights.safetensors"
    path.write_text("not weights")
    assert "not a readable safetensors" in refused("--weights", path)
    save_weights(path, initial_weights(784, 8, 8, 10, seed=0))
    assert "/no/such" in refused("--weights", path, "--data", "/no/such")
    assert "no device" in refused("--weights", path, "--data", "sample", "--device", "nonsense")
    save_weights(path, initial_weights(783, 8, 8, 10, seed=0))
    assert "square" in refused("--weights", path, "--data", "sample")
    save_weights(path, initial_weights(784, 8, 8, 5, seed=0))
    assert "has 5 outputs, but the labels go up to 9" in refused(
        "--weights", path, "--data", "sample"
    )


def test_an_input_error_is_one_line_from_outside():
    result = run("-m", "impls.torch.train", "--data", "/no/such")
    assert result.returncode == 2
    assert result.stderr.startswith("error: there is no folder /no/such. Data can be full, sample")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "module", ["impls.torch.train", "impls.jax.evaluate", "experiments.compare"]
)
def test_usage_names_the_module(module: str, monkeypatch, capsys):
    main = importlib.import_module(module).main
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, main, "--help")
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith(f"usage: python -m {module} ")


def test_a_bad_device_leaves_an_older_log_alone(
    trainable: Adapter, monkeypatch, small_folder, tmp_path, capsys
):
    words = (*TRAIN, "--data", small_folder, "--out", tmp_path)
    call(monkeypatch, trainable.train.main, *words)
    log = (tmp_path / "log.jsonl").read_bytes()
    capsys.readouterr()
    refusal(monkeypatch, capsys, trainable.train.main, *words, "--device", "nonsense")
    assert (tmp_path / "log.jsonl").read_bytes() == log


def test_a_newline_in_a_path_is_still_one_line(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        call(monkeypatch, TORCH.train.main, "--data", "/no/a\nb")
    assert capsys.readouterr().err.count("\n") == 1


def test_the_first_run_without_data_or_network(tmp_path):
    """`make train` on such a machine: one notice, both networks, a picture and a summary."""
    env = {
        **QUICK,
        "XDG_CACHE_HOME": str(tmp_path),
        "http_proxy": "http://127.0.0.1:9",
        "HTTP_PROXY": "http://127.0.0.1:9",
        FOLDER_VARIABLE: "",
    }
    out = tmp_path / "runs"
    code = (
        "import sys, pathlib, shared.data as d; d.PACKAGE_FOLDER = pathlib.Path('/nowhere');"
        "import shared.fetch as f; f._from_apt = lambda folder: f._run(['no-apt-get'], '/');"
        f"sys.argv = ['train', *{TRAIN!r}, '--epochs', '2', '--out', {str(out)!r}];"
        "import experiments.train_both as t; t.main()"
    )
    result = run("-c", code, env=env)
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("SAMPLE") == 1
    assert "torch: sample: 10,240 + 2,000 images" in result.stdout
    assert "trained in PyTorch and in JAX, on 10,240 images (epochs: 2)" in result.stdout
    assert "NumPy   gets exactly as many right" in result.stdout
    assert "Each drew its own dropout masks" in result.stdout
    suggested = "-m impls.torch.train --epochs 2 --hidden-1 16 --hidden-2 16 --p1 0 --p2 0 --out "
    assert suggested in result.stdout
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")
    for name in ("torch", "jax"):
        assert re.search(
            rf"  {'PyTorch' if name == 'torch' else 'JAX'} +\d+\.\d\d% of", result.stdout
        )
        header, *_ = (out / name / "log.jsonl").read_text().splitlines()
        assert json.loads(header)["data"] == "sample"  # where the setting was auto


def test_the_summary_says_when_numpy_disagrees(monkeypatch, small_folder, tmp_path, capsys):
    real, errors = experiments.compare.evaluate_weights, iter((0.005, 0.0))  # one of the two

    def wrong(*arguments):
        loss, accuracy = real(*arguments)
        return loss, accuracy + next(errors)

    monkeypatch.setattr(experiments.compare, "evaluate_weights", wrong)
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, experiments.train_both.main, *TRAIN, "--data", small_folder,
             "--out", tmp_path)  # fmt: skip
    assert stop.value.code == 1
    assert "does NOT get as many right" in capsys.readouterr().out


def test_the_summary_of_a_run_without_masks_and_a_path_with_a_space(
    monkeypatch, small_folder, tmp_path, capsys
):
    out = tmp_path / "with space"
    call(monkeypatch, experiments.train_both.main, *TRAIN, "--p1", "0", "--p2", "0",
         "--data", small_folder, "--out", out)  # fmt: skip
    said = capsys.readouterr().out
    assert "No mask was drawn" in said
    assert "own dropout masks" not in said
    assert f"--out '{out}'/no-dropout" in said


def test_a_picture_that_cannot_be_written_is_one_line_after_the_summary(
    monkeypatch, small_folder, tmp_path, capsys
):
    (tmp_path / "curves.png").mkdir()
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, experiments.train_both.main, *TRAIN, "--data", small_folder,
             "--out", tmp_path)  # fmt: skip
    said = capsys.readouterr()
    assert stop.value.code == 2
    assert "NumPy   gets exactly as many right" in said.out
    assert said.err.startswith("error: cannot write ")


def test_a_resized_network_is_scored_on_resized_images(
    trainable: Adapter, monkeypatch, small_folder, tmp_path, capsys
):
    words = (*TRAIN, "--data", small_folder, "--resize", 14, "--out", tmp_path)
    call(monkeypatch, trainable.train.main, *words)
    call(monkeypatch, trainable.evaluate.main, "--weights", tmp_path / "weights.safetensors",
         "--data", small_folder)  # fmt: skip
    record = json.loads((tmp_path / "log.jsonl").read_text().splitlines()[-1])
    correct = round(record["test_accuracy"] * 200)
    assert load_weights(tmp_path / "weights.safetensors")["linear_1.weight"].shape == (16, 196)
    assert f"({correct} of 200)" in capsys.readouterr().out


def test_compare(monkeypatch, small_folder, tmp_path, capsys):
    runs = [tmp_path / adapter.name for adapter in WITH_GRADIENT]
    for adapter, out in zip(WITH_GRADIENT, runs, strict=True):
        call(monkeypatch, adapter.train.main, *TRAIN, "--data", small_folder, "--out", out)
    capsys.readouterr()
    call(monkeypatch, experiments.compare.main, *runs)
    said = capsys.readouterr().out
    assert said.count("yes, ") == 2
    assert "NumPy scores the same" in said.splitlines()[0]
    assert said.splitlines()[-1] == "the runs differ in framework: torch, jax"

    # The table shows the last epoch, whichever was best, and the middle time without the first.
    run = read_run(runs[0])
    log = runs[0] / "log.jsonl"
    before = log.read_text()
    first, second = (dict(run.last, epoch=e, seconds=s) for e, s in ((1, 90.0), (2, 1.0)))
    first["test_accuracy"] = 1.0
    header = before.splitlines()[0]
    log.write_text("\n".join([header, json.dumps(first), json.dumps(second)]) + "\n")
    edited = read_run(runs[0])
    assert (edited.correct, edited.median_seconds) == (run.correct, 1.0)
    assert edited.agrees

    # Other versions, and settings that only one run has, are named. Other data is an error.
    path = runs[0] / "weights.safetensors"
    save_weights(path, load_weights(path))  # now it does not say of which run it is
    other = json.loads(header)
    other["versions"]["numpy"], other["config"]["momentum"] = "1.0", 0.9
    for order in (runs, runs[::-1]):
        log.write_text("\n".join([json.dumps(other), json.dumps(second)]) + "\n")
        capsys.readouterr()
        call(monkeypatch, experiments.compare.main, *order)
        said = capsys.readouterr().out
        assert "differ in momentum: " in said
        assert "differ in version of numpy: " in said
        assert "version of torch" not in said  # only one of the two has it
    log.write_text("\n".join([header.replace("600 + 200", "600 + 500"), json.dumps(second)]))
    with pytest.raises(InputError, match=r"was made with 600 \+ 500 images, but .* has 600 \+ 200"):
        read_run(runs[0])
    log.write_text(before)

    # Settings that differ are named.
    words = ("--lr", "0.1", "--seed", "7", "--data", small_folder, "--out", runs[1], "--overwrite")
    call(monkeypatch, JAX.train.main, *TRAIN, *words)
    capsys.readouterr()
    call(monkeypatch, experiments.compare.main, *runs)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "the runs differ in framework: torch, jax",
        "the runs differ in lr: 0.5, 0.1",
        "the runs differ in seed: 0, 7",
    ]

    # With other weights than those of the run, NumPy gets another score.
    save_weights(runs[0] / "weights.safetensors", initial_weights(784, 16, 16, 10, seed=9))
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, experiments.compare.main, *runs)
    assert stop.value.code == 1
    assert capsys.readouterr().out.count("NO, ") == 1
    good = (runs[0] / "log.jsonl").read_text().splitlines()
    for text in (
        "not json",
        "",
        "[]",
        "{}",
        '{"config": null}',
        good[0].replace('"config": {', '"config": [["a", 1]], "b": {'),
        f"{good[0]}\n{{}}",
    ):
        (runs[0] / "log.jsonl").write_text(text)
        assert "not the log of a run" in refusal(
            monkeypatch, capsys, experiments.compare.main, *runs
        )
    (runs[0] / "log.jsonl").write_text(good[0])
    assert "no epoch is finished" in refusal(monkeypatch, capsys, experiments.compare.main, *runs)


def test_article(monkeypatch, small_folder, capsys):
    words = ("--seeds", 2, "--epochs", 1, "--data", small_folder)
    call(monkeypatch, experiments.article.main, *words)
    text = capsys.readouterr().out
    assert len(re.findall(r"^\| (?:torch|jax) \| 0\.\d{4} ± 0\.\d{4} \|", text, re.M)) == 2
    assert "Welch" in text
