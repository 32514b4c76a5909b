"""The process that `benchmarks.timing.Worker` starts: make a program ready, run it per line read.

python -m benchmarks.worker "torch epoch" '{"data": "sample"}'
"""

import json
import resource
import sys
import time

from benchmarks.programs import make_ready


def answer(**numbers: float) -> None:
    """Write one line of JSON, with the most memory this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB
    print(json.dumps({"peak_mib": peak, **numbers}), flush=True)


def main() -> None:
    """Make ready, say so, and time a run for every line on standard input."""
    run = make_ready(sys.argv[1], **json.loads(sys.argv[2]))
    answer()
    for i, _ in enumerate(sys.stdin):
        started = time.perf_counter()
        run(i)
        answer(seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
