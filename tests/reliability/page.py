"""docs/reliability.md, made from the figures that were measured."""

from collections.abc import Iterable
from typing import Any

NAMES = {"torch": "PyTorch", "jax": "JAX"}

TEXT = """\
# What runs and files survive

Every figure on this page was measured by `python -m tests.reliability`, which takes hours. It needs
Linux and `strace`. A part of it runs in `make test`.

## A run that was stopped goes on

A run keeps a checkpoint in its folder after each epoch (`--checkpoint-every`): the weights, the
lines of the log so far, the settings, and a SHA-256 over all. Nothing else is needed, because all
randomness follows from the seed, the epoch and the step. A new checkpoint is written under another
name, synced to the disk, read again, and then renamed. The last one is kept, too. The same command
with `--resume` goes on from there. It starts at the beginning if there is no checkpoint yet, and
refuses to go on with other settings, which it names.

Ctrl-C and SIGTERM stop a run with status 130 or 143 and one line that says how to go on. A loss
that is infinite or not a number ends it with status 1. A folder that holds a run is replaced only
with `--overwrite`, and a lock keeps two processes apart.

Each run of twelve epochs got SIGKILL, SIGTERM or SIGINT at a random moment, and then went on with
`--resume`. The table counts runs:

{kills}

The log and the weights were compared with those of a run that was never stopped, without the
seconds.

## A save that goes wrong leaves the last checkpoint

{faults}

For the loss of power, the system calls of two saves are replayed on a simulated disk that forgets
what was not synced. If the simulation leaves out the syncing, it does lose checkpoints.

## The same command twice

{sameness}

The files are the same, byte for byte, as long as the versions, the processor and the number of
threads are the same; the log has them in its first line. Another number of threads may add in
another order. Training amplifies this rounding.

## Odd inputs

Files that are damaged, huge or not what they should be, flags and arguments that make no sense,
places that cannot be written, and environments without a home, a terminal or a character set. Each
has to give the right result, or one clear line and an exit status that is not 0. A damaged
checkpoint gives the right result if the one before it is used.

{inputs}

## Memory

One process trained {calls} networks, each with another learning rate, other dropout rates, another
seed and other sizes, and one network for {epochs} epochs. Memory is what the process holds in RAM
(its resident set).

{memory}

JAX keeps what it compiles for up to 16 different networks, and forgets it then
(`impls/jax/runtime.py`).

## What a checkpoint costs

{cost}

Checkpoints are made between epochs only. One within an epoch would need a second loop in the
lesson, to save a second or two of work.
"""


def table(head: Iterable[str], rows: Iterable[Iterable[Any]]) -> str:
    """Return a table in Markdown."""
    lines = [list(head), None, *(list(row) for row in rows)]
    return "\n".join(
        "| " + " | ".join(map(str, line)) + " |" if line else "|" + "---|" * len(lines[0])
        for line in lines
    )


def _kills(results: dict[str, dict[str, int]]) -> str:
    outcomes = sorted({name for counts in results.values() for name in counts})
    words = {"FAILED: a traceback": "printed a traceback while it stopped"}
    rows = [
        [words.get(name, name), *(counts.get(name, 0) for counts in results.values())]
        for name in outcomes
    ]
    return table(["", *(NAMES[name] for name in results)], rows)


def _faults(results: dict[str, dict[str, int]]) -> str:
    words = {
        "signal=SIGKILL": "killed at a system call",
        "error=ENOSPC": "a system call fails: the disk is full",
        "error=EIO": "a system call fails: the disk is broken",
        "refused": "a file can have only so many bytes",
        "a whole checkpoint": "the power fails after a system call",
    }
    counts = {k: n for of in results.values() for k, n in of.items()}
    failed = {k: n for k, n in counts.items() if k not in words}
    rows = [[words[k], counts[k], 0] for k in words if k in counts]
    return table(
        ["what happened", "tried", "lost"], [*rows, *([k, n, n] for k, n in failed.items())]
    )


def _sameness(results: dict[str, dict[str, dict[str, Any]]]) -> str:
    rows = [
        [
            NAMES[framework],
            dtype,
            f"{of['same']} / {of['repeats']}",
            "none" if of["one thread"] == 0 else f"{of['one thread']:.1g}",
        ]
        for framework, dtypes in results.items()
        for dtype, of in dtypes.items()
    ]
    head = ["", "dtype", "same files", "largest difference of a weight between 1 and 2 threads"]
    return table(head, rows)


def _inputs(results: dict[str, dict[str, Any]]) -> str:
    words = {
        "weights": "weight files",
        "data": "folders of images",
        "functions": "arguments of functions",
        "environment": "environments",
    }
    rows = [
        [words.get(kind, kind), of["tried"], of["clear error"], of["works"], len(of["FAILED"])]
        for kind, of in results.items()
    ]
    total = ["all", *(sum(row[i] for row in rows) for i in range(1, 5))]
    return table(["kind", "tried", "clear error", "works", "anything else"], [*rows, total])


def _memory(results: dict[str, dict[str, dict[str, dict[str, float]]]]) -> str:
    what = {"many_calls": "networks", "many_epochs": "epochs"}
    rows = []
    for framework, of in results.items():
        for name, states in of.items():
            a, b = states["first"], states["last"]
            rows.append(
                [
                    f"{NAMES[framework]}, {what[name]}",
                    f"{a['memory'] / 2**20:,.0f}",
                    f"{b['memory'] / 2**20:,.0f}",
                    f"{states['highest']['maps']:,}",
                    f"{a['handles']} to {b['handles']}",
                ]
            )
    return table(
        ["", "MiB after a tenth", "MiB at the end", "most memory maps", "open files"], rows
    )


def _cost(results: dict[str, dict[str, float]]) -> str:
    rows = [
        [
            NAMES[framework],
            f"{of['images']:,}",
            f"{of['epoch']:.2f}",
            f"{of['checkpoint']:.3f}",
            f"{of['checkpoint'] / of['epoch']:.1%}",
        ]
        for framework, of in results.items()
    ]
    head = ["", "images", "seconds of an epoch", "seconds of a checkpoint", "share of the epoch"]
    return table(head, rows)


def page(results: dict[str, Any]) -> str:
    """Return the page.

    Args:
        results: of all parts, by their names.
    """
    calls, epochs = (
        results["memory"]["torch"][name]["last"][number]
        for name, number in (("many_calls", "calls"), ("many_epochs", "epochs"))
    )
    return TEXT.format(
        kills=_kills(results["kills"]),
        faults=_faults(results["faults"]),
        sameness=_sameness(results["sameness"]),
        inputs=_inputs(results["inputs"]),
        calls=f"{calls:,}",
        epochs=f"{epochs:,}",
        memory=_memory(results["memory"]),
        cost=_cost(results["cost"]),
    )
