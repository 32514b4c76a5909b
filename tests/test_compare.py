"""`compare`, `train_both` and `article`: what they say of finished runs."""

import json
import re
from pathlib import Path

import pytest

import experiments.article
import experiments.compare
import experiments.train_both
from experiments.compare import FinishedRun, chance, main, read_run, table
from experiments.plot import pyplot
from shared.checks import InputError
from shared.config import Config
from shared.randomness import initial_weights
from shared.records import make_header
from shared.weights import read_file, to_bytes
from tests.adapters import JAX, TORCH, WITH_GRADIENT

TINY = ("--epochs", "2", "--hidden-1", "16", "--hidden-2", "16")


@pytest.fixture
def pair(small_folder, tmp_path, capsys) -> list[Path]:
    """A run of PyTorch and one of JAX."""
    runs = [tmp_path / adapter.name for adapter in WITH_GRADIENT]
    for adapter, out in zip(WITH_GRADIENT, runs, strict=True):
        adapter.train.main([*TINY, "--data", str(small_folder), "--out", str(out)])
    capsys.readouterr()
    return runs


def edit(folder: Path, change, weights=None) -> None:
    """Change the lines of a log, and the log in the metadata of the weights alike."""
    log, path = folder / "log.jsonl", folder / "weights.safetensors"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines = change(lines) or lines
    log.write_text("".join(json.dumps(line) + "\n" for line in lines))
    path.write_bytes(to_bytes(weights or read_file(path)[0], {"log": json.dumps(lines)}))


def test_runs_side_by_side(pair, capsys):
    main(list(map(str, pair)))
    said = capsys.readouterr().out.splitlines()
    assert "NumPy scores the same" in said[0]
    for line, run in zip(said[1:3], map(read_run, pair), strict=True):
        assert run.median_seconds == run.history[1]["seconds"]  # the first may include compilation
        correct = round(run.history[1]["test_accuracy"] * 200)
        assert line.endswith(f"yes, {correct} of 200")
    assert said[3] == "the runs differ in framework: torch, jax"
    assert said[4].startswith("one seed each: two seeds can differ by points of accuracy. ")
    assert len(said) == 5
    assert table([read_run(pair[0])] * 2).splitlines()[3:] == ["the runs differ in no setting"]


def test_everything_that_sets_runs_apart_is_named(pair):
    def change(lines):
        header = lines[0]
        header["config"]["lr"], header["versions"]["numpy"] = 0.1, "1.0"
        header["machine"] |= {"processor": "of a test", "OMP_NUM_THREADS": "7"}
        header["images"] = "1 + 1"

    edit(pair[1], change)
    said = table([read_run(run) for run in pair])
    for name in ("framework: torch, jax", "lr: 0.5, 0.1", "images: 600 + 200, 1 + 1"):
        assert f"the runs differ in {name}" in said
    assert re.search(r"differ in version of numpy: \d\S+, 1.0$", said, re.M)
    assert re.search("differ in processor: .*, of a test$", said, re.M)
    assert re.search(r"differ in OMP_NUM_THREADS: .*, 7$", said, re.M)
    assert "version of torch" not in said  # only one of the frameworks has it


def test_a_run_of_several_parts_says_which_epochs_were_made_by_what(pair):
    other = json.loads((pair[1] / "log.jsonl").read_text().splitlines()[0])
    edit(pair[0], lambda lines: [*lines, other, {**lines[2], "epoch": 3}])
    assert "differ in framework: torch (1 to 2), jax (3 to 3)" in table([read_run(pair[0])])


def test_weights_of_another_run_are_found(pair, capsys):
    edit(pair[0], lambda lines: None, initial_weights(784, 16, 16, 10, seed=9))
    with pytest.raises(SystemExit) as stop:
        main(list(map(str, pair)))
    assert stop.value.code == 1
    assert capsys.readouterr().out.count("NO, ") == 1
    (pair[0] / "weights.safetensors").write_bytes((pair[1] / "weights.safetensors").read_bytes())
    with pytest.raises(InputError, match="do not belong together"):
        read_run(pair[0])
    for log in ("no JSON", "[1]", '[{"config": 2}]'):
        weights, _ = read_file(pair[0] / "weights.safetensors")
        (pair[0] / "weights.safetensors").write_bytes(to_bytes(weights, {"log": log}))
        with pytest.raises(InputError, match="do not belong together"):
            read_run(pair[0])
    edit(pair[1], lambda lines: lines[0].update(sha256="of other images"))
    with pytest.raises(InputError, match="with other images than"):
        read_run(pair[1])
    edit(pair[1], lambda lines: lines[:1])
    with pytest.raises(InputError, match="no epoch is finished"):
        read_run(pair[1])


