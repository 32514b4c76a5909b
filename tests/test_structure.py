"""What holds the project together: twin files have the same parts, and imports go one way."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FRAMEWORKS = ("torch", "jax", "numpy")
# The lesson, and what is beside it, from below. A file imports only what stands before it.
ORDER = ("prng", "device", "dropout", "noise", "mlp", "evaluate", "train", "parallel")
OF = {"torch": {"torch"}, "jax": {"jax", "flax", "optax"}, "numpy": set()}
TWINS = {
    "dropout": FRAMEWORKS,
    "noise": FRAMEWORKS,
    "mlp": FRAMEWORKS,
    "evaluate": FRAMEWORKS,
    "train": ("torch", "jax"),
    "device": ("torch", "jax"),
    "parallel": ("torch", "jax"),
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
    """Return the names of the arguments, with their default values."""
    of = function.args
    every = [*of.args, *of.kwonlyargs]
    required = [None] * (len(of.args) - len(of.defaults))
    defaults = [default and ast.unparse(default).lower() for default in
                (*required, *of.defaults, *of.kw_defaults)]  # fmt: skip
    named = [(SYNONYMS.get(a.arg, a.arg), d) for a, d in zip(every, defaults, strict=True)]
    return [f"{name}={default}" for name, default in named if name != "-"]


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
    theirs.pop("ParallelConfig", None)  # torchrun has the flag of its own
    theirs.pop("ParallelConfig.__post_init__", None)
    assert list(theirs) == list(ours)
    for name, node in ours.items():
        twin_node = theirs[name]
        assert ast.get_docstring(node) or name.endswith("__init__"), name
        assert headings(twin_node) == headings(node), name
        if isinstance(node, ast.FunctionDef) and isinstance(twin_node, ast.FunctionDef):
            assert arguments(twin_node) == arguments(node), name
    module_docstrings = (tree("torch", twin), tree(impl, twin))
    assert headings(module_docstrings[0]) == headings(module_docstrings[1])


def imports(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("impl", FRAMEWORKS)
def test_an_implementation_imports_only_its_own_framework_and_what_is_below(impl: str):
    others = {"torch", "jax", "flax", "optax", "experiments", "benchmarks", "tests"} - OF[impl]
    for path in (ROOT / "impls" / impl).glob("*.py"):
        for name in imports(path):
            assert name.split(".")[0] not in others, path
            assert not name.startswith("impls.") or f"{name}.".startswith(f"impls.{impl}."), path
            if len(parts := name.split(".")) > 2 and parts[0] == "impls":
                assert ORDER.index(parts[2]) < ORDER.index(path.stem), path


def test_shared_imports_no_framework():
    files = sorted((ROOT / "shared").rglob("*.py"))
    for path in files:
        above = {"torch", "jax", "flax", "optax", "impls", "experiments", "benchmarks", "tests"}
        assert not {name.split(".")[0] for name in imports(path)} & above, path
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in files]
    code = (
        f"import sys, importlib\nfor m in {modules}: importlib.import_module(m)\n"
        "import shared.data; shared.data.load('sample')\n"
        "print(sorted({'torch', 'jax', 'tensorflow', 'tensorflow_datasets'} & set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("impl", FRAMEWORKS)
def test_an_implementation_runs_without_the_other_framework(impl: str):
    blocked = {"torch", "jax", "flax", "optax"} - OF[impl]
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
