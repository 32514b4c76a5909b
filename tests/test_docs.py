"""The pages are true: every command can be run, every figure has a record, every file is there."""

import ast
import hashlib
import importlib
import importlib.util
import itertools
import json
import math
import re
import shlex
import shutil
import sys
import tomllib
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dropout_contract.cli
import numpy as np
import pytest
from dropout_contract.backends import FRAMEWORKS
from dropout_contract.clauses import CLAUSES
from dropout_contract.mutants import KILLED_BY, MUTANTS
from dropout_contract.right import right_designs
from markdown_it import MarkdownIt
from torch.distributed.run import get_args_parser

import impls.torch.train
import shared.run
from experiments import train_both
from experiments.parallel.equality import EqualityConfig
from shared.config import Config
from shared.data import SILENCE, load
from shared.records import EpochRecord, Header
from shared.weights import shapes_of
from tests.conftest import small, write_folder
from tests.network_mutants import NETWORK_MUTANTS

ROOT = Path(__file__).parents[1]
DOCS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", "README.zh-CN.md", "CONTRIBUTING.md", "contract/README.md", *DOCS]
PROGRAMS = ("make", "pip", "python", "pytest", "torchrun", "mpirun", "srun", "dropout-contract",
            "apt-get", "pre-commit", "grep", "export", ".")  # fmt: skip


def text_of(page: str) -> str:
    return (ROOT / page).read_text()


def tokens(page: str) -> list:
    """Return what a page consists of, with what stands within its lines."""
    found = MarkdownIt("commonmark").enable("table").parse(text_of(page))
    return found + [child for token in found for child in token.children or ()]


def commands_of(page: str) -> list[str]:
    """Return the lines of all blocks without a language, and the commands within the text."""
    found = []
    for token in tokens(page):
        if token.type == "code_block" or (token.type == "fence" and not token.info):
            found += token.content.splitlines()
        elif token.type == "fence" and token.info == "yaml":
            found += re.findall(r"- run: (.*)", token.content)
        elif token.type == "code_inline":
            first, _, rest = re.sub(r"^(\w+=\S+ )*", "", token.content).partition(" ")
            if (rest and Path(first).name in PROGRAMS) or token.content == "pytest":
                found.append(token.content)
    return [command for line in found if (command := re.sub(r"\s+#.*", "", line).strip())]


COMMANDS = sorted({command for page in PAGES for command in commands_of(page)})


class Parsed(Exception):  # noqa: N818 - no error: the flags were read
    """The flags were accepted."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A folder with tiny runs of the names that the pages use."""
    place = tmp_path_factory.mktemp("pages")
    data = small()
    few = small(
        train_images=data.train_images[:64], train_labels=data.train_labels[:64],
        test_images=data.test_images[:50], test_labels=data.test_labels[:50],
    )  # fmt: skip
    flags = ["--data", str(write_folder(place / "data", few)), "--epochs", "1", "--hidden-1", "8"]
    impls.torch.train.main([*flags, "--out", str(place / "runs" / "torch")])
    for name in ("jax", "no-dropout"):
        shutil.copytree(place / "runs" / "torch", place / "runs" / name)
    return place


# Commands that are quick enough to be run with the words of the page and these. `folder` trains.
RUN = {
    "impls.torch.evaluate": ["--data", "data"],
    "impls.jax.evaluate": ["--data", "data"],
    "impls.numpy.evaluate": ["--data", "data"],
    "experiments.compare": [],
}