def test_what_is_said_of_chance(small_data):
    def run(framework: str = "torch", data: str = "full", **changes) -> FinishedRun:
        header = make_header(framework, Config(**changes), small_data, "cpu")
        settings = experiments.compare._settings({**header, "data": data})
        return FinishedRun(Path("run"), {"1 to 10": settings}, [], 0, 0)

    assert "from 0.82 to 0.87" in chance([run(), run("jax")])
    assert "from 0.82 to 0.87" in chance([run(), run(p1=0.0, p2=0.0)])
    for other in (run("jax", epochs=9), run("jax", data="sample")):
        assert "by points" in chance([other, run(data="sample")])
    seeds = [run(framework, seed=seed) for framework in ("torch", "jax") for seed in (0, 1)]
    assert chance(seeds) is None
    assert chance(seeds[:1]) is None


def test_train_both_trains_checks_draws_and_goes_on(small_folder, tmp_path, capsys, monkeypatch):
    out = tmp_path / "with space"
    words = [*TINY, "--data", str(small_folder), "--out", str(out)]
    with monkeypatch.context() as patch:  # stopped between the two
        patch.setattr(JAX.train, "main", lambda args: (_ for _ in ()).throw(SystemExit(130)))
        with pytest.raises(SystemExit):
            experiments.train_both.main(words)
    experiments.train_both.main([*words, "--resume"])
    said = capsys.readouterr().out
    assert "is finished already" in said
    assert "trained in PyTorch and in JAX, on 600 images (epochs: 2)" in said
    assert "NumPy   gets exactly as many right" in said
    assert "Each drew its own dropout masks" in said
    flags = f"--epochs 2 --hidden-1 16 --hidden-2 16 --data {small_folder} --p1 0 --p2 0"
    assert f"-m impls.torch.train {flags} --out '{out}'/no-dropout" in said
    assert (out / "curves.png").read_bytes().startswith(b"\x89PNG")

    right = experiments.compare.evaluate
    monkeypatch.setattr(experiments.compare, "evaluate", lambda *a: (0, right(*a)[1] + 0.005))
    with pytest.raises(SystemExit) as stop:
        experiments.train_both.main([*words, "--overwrite", "--p1", "0", "--p2", "0"])
    assert stop.value.code == 1
    said = capsys.readouterr().out
    assert "does NOT get as many right" in said
    assert "No mask was drawn" in said

    (out / "curves.png").unlink()
    (out / "curves.png").mkdir()
    monkeypatch.setattr(TORCH.train, "main", pytest.fail)
    with pytest.raises(SystemExit) as stop:
        experiments.train_both.main(words)
    assert stop.value.code == 2  # before anything is trained


def test_the_curves_are_those_of_the_legend(pair, tmp_path, monkeypatch):
    runs = {adapter.name: read_run(run) for adapter, run in zip(WITH_GRADIENT, pair, strict=True)}
    plt = pyplot(tmp_path / "a.png")
    monkeypatch.setattr(plt, "close", lambda figure: None)
    experiments.train_both.draw(plt, runs, tmp_path / "a.png")
    panels = plt.gcf().axes
    monkeypatch.undo()
    plt.close("all")
    assert [panel.get_ylabel() for panel in panels] == ["loss", "accuracy"]
    for panel in panels:
        drawn = {line.get_label(): list(line.get_ydata()) for line in panel.lines}
        assert drawn == {
            f"{title}, {note}": [r[f"{kind}_{panel.get_ylabel()}"] for r in runs[name].history]
            for name, title in (("torch", "PyTorch"), ("jax", "JAX"))
            for kind, note in (("train", "training, dropout on"), ("test", "test, dropout off"))
        }


def test_article(small_folder, capsys):
    experiments.article.main(["--seeds", "2", "--epochs", "1", "--data", str(small_folder)])
    text = capsys.readouterr().out
    row = r"^\| (?:torch|jax) \| N ± N \| N ± N \| N, N \|$".replace("N", r"(0\.\d{4})")
    rows = re.findall(row, text, re.M)
    assert len(rows) == 2
    for mean, spread, on, _, first, second in (map(float, found) for found in rows):
        assert mean == pytest.approx((first + second) / 2, abs=1e-4)
        assert spread == pytest.approx(abs(first - second) / 2**0.5, abs=1e-4)
        assert on != mean
    assert "Welch" in text
