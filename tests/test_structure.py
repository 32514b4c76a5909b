"""What holds the project together: twin files have the same parts, and imports go one way."""

import ast
import hashlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("torch", "jax", "numpy")
TWINS = {
    "dropout": FRAMEWORKS,
    "noise": FRAMEWORKS,
    "mlp": FRAMEWORKS,
    "evaluate": FRAMEWORKS,
    "parallel": ("torch", "jax"),
    "train": ("torch", "jax"),
    "runtime": ("torch", "jax"),
}
# Names of the same thing in the frameworks. NumPy alone needs "training", which is left out.
SYNONYMS = {
    "generator": "source", "key": "source", "rng": "source", "seed": "source",
    "forward": "call", "__call__": "call",
    "training": "-",
}  # fmt: skip


def tree(framework: str, twin: str) -> ast.Module:
    return ast.parse((ROOT / "impls" / framework / f"{twin}.py").read_text())


def functions(module: ast.Module) -> dict[str, ast.FunctionDef | ast.ClassDef]:
    """Return public functions, classes and their methods, in the order of the file."""
    found: dict[str, ast.FunctionDef | ast.ClassDef] = {}
    for node in module.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            found[node.name] = node
            for method in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(method, ast.FunctionDef):
                    name = SYNONYMS.get(method.name, method.name)
                    if not name.startswith("_") or name == "__init__":
                        found[f"{node.name}.{name}"] = method
    return found


def arguments(function: ast.FunctionDef) -> list[str]:
    names = [SYNONYMS.get(a.arg, a.arg) for a in (*function.args.args, *function.args.kwonlyargs)]
    return [name for name in names if name != "-"]


def headings(node: ast.AST) -> list[str]:
    """Return the headings of a docstring: Args, Returns, Raises, Source."""
    return re.findall(r"^\s*(Args|Returns|Raises|Source):", ast.get_docstring(node) or "", re.M)


@pytest.mark.parametrize(
    ("twin", "impl"), [(t, f) for t, fs in TWINS.items() for f in fs if f != "torch"]
)
def test_twins_have_the_same_names_arguments_and_docstrings(twin: str, impl: str):
    ours, theirs = functions(tree("torch", twin)), functions(tree(impl, twin))
    if impl == "numpy":  # it has no layers, only the function
        layers = ("Dropout", "Noise")
        ours = {name: node for name, node in ours.items() if name.split(".")[0] not in layers}
    theirs.pop("compiled_code_on_disk", None)  # PyTorch compiles nothing
    assert list(theirs) == list(ours)
    for name, node in ours.items():
        twin_node = theirs[name]
        assert ast.get_docstring(node) or name.endswith("__init__"), name
        assert headings(twin_node) == headings(node), name
        if isinstance(node, ast.FunctionDef) and isinstance(twin_node, ast.FunctionDef):
            assert arguments(twin_node) == arguments(node), name
    module_docstrings = (tree("torch", twin), tree(impl, twin))
    assert headings(module_docstrings[0]) == headings(module_docstrings[1])


@pytest.mark.parametrize("impl", FRAMEWORKS)
def test_an_implementation_imports_only_its_own_framework(impl: str):
    others = {"torch", "jax", "flax", "optax"} - {
        "torch": {"torch"},
        "jax": {"jax", "flax", "optax"},
        "numpy": set(),
    }[impl]
    for path in (ROOT / "impls" / impl).glob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] not in {*others, "experiments", "tests"}, path
            assert not name.startswith("impls.") or f"{name}.".startswith(f"impls.{impl}."), path


def imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names.append(node.module or "")
    return names