class Checks:
    """How each program of the pages is checked."""

    def __init__(self, monkeypatch) -> None:
        self.monkeypatch = monkeypatch

    def make(self, words: Sequence[str]) -> None:
        """The target is in the Makefile, and variables are used there."""
        makefile = text_of("Makefile")
        for word in words:
            name, given, value = word.partition("=")
            assert f"$({name})" in makefile if given else re.search(rf"^{name}:", makefile, re.M)
            if given:  # flags of `make train`
                self.python(["-m", "experiments.train_both", *shlex.split(value)])

    def pip(self, words: Sequence[str]) -> None:
        """Folders, extras and constraints exist."""
        assert words[0] == "install"
        for before, word in itertools.pairwise(words):
            if before == "-c":
                assert (ROOT / word).is_file()
            elif word.startswith("."):
                path, _, extras = word.rstrip("]").partition("[")
                project = tomllib.loads((ROOT / path / "pyproject.toml").read_text())["project"]
                assert set(filter(None, extras.split(","))) <= set(project["optional-dependencies"])
            else:
                assert word in ("-c", "-e"), word

    def python(self, words: Sequence[str]) -> None:
        """The command runs, or it accepts its flags."""
        assert words[0] == "-m"
        name, flags = words[1], [{"NAME": "rates"}.get(word, word) for word in words[2:]]
        spec = importlib.util.find_spec(name)
        assert spec, name
        module = importlib.import_module(
            f"{name}.__main__" if spec.submodule_search_locations else name
        )
        if name in RUN:
            return module.main([*flags, *RUN[name]])
        of = shared.run if name.endswith((".train", ".parallel")) else module
        reader, how = (of, "parse") if hasattr(of, "parse") else (ArgumentParser, "parse_args")
        read = getattr(reader, how)

        def parsed(*args, **settings):
            read(*args, **settings)
            raise Parsed

        self.monkeypatch.setattr(reader, how, parsed)
        self.monkeypatch.setattr(sys, "argv", [name, *flags])
        with pytest.raises(Parsed):
            module.main()
        return None

    def torchrun(self, words: Sequence[str]) -> None:
        """Torchrun accepts its flags, and the command its own."""
        flags = get_args_parser().parse_args(words)
        assert flags.module
        self.python(["-m", flags.training_script, *flags.training_script_args])

    def mpirun(self, words: Sequence[str]) -> None:
        """Variables that are passed on are known, and the command accepts its flags."""
        start = words.index("python")
        for before, word in itertools.pairwise(words[:start]):
            if before == "-x":
                self.variable(word)
        assert set(words[:start:2]) <= {"-n", "-x"}
        self.python(words[start + 1 :])

    srun = mpirun

    def pytest(self, words: Sequence[str]) -> None:
        """The tests exist, or the marker."""
        if words[:1] == ["-m"]:
            assert f'"{words[1]}: ' in text_of("pyproject.toml")
            words = words[2:]
        assert all((ROOT / word).exists() for word in words)

    def dropout_contract(self, words: Sequence[str]) -> None:
        """The command accepts its words, and checks nothing."""
        seen = []
        for name in ("_check", "_list", "_limits", "_selftest"):
            self.monkeypatch.setattr(dropout_contract.cli, name, lambda flags: seen.append(flags))
        dropout_contract.cli.main(words)
        subject = getattr(seen[0], "subject", "my:")
        if not subject.startswith("my"):
            module, _, name = subject.partition(":")
            assert hasattr(importlib.import_module(module), name)

    def apt_get(self, words: Sequence[str]) -> None:
        """What is installed by hand, .ci/run installs, too."""
        assert words[0] in ("install", "download")
        assert set(words[1:]) <= set(text_of(".ci/run").split())

    def pre_commit(self, words: Sequence[str]) -> None:
        """It is configured."""
        assert (ROOT / ".pre-commit-config.yaml").exists()

    def grep(self, words: Sequence[str]) -> None:
        """It finds something."""
        _, pattern, place = words
        assert any(pattern in path.read_text() for path in (ROOT / place).rglob("*.py"))

    def activate(self, words: Sequence[str]) -> None:
        """The environment is the one that `make venv` makes."""
        assert words == [".venv/bin/activate"]

    def export(self, words: Sequence[str]) -> None:
        """Something reads each variable."""
        for word in words:
            self.variable(word)

    def variable(self, word: str) -> None:
        """Something here or in JAX reads this variable."""
        name, _, _ = word.partition("=")
        assert name in ("JAX_NUM_PROCESSES", "JAX_PROCESS_ID", "JAX_COORDINATOR_ADDRESS")
        assert name in text_of("impls/jax/parallel.py")


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_is_real(command: str, folder: Path, monkeypatch):
    monkeypatch.chdir(folder)
    words = shlex.split(command)
    checks = Checks(monkeypatch)
    while "=" in words[0]:
        checks.variable(words.pop(0))
    program = Path(words[0]).name if words[0] != "." else "activate"
    assert program in (*PROGRAMS, "activate"), f"nothing says how to check: {command}"
    getattr(checks, program.replace("-", "_"))(words[1:])


