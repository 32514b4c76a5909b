"""Run the train command of a framework as it is, with a core of its own for each process.

torchrun --nproc-per-node 2 -m experiments.parallel.pinned torch --data sample
"""

import importlib
import os
import sys


def main() -> None:
    """Take the framework off the command line, take the core of this process, and train."""
    framework = sys.argv.pop(1)
    rank = os.environ.get({"torch": "RANK", "jax": "JAX_PROCESS_ID"}[framework])
    if rank is not None:  # else this process only starts the others
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[int(rank) % len(cores)]})
    importlib.import_module(f"impls.{framework}.train").main()


if __name__ == "__main__":
    main()
