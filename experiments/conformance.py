"""Write docs/conformance.md: our dropouts and those that people use, clause by clause.

python -m experiments.conformance
"""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from dropout_contract import CONTRACT_VERSION, CannotCheck, check
from dropout_contract.clauses import CLAUSES, TIERS
from dropout_contract.report import MEANING

TABLE = Path(__file__).parents[1] / "docs" / "conformance.md"
OURS = {
    "impls.torch.dropout:dropout": "torch",
    "impls.jax.dropout:dropout": "jax",
    "impls.numpy.dropout:dropout": "numpy",
}
OTHERS = {
    "torch.nn.functional:dropout": "torch",
    "torch.nn:Dropout": "torch",
    "flax.nnx:Dropout": "jax",
    "flax.linen:Dropout": "jax",
    "equinox.nn:Dropout": "jax",
    "haiku:dropout": "jax",
    "keras.layers:Dropout on torch": "torch",
    "keras.layers:Dropout on jax": "jax",
    "benchmarks.article:dropout": "torch",
}
MARKS = {"passed": "✓", "deviates": "**✗**", "not applicable": "–"}


def report_of(path: str, framework: str) -> dict[str, Any]:
    """Check one subject in a process of its own, because a process has one Keras."""
    words = [sys.executable, "-m", "experiments.conformance", "--one", path, framework]
    environment = {**os.environ, "KERAS_BACKEND": framework}
    result = subprocess.run(words, capture_output=True, text=True, env=environment)
    if result.returncode:
        raise CannotCheck(f"{path}: {result.stderr.strip()[-300:] or result.returncode}")
    return json.loads(result.stdout.splitlines()[-1])


def page(reports: dict[str, dict[str, Any]]) -> str:
    """Return the page, from the report of each subject."""
    versions = {k: v for report in reports.values() for k, v in report["versions"].items()}
    names = {path: path.replace(":", ".").replace(".dropout.dropout", "") for path in reports}
    found = {
        (path, clause["name"]): clause
        for path, report in reports.items()
        for clause in report["clauses"]
    }
    lines = [
        "# Conformance",
        "",
        f"Dropouts against every clause of the dropout contract {CONTRACT_VERSION}"
        " ([contract/](../contract/README.md)), on the CPU, with seed 0.",
        "✓ passed, **✗** deviates, – not applicable. A deviation says what was measured."
        " It need not be a bug: some of these layers promise something else.",
        "`benchmarks.article.dropout` is the function of the article that this project comes from.",
        "",
        "The tiers say what a deviation means:",
        "",
        *(f"- *{tier}*: {MEANING[tier]}." for tier in TIERS),
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + ".",
        "Written by `python -m experiments.conformance`, which needs the extra `peers`.",
        "",
        "| tier | clause | " + " | ".join(f"`{name}`" for name in names.values()) + " |",
        "|---|---|" + "---|" * len(names),
    ]
    for tier in TIERS:
        for clause in CLAUSES.values():
            if clause.tier == tier:
                row = " | ".join(MARKS[found[path, clause.name]["outcome"]] for path in names)
                lines.append(f"| {tier} | {clause.name} | {row} |")
    for tier in TIERS:
        row = " | ".join(
            str(sum(c["outcome"] == "deviates" and c["tier"] == tier for c in report["clauses"]))
            for report in reports.values()
        )
        lines.append(f"| {tier} | | {row} |".replace("| |", "| *deviations* |", 1))
    seconds = " | ".join(f"{report['seconds']:.0f} s" for report in reports.values())
    lines += [f"| | *time* | {seconds} |", "", "## What the clauses say", ""]
    lines += [f"- **{clause.name}**: {clause.sentence}" for clause in CLAUSES.values()]
    lines += ["", "## What deviates", ""]
    for path, name in names.items():
        for clause in CLAUSES.values():
            result = found[path, clause.name]
            if result["outcome"] == "deviates":
                fact = result["fact"].replace(sys.prefix, "")
                lines.append(f"- `{name}`, {clause.tier}, {clause.name}: {fact}")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Check everything and write the page."""
    parser = argparse.ArgumentParser(description="Write docs/conformance.md anew.")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.one:
        path, framework = flags.one
        print(json.dumps(check(path.split(" on ")[0], framework, name=path).to_dict()))
        return
    missing = [name for name in ("equinox", "haiku", "keras") if not importlib.util.find_spec(name)]
    if missing:
        parser.error(
            f"{', '.join(missing)} not installed: pip install -c constraints.txt -e '.[peers]'"
        )
    reports = {}
    for path, framework in (OURS | OTHERS).items():
        reports[path] = report_of(path, framework)
        print(f"{path}: {reports[path]['headline']} ({reports[path]['seconds']:.0f} s)", flush=True)
    TABLE.write_text(page(reports))
    print(f"wrote {TABLE}")


if __name__ == "__main__":
    main()
