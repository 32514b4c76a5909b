"""Try what runs and files survive, and write the figures into docs/reliability.md.

python -m tests.reliability                            # all: hours
python -m tests.reliability --parts faults cost        # some: the rest stays as it was
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.reliability import cost, faults, inputs, kills, load, sameness
from tests.reliability.page import page

DOCS = Path(__file__).parents[2] / "docs"
FRAMEWORKS = ("torch", "jax")


def in_folder(measure: Callable[[Path], Any]) -> Any:
    """Call a function with a folder that is empty, and removed afterwards."""
    with tempfile.TemporaryDirectory() as name:
        return measure(Path(name))


def parts(flags: argparse.Namespace) -> dict[str, Callable[[], Any]]:
    """Return what can be tried, by name."""
    return {
        "kills": lambda: {
            framework: in_folder(lambda folder, f=framework: kills.measure(f, flags.kills, folder))
            for framework in FRAMEWORKS
        },
        "faults": lambda: {
            "system calls": in_folder(faults.system_calls),
            "short writes": in_folder(lambda folder: faults.short_writes(folder, step=100)),
            "loss of power": in_folder(faults.power_losses),
        },
        "inputs": lambda: in_folder(inputs.measure),
        "memory": lambda: {
            framework: {
                "many_calls": load.measure(framework, "many_calls", flags.calls),
                "many_epochs": load.measure(framework, "many_epochs", flags.epochs),
            }
            for framework in FRAMEWORKS
        },
        "sameness": lambda: {
            framework: {dtype: sameness.measure(framework, dtype, 20) for dtype in flags.dtypes}
            for framework in FRAMEWORKS
        },
        "cost": lambda: {framework: cost.measure(framework, 10) for framework in FRAMEWORKS},
    }


def failures(results: dict) -> int:
    """Return how much is counted or listed under names that begin with FAILED."""
    count = 0
    for name, of in results.items():
        if name.startswith("FAILED"):
            count += len(of) if isinstance(of, list) else of
        elif isinstance(of, dict):
            count += failures(of)
    return count


def main() -> None:
    """Measure, and write the page. Exit with status 1 if anything failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="*", help="what to try; all if not given")
    parser.add_argument("--kills", type=int, default=200, help="of each framework")
    parser.add_argument("--calls", type=int, default=1000, help="of train in one process")
    parser.add_argument("--epochs", type=int, default=2000, help="of one run")
    parser.add_argument("--dtypes", nargs="*", default=["float32", "float64"])
    flags = parser.parse_args()
    results = json.loads((DOCS / "reliability.json").read_text())
    for name, measure in parts(flags).items():
        if not flags.parts or name in flags.parts:
            results[name] = measure()
            text = json.dumps(results, indent=1, sort_keys=True) + "\n"
            (DOCS / "reliability.json").write_text(text)
    (DOCS / "reliability.md").write_text(page(results))
    failed = failures(results)
    print(f"{failed} failures. Wrote {DOCS}/reliability.md")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