def test_shared_imports_no_framework():
    files = sorted((ROOT / "shared").rglob("*.py"))
    for path in files:
        top = {name.split(".")[0] for name in imports(path)}
        assert not top & {"torch", "jax", "flax", "optax", "impls", "experiments", "tests"}, path
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    code = (
        f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\n"
        "import shared.data; shared.data.load('sample')\n"
        "print(sorted({'torch', 'jax', 'tensorflow'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("impl", FRAMEWORKS)
def test_an_implementation_runs_without_the_other_framework(impl: str):
    blocked = {"torch", "jax", "flax", "optax"} - {
        "torch": {"torch"},
        "jax": {"jax", "flax", "optax"},
        "numpy": set(),
    }[impl]
    twins = [twin for twin, frameworks in TWINS.items() if impl in frameworks]
    code = (
        f"import sys\nfor name in {sorted(blocked)}: sys.modules[name] = None\n"
        f"import importlib\nfor t in {twins}: importlib.import_module('impls.{impl}.' + t)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


@pytest.mark.parametrize("impl", FRAMEWORKS)
def test_a_folder_that_shadows_its_framework_fails_loudly(impl: str):
    code = f"import sys; sys.path.insert(0, {str(ROOT / 'impls')!r}); import {impl}"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode != 0
    assert f"this is impls.{impl}" in result.stderr


def bare(framework: str) -> str:
    """Return `apply_keep` of a framework without docstring, comments and annotations."""
    function = functions(tree(framework, "dropout"))["apply_keep"]
    assert isinstance(function, ast.FunctionDef)
    function.body, function.returns = function.body[1:], None
    for argument in (*function.args.args, *function.args.kwonlyargs):
        argument.annotation = None
    return ast.unparse(function)


def test_the_readme_shows_the_real_functions():
    readme = (ROOT / "README.md").read_text()
    shown = re.findall(r"^```python\n(def apply_keep.*?)\n```", readme, re.S | re.M)
    assert [ast.unparse(ast.parse(block)) for block in shown] == [bare(f) for f in FRAMEWORKS]


def marked_differences() -> dict[str, set[str]]:
    """Return the topic of each `# DIFF topic: reason` in impls, and the frameworks that have it."""
    found: dict[str, set[str]] = {}
    for impl in FRAMEWORKS:
        for path in (ROOT / "impls" / impl).glob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                if "DIFF" in line:
                    mark = re.search(r"# DIFF ([a-z0-9 ]+)(: \S.*)?$", line)
                    assert mark, f"{path}:{number} is not of the form `# DIFF topic: reason`"
                    found.setdefault(mark[1], set()).add(impl)
    return found


def test_the_readme_lists_every_marked_difference_and_no_other():
    readme = (ROOT / "README.md").read_text()
    section = readme.split("## Where the frameworks differ")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([a-z0-9 ]+) \| (.+) \| (.+) \|$", section, re.M)
    assert sorted(row[0] for row in rows[1:]) == sorted(marked_differences())


def test_the_readme_is_short():
    readme = (ROOT / "README.md").read_text()
    assert len(readme.splitlines()) <= 150
    assert len(readme.split()) <= 1200


def blocks(text: str) -> list[str]:
    """Return what blank lines separate, without comments."""
    return [b for b in re.split(r"\n\s*\n", text) if not b.startswith("<!--")]


def test_the_chinese_readme_is_that_of_the_english_one():
    english, chinese = ((ROOT / f).read_text() for f in ("README.md", "README.zh-CN.md"))
    pairs = list(zip(blocks(english), blocks(chinese), strict=True))
    for ours, theirs in pairs:
        assert len(ours.splitlines()) == len(theirs.splitlines()), ours
        assert ours.split()[0][0] == theirs.split()[0][0] or not ours.startswith(("#", "|", "`"))
        numbers = [sorted(re.findall(r"\d+(?:[.,]\d+)*", text)) for text in (ours, theirs)]
        assert numbers[0] == numbers[1], ours
        code = [sorted(re.findall(r"`[^`\n]+`", text)) for text in (ours, theirs)]
        assert code[0] == code[1], ours
    # Whoever changes README.md changes the translation, and then this digest at its end.
    digest = hashlib.sha256(english.encode()).hexdigest()
    assert f"<!-- README.md: sha256 {digest} -->" in chinese


def test_the_lesson_is_short():
    lines = {path: len(path.read_text().splitlines()) for path in (ROOT / "impls").rglob("*.py")}
    assert max(lines.values()) <= 180


def test_the_repository_holds_text_the_sample_and_plots_only():
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    heavy = [
        name
        for name in listed.stdout.split()
        if (ROOT / name).exists() and (ROOT / name).stat().st_size > 300_000
    ]
    heavy = [name for name in heavy if not name.startswith("shared/sample/")]
    assert set(heavy) <= {"docs/exercises/runs.jsonl"}  # hours of training, as text
