"""Stop runs, let them fail, and write what became of them into docs/reliability.md.

python -m tests.crash kills --runs 200 --framework both      # about 25 minutes on two cores
python -m tests.crash power                                  # about 5 minutes
"""

import argparse
import json
import re
import signal
import tempfile
from pathlib import Path

from tests.crash import kills, power

DOCS = kills.ROOT / "docs"
JSON, PAGE = DOCS / "reliability.json", DOCS / "reliability.md"


def rendered(page: str, results: dict) -> str:
    """Return the page with both tables made from the figures in the JSON file."""
    kinds = results["kills"]["torch"], results["kills"]["jax"]
    names = (*kills.MOMENTS, *kills.ENDS, *kills.FAILURES)
    rows = [("", "PyTorch", "JAX"), *((name, *(of.get(name, 0) for of in kinds)) for name in names)]
    faults = [("", "tried", "lost"), *((n, *of.values()) for n, of in results["power"].items())]
    for table in (rows, faults):
        lines = [f"| {' | '.join(map(str, row))} |" for row in (table[0], ["---"] * 3, *table[1:])]
        old = re.compile(rf"^{re.escape(lines[0])}$(\n\|.*)*", re.M)
        page = old.sub("\n".join(lines), page)
    return page


def main() -> None:
    """Measure, and write the page. The status is 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("kills", "power"))
    parser.add_argument("--runs", type=int, default=200, help="of each framework")
    parser.add_argument("--framework", choices=("torch", "jax", "both"), default="both")
    flags = parser.parse_args()
    # Without a handler of ours, commands that a shell starts in the background ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as name:
        if flags.what == "kills":
            frameworks = ("torch", "jax") if flags.framework == "both" else (flags.framework,)
            found |= kills.measure(frameworks, flags.runs, Path(name))
            failed = sum(counts[name] for counts in found.values() for name in kills.FAILURES)
        else:
            for measure in (power.system_calls, power.power_losses):
                for fault, problem in measure(Path(name)):
                    counts = found.setdefault(fault, {"tried": 0, "lost": 0})
                    counts["tried"] += 1
                    counts["lost"] += bool(problem)
                    print(problem, end="\n" if problem else "")
            failed = sum(counts["lost"] for counts in found.values())
    results = json.loads(JSON.read_text())
    results[flags.what] |= found
    JSON.write_text(json.dumps(results, indent=1) + "\n")
    PAGE.write_text(rendered(PAGE.read_text(), results))
    print(f"{failed} failures. Wrote {PAGE}")
    raise SystemExit(bool(failed))


if __name__ == "__main__":
    main()
