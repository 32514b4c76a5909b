"""Checkpoints and logs that `train --resume` finds in the folder of a run."""

import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from shared.config import RunConfig
from shared.folder import CHECKPOINT, LOG, PREVIOUS, RunFolder, _digest
from shared.records import make_header
from shared.weights import load_weights, to_bytes
from tests.reliability.inputs.attempts import Attempt, Ended, as_nobody, command
from tests.reliability.inputs.base import flipped, small_data

EPOCHS = 4
FLAGS = ("--epochs", EPOCHS, "--hidden-1", 8, "--hidden-2", 8, "--lr", "0.1")


def begin(out: Path, data: Path, epochs: int) -> Callable[[], None]:
    """Return what trains for some of the epochs, and leaves the folder of a run that was killed."""

    def call() -> None:
        from impls.torch.runtime import describe
        from impls.torch.train import train
        from shared.data import load

        config = RunConfig(
            epochs=EPOCHS, hidden_1=8, hidden_2=8, lr=0.1, out=out, data=str(data), device="cpu"
        )
        loaded = load(str(data))
        header = make_header("torch", ("torch",), config, loaded, describe("auto"))
        header["config"]["device"] = "auto"
        with RunFolder(config, header) as folder:

            def on_epoch(record, get_weights):
                folder.add(record, get_weights())
                return record["epoch"] == epochs

            train(config, loaded, on_epoch)

    return call


def odd_metadata(path: Path) -> Iterator[tuple[str, bytes]]:
    """Yield checkpoints whose digest is right, and whose history or header is odd."""
    with safe_open(path, "np") as file:
        words = file.metadata()
    arrays = load_weights(path)
    history, header = json.loads(words["history"]), json.loads(words["header"])

    def made(about: str, header: Any = header, history: Any = history, **more: str):
        texts = [t if isinstance(t, str) else json.dumps(t) for t in (header, history)]
        metadata = {"header": texts[0], "history": texts[1], "sha256": _digest(arrays, *texts)}
        return about, to_bytes(arrays, metadata | more)

    yield made("a newer version with more metadata", version="7")
    yield made("a newer version with more in the header", header={**header, "format": 7})
    yield made(
        "a newer version with more settings",
        header={**header, "config": {**header["config"], "momentum": 0.9}},
    )
    yield made("a digest that is none", sha256="\x1b[31m")
    for odd in ([], {}, None, 3, "x", "", "[" * 10_000_000, "1" * 5000, "NaN", '"\\ud800"'):
        yield made(f"the history {str(odd)[:10]!r}", history=odd)
        yield made(f"the header {str(odd)[:10]!r}", header=odd)
    for key in header:
        for odd in (None, [], {}, 3, "x", 1e400):
            yield made(f"{key} is {odd}", header={**header, key: odd})
        yield made(f"no {key}", header={k: v for k, v in header.items() if k != key})
    for about, odd in {
        "more epochs than the run has": history * 3,
        "epochs in the wrong order": history[::-1],
        "an epoch twice": [history[0], history[0]],
        "an epoch left out": history[1:],
        "records that are numbers": [1, 2],
        "records that are null": [None, None],
        "records without anything": [{}, {}],
        "records in records": [history, history],
    }.items():
        yield made(about, history=odd)
    for key in history[0]:
        for odd in (None, "x", [], float("nan"), float("inf"), -1, 1e308, 10**400, True, "\x1b"):
            changed = [*history[:-1], {**history[-1], key: odd}]
            yield made(f"{key} is {str(odd)[:10]!r}", history=changed)


