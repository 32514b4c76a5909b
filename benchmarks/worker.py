"""The process that `benchmarks.timing.Worker` starts.

python -m benchmarks.worker "torch epoch" '{"data": "sample"}'

It prepares the program and writes a line. Then it runs the program once for each line that it
reads, and writes how many seconds that took. The lines it writes are JSON.
"""

import json
import sys
import time
from pathlib import Path

from benchmarks.programs import Setting, prepare


def peak_mib() -> float:
    """Return the largest amount of memory used so far, in MiB.

    It is the memory of the GPU if the program uses one, else the memory of this process.
    """
    torch, jax = sys.modules.get("torch"), sys.modules.get("jax")
    if torch and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated() / 2**20
    if jax and jax.default_backend() == "gpu":
        return jax.local_devices()[0].memory_stats()["peak_bytes_in_use"] / 2**20
    # Linux starts ru_maxrss, the usual measure, from the memory of the parent process.
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 2**10  # KiB to MiB


def answer(**numbers: float) -> None:
    """Write a line of JSON with these numbers and the peak of memory."""
    print(json.dumps({"peak_mib": peak_mib(), **numbers}), flush=True)


def main() -> None:
    """Prepare the program, then run and time it once for each line on standard input."""
    run = prepare(sys.argv[1], Setting(**json.loads(sys.argv[2])))
    answer()
    for i, _ in enumerate(sys.stdin):
        started = time.perf_counter()
        run(i)
        answer(seconds=time.perf_counter() - started)


if __name__ == "__main__":
    main()
