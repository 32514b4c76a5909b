"""The command as a user types it, from a wheel in an environment of its own."""

import json
import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from dropout_contract.clauses import CLAUSES
from dropout_contract.cli import main

ROOT = Path(__file__).parents[1]
SUBJECT = """
import numpy as np


def dropout(x, p, *, training, rng=None):
    if not 0 <= p <= 1:
        raise ValueError("p must be in [0, 1]")
    if x.dtype.kind != "f":
        raise TypeError("x must be floating-point")
    if not training or p == 0:
        return x
    if p == 1:
        return np.zeros_like(x)
    if rng is None:
        raise ValueError("pass rng=")
    return np.where(rng.random(x.shape) >= p, x / x.dtype.type(1 - p), x.dtype.type(0))


def wrong(x, p, *, training, rng=None):
    return np.where(rng.random(x.shape) >= p, x, 0).astype(x.dtype) if training else x


def misspelt(x, p, colour):
    return x
"""
TEST = """
from dropout_contract import parametrize_with_clauses
from shared.layers import dropout


@parametrize_with_clauses(dropout, framework="numpy")
def test_dropout(clause):
    clause()
"""


def test_exit_status_and_files(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", ["", *sys.path])
    (tmp_path / "mine.py").write_text(SUBJECT)
    values = ("--only", "values", "--only", "zeros_at_one")
    assert (
        main(["check", "mine.py:dropout", *values, "--json", "r.json", "--markdown", "r.md"]) == 0
    )
    report = json.loads((tmp_path / "r.json").read_text())
    assert report["ok"]
    assert report["contract"] == "2.0"
    assert [clause["name"] for clause in report["clauses"]] == ["values", "zeros_at_one"]
    assert "| wrong | values | passed |" in (tmp_path / "r.md").read_text()
    fresh = ["check", "mine.py:dropout", "--only", "values", "--fresh-seed", "--json"]
    for name in ("a", "b"):
        assert main([*fresh, name]) == 0
    seeds = [json.loads((tmp_path / name).read_text())["seed"] for name in ("r.json", "a", "b")]
    assert len(set(seeds)) == 3
    assert seeds[0] == 0
    assert main(["check", "mine.py:wrong", "--framework", "numpy", "--only", "values"]) == 1
    assert "DEVIATES   wrong" in capsys.readouterr().out
    for words in (
        ["check", "mine.py:misspelt", "--framework", "numpy"],
        ["check", "mine.py:nothing"],
        ["check", "mine.py:dropout", "--framework", "torch"],
        ["check", "mine.py:dropout", "--only", "vlaues"],
        ["check", "mine.py:dropout", "--seed", "-1"],
        ["check", "mine.py:dropout", "--json", "no/such/folder.json"],
    ):
        assert main(words) == 2, words
        out, err = capsys.readouterr()
        assert err.startswith("dropout-contract: ")
        assert "Traceback" not in out + err


def test_list_and_limits(capsys):
    assert main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(CLAUSES) + 2  # two headings
    assert main(["limits"]) == 0
    assert "cannot see" in capsys.readouterr().out


@pytest.mark.slow  # Python compiles all that is imported anew
def test_without_docstrings_it_says_the_same(tmp_path):
    """python -OO removes docstrings. The sentences of the clauses stand there."""
    (tmp_path / "mine.py").write_text(SUBJECT)
    check = ("check", "mine.py:wrong", "--framework", "numpy", "--only", "values", "--json", "r")
    said = []
    for options in ((), ("-OO",)):
        command = [sys.executable, *options, "-m", "dropout_contract", *check]
        ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert (ended.returncode, ended.stderr) == (1, "")
        said.append(re.sub(r"\d+\.\d s\b", "", ended.stdout))
    assert said[0] == said[1]
    assert json.loads((tmp_path / "r").read_text())["clauses"][0]["says"].startswith("Each unit")


def test_a_reader_who_has_seen_enough_ends_it_quietly():
    command = [sys.executable, "-m", "dropout_contract", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # before the first line
        assert process.wait() == 2
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("output", "status"), [(">&-", 0), ("> /dev/full", 2), ("| cat > /dev/null", 0)]
)
def test_wherever_the_output_goes_there_is_no_traceback(output: str, status: int):
    if "full" in output and not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    command = f"{sys.executable} -m dropout_contract list {output}"
    ended = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert ended.returncode == status
    assert "Traceback" not in ended.stderr


def test_a_terminal_without_such_letters_gets_escapes(tmp_path):
    (tmp_path / "mine.py").write_text(SUBJECT.replace("def dropout", "def dröpout"))
    words = [sys.executable, "-m", "dropout_contract", "check", "mine.py:dröpout"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    ended = subprocess.run([*words, "--only", "values"], cwd=tmp_path, env=environment,
                           capture_output=True, text=True)  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert "dr\\xf6pout" in ended.stdout


@pytest.mark.slow
def test_the_wheel_works_in_an_environment_of_its_own(tmp_path):
    """One framework (NumPy), in a project that has folders tests/ and shared/ of its own."""
    wheels, source = tmp_path / "wheels", tmp_path / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns("build", "*.egg-info"))
    words = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", wheels]
    subprocess.run([*words, source], check=True, capture_output=True)
    (wheel,) = wheels.iterdir()
    assert wheel.stat().st_size < 200_000
    venv.create(tmp_path / "env")
    python = tmp_path / "env" / "bin" / "python"
    constraints = ROOT.parent / "constraints.txt"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-compile",
         "-c", constraints, wheel, "pytest"],
        check=True, capture_output=True,
    )  # fmt: skip
    project = tmp_path / "project"
    for folder in ("shared", "tests"):
        (project / folder).mkdir(parents=True)
        (project / folder / "__init__.py").touch()
    (project / "shared" / "layers.py").write_text(SUBJECT)
    (project / "tests" / "test_layers.py").write_text(TEST)
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST"))}

    def run(*words: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(word) for word in words], cwd=project, env=clean, capture_output=True, text=True
        )

    command = run(python.parent / "dropout-contract", "check", "shared.layers:dropout")
    assert command.returncode == 0, command.stdout + command.stderr
    assert "numpy" in command.stdout
    api = run(
        python,
        "-c",
        "import sys; from dropout_contract import check; from shared.layers import dropout;"
        " assert check(dropout).ok; assert not {'torch', 'jax', 'impls'} & set(sys.modules)",
    )
    assert api.returncode == 0, api.stderr
    tests = run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert tests.returncode == 0, tests.stdout
    assert " passed" in tests.stdout
    torch = run(python, "-m", "dropout_contract", "check", "shared.layers:dropout", "--framework",
                "torch")  # fmt: skip
    assert torch.returncode == 2
    assert "torch is not installed" in torch.stderr


@pytest.mark.parametrize("folder", ["src"])
def test_the_package_imports_nothing_of_the_project(folder):
    for file in (ROOT / folder).rglob("*.py"):
        text = file.read_text()
        assert "import impls" not in text
        assert "from impls" not in text
        assert "from shared" not in text
