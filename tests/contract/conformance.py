"""Write docs/conformance.md: every subject against every clause, with what was measured.

python -m tests.contract.conformance
"""

import argparse
import importlib.util
import inspect
import json
import subprocess
import sys
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.contract.clauses import CLAUSES
from tests.contract.run import NotApplicable, Run
from tests.contract.subjects import Subject, builtins, keras_subject, ours

TABLE = Path(__file__).parents[2] / "docs" / "conformance.md"
PACKAGES = ("torch", "jax", "flax", "numpy", "equinox", "dm-haiku", "keras")


def outcome(subject: Subject, clause: str) -> tuple[str, str]:
    """Return passed, deviates or n/a, and for a deviation what was seen."""
    try:
        CLAUSES[clause](Run(subject, seed=0))
    except NotApplicable as reason:
        return "n/a", str(reason)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = " ".join(lines).replace(sys.prefix, "").removeprefix("AssertionError: ")
        return "deviates", f"{type(error).__name__}: {text[:200]}"
    return "passed", ""


def versions() -> str:
    """Return the versions of what was put to the test."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package).split('+')[0]}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def outcomes(subject: Subject) -> dict[str, tuple[str, str]]:
    """Put one subject to every clause."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {clause: outcome(subject, clause) for clause in CLAUSES}


def keras_outcomes(framework: str) -> dict[str, tuple[str, str]]:
    """Do so for Keras, in a process of its own: it has one backend in each."""
    words = [sys.executable, "-m", "tests.contract.conformance", "--keras", framework]
    result = subprocess.run(words, capture_output=True, text=True, check=True)
    return json.loads(result.stdout.splitlines()[-1])


def main() -> None:
    """Run everything and write the table."""
    parser = argparse.ArgumentParser(description="Write docs/conformance.md anew.")
    parser.add_argument("--without-peers", action="store_true", help="do with fewer columns")
    parser.add_argument("--keras", choices=("torch", "jax"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.keras:
        print(json.dumps(outcomes(keras_subject(flags.keras))))
        return
    missing = [name for name in ("equinox", "haiku", "keras") if not importlib.util.find_spec(name)]
    if missing and not flags.without_peers:
        parser.error(
            f"{', '.join(missing)} not installed: the table would lose columns; install"
            " '.[peers]', or say --without-peers"
        )
    subjects = [*ours(), *builtins()]
    marks = {"passed": "✓", "deviates": "**✗**", "n/a": "–"}
    results = {(c, s.name): r for s in subjects for c, r in outcomes(s).items()}
    if importlib.util.find_spec("keras"):
        for framework in ("torch", "jax"):
            subjects.append(keras_subject(framework))
            found = keras_outcomes(framework)
            results |= {(c, subjects[-1].name): r for c, r in found.items()}
    names = {s.name: s.name.split(":")[0].removesuffix(".dropout") if ":" in s.name else s.name
             for s in subjects}  # fmt: skip
    lines = [
        "# Conformance",
        "",
        "Every subject against every clause of the contract (`tests/contract/clauses.py`), on the",
        "CPU, seed 0. ✓ passed, **✗** deviates, – not applicable. A deviation is a measured fact,",
        "not a verdict: some of these layers promise something else.",
        "",
        f"Versions: {versions()}. Written by `python -m tests.contract.conformance`.",
        "",
        "| clause | " + " | ".join(f"`{name}`" for name in names.values()) + " |",
        "|---|" + "---|" * len(subjects),
    ]
    for clause in CLAUSES:
        row = " | ".join(marks[results[clause, subject.name][0]] for subject in subjects)
        lines.append(f"| {clause} | {row} |")
    lines += ["", "## What the clauses say", ""]
    for clause, function in CLAUSES.items():
        lines.append(f"- **{clause}**: {(inspect.getdoc(function) or '').splitlines()[0]}")
    lines += ["", "## What deviates", ""]
    for subject in subjects:
        for clause in CLAUSES:
            kind, seen = results[clause, subject.name]
            if kind == "deviates":
                lines.append(f"- `{names[subject.name]}`, {clause}: {seen}")
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n")
    print(f"wrote {TABLE.relative_to(Path.cwd()) if TABLE.is_relative_to(Path.cwd()) else TABLE}")


if __name__ == "__main__":
    main()