def test_the_pages_have_commands():
    assert len(COMMANDS) > 50
    assert "python -m impls.jax.parallel --devices 2 --out runs/jax-2" in COMMANDS
    assert "pip install ./contract" in COMMANDS


@pytest.mark.parametrize("page", PAGES)
def test_files_named_on_a_page_exist(page: str):
    for token in tokens(page):
        if token.type == "code_inline" and re.fullmatch(r"[\w./-]+/[\w.-]*", token.content):
            name = token.content
            top = name.split("/")[0]
            if (ROOT / top).is_dir() and top not in ("build", "runs"):
                assert (ROOT / name).exists(), name
        if token.type == "link_open" and ":" not in token.attrs["href"]:
            path = token.attrs["href"].partition("#")[0]
            assert not path or ((ROOT / page).parent / path).exists(), path


# The README.


def functions(source: str) -> dict[str, list[str]]:
    """Return the arguments of each function, and its statements."""
    found = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            names = [a.arg for a in (*node.args.args, *node.args.kwonlyargs)]
            found[node.name] = [", ".join(names), *map(ast.unparse, node.body)]
    return found


def test_the_readme_shows_lines_of_the_sources():
    for page in ("README.md", "README.zh-CN.md"):
        blocks = re.findall(r"^```python\n(.*?)\n```", text_of(page), re.S | re.M)
        for block, framework in zip(blocks, ("torch", "jax", "numpy"), strict=True):
            real = functions(text_of(f"impls/{framework}/dropout.py"))
            shown = functions(block)
            assert list(shown) == ["sample_keep", "apply_keep"]
            for name, lines in shown.items():
                assert [line for line in real[name] if line in lines] == lines, name
                assert len(lines) == 3


def topics() -> set[str]:
    """Return the topic of each `# DIFF topic: reason` in impls."""
    found = set()
    for path in (ROOT / "impls").rglob("*.py"):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if "# DIFF" in line:
                mark = re.search(r"# DIFF ([a-z0-9 ]+): \S", line)
                assert mark, f"{path}:{number} is not of the form `# DIFF topic: reason`"
                found.add(mark[1])
    return found


def test_the_readme_lists_every_marked_difference_and_no_other():
    section = text_of("README.md").split("## Where the frameworks differ")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([a-z0-9 ]+) \| (.+) \| (.+) \|$", section, re.M)
    assert sorted(row[0] for row in rows[1:]) == sorted(topics())


def test_the_readme_is_short():
    assert len(text_of("README.md").splitlines()) <= 150
    assert len(text_of("README.md").split()) <= 1200


def blocks(text: str) -> list[str]:
    """Return what blank lines separate, without comments."""
    return [b for b in re.split(r"\n\s*\n", text) if not b.startswith("<!--")]


