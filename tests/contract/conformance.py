"""Write docs/conformance.md: every subject against every clause, with what was measured.

python -m tests.contract.conformance
"""

import inspect
import warnings
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tests.contract.clauses import CLAUSES, NotApplicable, Run
from tests.contract.subjects import Subject, builtins, ours

TABLE = Path(__file__).parents[2] / "docs" / "conformance.md"
PACKAGES = ("torch", "jax", "flax", "numpy", "equinox", "dm-haiku")


def outcome(subject: Subject, clause: str) -> tuple[str, str]:
    """Return passed, deviates or n/a, and for a deviation what was seen."""
    try:
        CLAUSES[clause](Run(subject, seed=0))
    except NotApplicable as reason:
        return "n/a", str(reason)
    except Exception as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        return "deviates", f"{type(error).__name__}: {' '.join(lines)[:300]}"
    return "passed", ""


def versions() -> str:
    """Return the versions of what was put to the test."""
    found = []
    for package in PACKAGES:
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join(found)


def main() -> None:
    """Run everything and write the table."""
    subjects = [*ours(), *builtins()]
    marks = {"passed": "✓", "deviates": "**✗**", "n/a": "–"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        results = {(c, s.name): outcome(s, c) for s in subjects for c in CLAUSES}
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
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
