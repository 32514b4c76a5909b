"""The process that `benchmarks.timing.Worker` starts: make a program ready, run it per line read.

python -m benchmarks.worker "torch epoch" '{"data": "sample"}'
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.programs import make_ready


def peak_mib() -> float:
    """Return the most memory so far: of the GPU if the program is on one, else of the process."""
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    if jax and jax.default_backend() == "gpu":
        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    # Not getrusage's ru_maxrss: that starts from what the parent process had.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10  # KiB


def answer(**numbers: float) -> None:
    """Write one line of JSON, with the peak of memory."""
    print(json.dumps({"peak_mib": peak_mib(), **numbers}), flush=True)


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