def test_the_chinese_readme_is_that_of_the_english_one():
    english, chinese = text_of("README.md"), text_of("README.zh-CN.md")
    for ours, theirs in zip(blocks(english), blocks(chinese), strict=True):
        assert len(ours.splitlines()) == len(theirs.splitlines()), ours
        assert ours.split()[0][0] == theirs.split()[0][0] or not ours.startswith(("#", "|", "`"))
        for pattern in (r"\d+(?:[.,]\d+)*", r"`[^`\n]+`"):
            found = [sorted(re.findall(pattern, text)) for text in (ours, theirs)]
            assert found[0] == found[1], ours
    # Whoever changes README.md changes the translation, and then this digest at its end.
    digest = hashlib.sha256(english.encode()).hexdigest()
    assert f"<!-- README.md: sha256 {digest} -->" in chinese


def test_the_readme_shows_what_make_train_prints(monkeypatch):
    shown = re.search(r"```text\n(The same.*?)\n```", text_of("README.md"), re.S)
    assert shown
    figures = re.findall(r"  (\w+) +([\d.]+)% .*?, ([\d.]+) seconds", shown[1])
    runs: Any = {
        name.lower().removeprefix("py"): SimpleNamespace(
            settings={"images": "60,000 + 10,000"}, median_seconds=float(seconds), agrees=True,
            history=[{"test_accuracy": float(accuracy) / 100}],
        )
        for name, accuracy, seconds in figures
    }  # fmt: skip
    monkeypatch.setattr(sys, "executable", str(Path.cwd() / ".venv/bin/python"))
    assert train_both.summary(runs, train_both.BothConfig()).strip() == shown[1]


def test_the_reference_names_every_key_of_the_log():
    section = text_of("docs/reference.md").split("### Log")[1].split("\n## ")[0]
    for name in (*Header.__annotations__, *EpochRecord.__annotations__):
        assert f"`{name}`" in section, name


# Figures.


def shown(number: float) -> str:
    return f"{number:.1e}".replace("e-0", "e-")


def test_the_figures_of_lockstep_are_those_that_it_printed():
    printed, page = text_of("docs/lockstep.txt"), text_of("docs/proofs.md")
    assert printed.startswith("full: 60,000 + 10,000 images; 10 epochs in float64\n")
    parts = re.split(r"\nmasks drawn by .*\n", printed)[1:]
    for name, part in zip(("JAX", "PyTorch"), parts, strict=True):
        losses = [float(row) for row in re.findall(r"^ +\d+ +\S+ +\S+ +(\S+)", part, re.M)]
        assert len(losses) == 10
        assert losses[0] == max(losses)  # it shrinks after the first epoch
        weights, logits = (float(x) for x in re.findall(r"max \|.*? = (\S+)", part)[:2])
        correct = re.search(r"torch (\d+), JAX \1, NumPy \1\n", part)
        assert correct
        cells = " | ".join(map(shown, (max(losses), weights, logits)))
        assert f"| {name} | {cells} | {correct[1]}, the same in all three |\n" in page
    largest = float(re.findall(r"max \|loss difference\| = (\S+)", printed)[0])
    steps = f"{10 * math.ceil(60_000 / Config.batch_size):,}"
    assert f"at most {largest:.0e} in {steps} steps" in text_of("README.md")
    assert f"{steps} steps" in page
    assert f"grows to {largest:.0e}" in page
    printed = text_of("docs/lockstep-float32.txt")
    ours, theirs = re.findall(r"images: torch (\d+), JAX (\d+)", printed)[0]
    step = re.findall(r"at step (\d+)", printed)[0]
    words = " ".join(page.split())
    assert f"At step {step} their losses first differ by more than 0.001" in words
    assert f"with {int(ours):,} (PyTorch) and {int(theirs):,} (JAX) correct images" in words


def test_the_figures_of_the_article_are_those_that_were_printed():
    page = text_of("docs/article.md")
    printed = text_of("docs/article.txt")
    assert printed.startswith("full: 60,000 + 10,000 images; 10 epochs; seeds 0 to 4\n")
    table = re.search(r"\| framework.*\|\n", printed, re.S)
    assert table
    assert table[0] in page
    for mean, spread in re.findall(r"([\d.]+) ± ([\d.]+)", table[0]):
        assert abs(float(mean) - 0.853) < 2 * float(spread)
    p = float(re.findall(r"t-test: p = (\S+)", printed)[0])
    assert f"p = {p:.2f}" in page
    assert p > 0.05