def odd_checkpoints(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield checkpoints that are damaged, or of another kind."""
    rng = random.Random(0)
    length = 8 + int.from_bytes(good[:8], "little")
    for end in (*range(0, 24), *range(24, len(good), len(good) // 25), len(good) - 1):
        yield f"cut after {end} bytes", good[:end]
    for bit in [*rng.sample(range(64), 15), *rng.sample(range(64, 8 * length), 40),
                *rng.sample(range(8 * length, 8 * len(good)), 25)]:  # fmt: skip
        yield f"bit {bit} flipped", flipped(good, bit)
    yield "zeros", bytes(len(good))
    yield "only weights", to_bytes({n: np.ones(1, np.float32) for n in _names(good)})


def _names(good: bytes) -> list[str]:
    length = int.from_bytes(good[:8], "little")
    return [name for name in json.loads(good[8 : 8 + length]) if name != "__metadata__"]


def odd_logs(folder: Path) -> dict[str, Callable[[Path], Any]]:
    """Return what may be in the place of log.jsonl."""
    return {
        "missing": lambda path: path.unlink(),
        "empty": lambda path: path.write_bytes(b""),
        "binary": lambda path: path.write_bytes(bytes(range(256))),
        "half a line": lambda path: path.write_bytes(path.read_bytes()[:-20]),
        "a folder": lambda path: (path.unlink(), path.mkdir()),
        "a pipe": lambda path: (path.unlink(), os.mkfifo(path)),
        "a loop": lambda path: (path.unlink(), path.symlink_to(path)),
        "a device": lambda path: (path.unlink(), path.symlink_to("/dev/full")),
        "a link": lambda path: (
            (folder / "elsewhere").write_text("kept"),
            path.unlink(),
            path.symlink_to(folder / "elsewhere"),
        ),
        "not writable": lambda path: path.chmod(0),
    }


def attempts(folder: Path) -> Iterator[Attempt]:
    """Yield what to try."""
    data, base, whole, out = (folder / name for name in ("data", "base", "whole", "out"))
    small_data(data)
    folder.chmod(0o777)
    words = ("impls.torch.train", *FLAGS, "--data", data, "--out")
    yield Attempt("a whole run", command(*words, whole))
    yield Attempt("a run that is stopped", begin(base, data, 2))
    expected = load_weights(whole / "weights.safetensors")
    good = {name: (base / name).read_bytes() for name in (CHECKPOINT, PREVIOUS)}

    def right(end: Ended) -> bool:
        found = load_weights(out / "weights.safetensors")
        lines = [json.loads(line, parse_constant=int) for line in (out / LOG).open()]
        same = all(np.array_equal(found[name], expected[name]) for name in expected)
        numbers = all(type(value) in (int, float) for line in lines[1:] for value in line.values())
        return same and numbers and [line["epoch"] for line in lines[1:]] == [1, 2, 3, 4]

    def resumed(about: str, changed: dict[str, bytes | None], *flags: object) -> Attempt:
        shutil.rmtree(out, ignore_errors=True)
        shutil.copytree(base, out)
        for name, content in changed.items():
            if content is None:
                (out / name).unlink()
            else:
                (out / name).write_bytes(content)

        def kept() -> bool:
            now = {n: (out / n).read_bytes() for n in good if (out / n).is_file()}
            return now == {n: c for n, c in {**good, **changed}.items() if c is not None}

        call = command(*words, out, *(flags or ("--resume",)))
        return Attempt(about, call, right, kept, out)

    yield resumed("nothing odd", {})
    rng = random.Random(0)
    for about, content in (*odd_checkpoints(good[CHECKPOINT]), *odd_metadata(base / CHECKPOINT)):
        yield resumed(about, {CHECKPOINT: content})
        if rng.random() < 0.5:
            yield resumed(f"both: {about}", {CHECKPOINT: content, PREVIOUS: content})
    yield resumed("no last checkpoint", {CHECKPOINT: None})
    yield resumed("only the one before", {CHECKPOINT: None, PREVIOUS: good[CHECKPOINT]})
    yield resumed("no checkpoint", {CHECKPOINT: None, PREVIOUS: None})
    for name, change in odd_logs(folder).items():
        attempt = resumed(f"the log is {name}", {})
        change(out / LOG)
        yield attempt
        if name == "a link" and (folder / "elsewhere").read_text() != "kept":
            yield Attempt("a file behind a link was written over", command("no such module"))
    for name in (CHECKPOINT, PREVIOUS, ".lock", "weights.safetensors"):
        for kind in ("a folder", "a pipe", "a loop", "a device"):
            attempt = resumed(f"{name} is {kind}", {})
            (out / name).touch()
            odd_logs(folder)[kind](out / name)
            attempt.kept = lambda: True
            yield attempt
    for flags in (("--resume", "--overwrite"), ("--resume", "--checkpoint-every", 3),
                  ("--resume", "--checkpoint-every", 10**9), ("--resume", "--lr", 0.2),
                  ("--resume", "--epochs", 1), ("--resume", "--data", "sample"),
                  ("--resume", "--resize", 5), ("--resume", "--dtype", "float64"), ("--overwrite",),
                  ("--no-resume",), ("--resume", "--resume"), ("--resume", "yes")):  # fmt: skip
        yield resumed(f"the flags {flags}", {}, *flags)
    attempt = resumed("a folder of another user", {})
    attempt.call = as_nobody(attempt.call)
    out.chmod(0o755)
    yield attempt
