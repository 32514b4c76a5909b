"""docs/reliability.md, made from the figures that were measured."""

from collections.abc import Iterable
from typing import Any

from tests.reliability.load import Halves

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
seed and other sizes, and one network for {epochs} epochs. The least and the largest values in the
two halves of that time, without its first tenth. Memory is what the process holds in RAM (its
resident set).

{memory}

The memory of JAX goes up and down, because it keeps what it compiles for up to 16 different
networks, and then forgets it (`impls/jax/runtime.py`).

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
    words = {
        "stopped before it trained": "stopped before it trained",
        "stopped, before a checkpoint": "stopped before the first checkpoint",
        "stopped, with a checkpoint": "stopped later",
        "stopped after all was written": "stopped after all was written",
        "had ended before": "had ended before",
        "FAILED: a traceback": "printed a traceback while it stopped",
        "ended the same, byte for byte": "ended the same, byte for byte",
    }
    outcomes = [*words, *sorted({name for of in results.values() for name in of} - words.keys())]
    rows = [
        [words.get(name, name), *(of.get(name, 0) for of in results.values())] for name in outcomes
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


def _memory(results: dict[str, dict[str, Halves]]) -> str:
    what = {"many_calls": "networks", "many_epochs": "epochs"}

    def cell(values: Iterable[float]) -> str:
        low, high = (f"{value:,.0f}" for value in values)
        return low if low == high else f"{low} – {high}"

    rows = []
    for framework, of in results.items():
        for name, halves in of.items():
            first, second = halves.values()
            rows.append(
                [
                    f"{NAMES[framework]}, {what[name]}",
                    *(cell(size / 2**20 for size in half["memory"]) for half in (first, second)),
                    f"{max(half['maps'][1] for half in (first, second)):,}",
                    cell((first["handles"][0], second["handles"][1])),
                ]
            )
    head = ["", "MiB, first half", "MiB, second half", "most memory maps", "open files"]
    return table(head, rows)


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
    results = {  # PyTorch first
        part: dict(sorted(of.items(), key=lambda one: one[0] == "jax"))
        for part, of in results.items()
    }
    calls, epochs = (
        results["memory"]["torch"][name]["second half"][number][1]
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