def test_the_figures_of_the_contract_are_counted():
    clauses, wrong = len(CLAUSES), len(KILLED_BY) + len(NETWORK_MUTANTS)
    words = {page: " ".join(text_of(page).split()) for page in PAGES}
    assert f"A contract of {clauses} clauses" in words["README.md"]
    assert f"every one of {wrong} wrong dropouts and networks" in words["README.md"]
    assert f"in `contract/` has {clauses} clauses" in words["docs/proofs.md"]
    assert f"there are {wrong} wrong dropouts and networks" in words["docs/proofs.md"]
    assert f"finds the {len(NETWORK_MUTANTS)} wrong networks" in words["docs/proofs.md"]
    assert min(len(right_designs(framework)) for framework in FRAMEWORKS) >= 20
    of = {f: sum(f in mutant.frameworks for mutant in MUTANTS.values()) for f in FRAMEWORKS}
    sentence = "{torch} wrong dropouts in PyTorch, {jax} in JAX and {numpy} in NumPy"
    assert sentence.format(**of) in words["contract/README.md"]
    assert f"checks {clauses} statements" in words["contract/README.md"]


def test_the_figures_of_the_data_are_counted():
    sample, page = load("sample"), " ".join(text_of("docs/data.md").split())
    assert f"| `sample` | {sample.images} images" in text_of("docs/data.md")
    each = [np.unique(np.bincount(of)).item() for of in (sample.train_labels, sample.test_labels)]
    assert f"{each[0]:,} training and {each[1]:,} test images of each class" in page
    assert len(sample.train_images) == 40 * Config.batch_size
    assert 10_000 % Config.batch_size == 16
    assert f"after {SILENCE:.0f} seconds" in page
    assert "N up to 128" in page
    Config(resize=128)


def test_the_figures_of_other_pages_are_those_of_the_sources():
    for name, shape in shapes_of((784, Config.hidden_1, Config.hidden_2, 10)).items():
        assert f"`{name}`" in text_of("docs/porting.md")
        assert str(shape) in text_of("docs/porting.md")
    python = tomllib.loads(text_of("pyproject.toml"))["project"]["requires-python"]
    for page in ("README.md", "docs/index.md"):
        assert f"Python {python.removeprefix('>=')} or later" in text_of(page)
    # What docs/parallel.md says beside its tables, which are made from docs/parallel.json.
    defaults = EqualityConfig()
    assert (defaults.epochs, defaults.lr, defaults.data) == (10, 0.1, "sample")
    assert defaults.batch_sizes == (256, 353)
    assert len(load("sample").train_images) % 353 == 3


def test_the_messages_of_a_group_are_in_the_source():
    paths = ("shared/run.py", "shared/cli.py", "impls/jax/parallel.py", "impls/torch/parallel.py")
    source = re.sub(r'"\s+f?"', "", "".join(map(text_of, paths)))
    section = text_of("docs/parallel.md").split("## What can fail")[1].split("\n\n")[1]
    messages = re.findall(r"`((?:error|stopped).*?)`", section)
    assert len(messages) == 5
    for message in messages:
        # What a message says of its own case stands between these.
        for part in re.split(r"error: |process 1: .*|\(.*?\)\. |\d+\. |UNKNOWN.*", message):
            assert part.strip() in source, part


def test_the_parallel_tables_have_their_columns():
    recorded = json.loads(text_of("docs/parallel.json"))
    heads = re.findall(r"^```\{rows\} (\w+)\n(.*)\n```", text_of("docs/parallel.md"), re.M)
    assert {name for name, _ in heads} == set(recorded)
    for name, head in heads:
        assert {row.strip("|").count("|") for row in recorded[name]} == {head.count("|")}
