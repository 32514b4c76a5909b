"""The folder of a run: what is in it belongs together, and a run that was stopped goes on from it.

    log.jsonl                the header, and a line for each epoch
    checkpoint.safetensors   weights and records as of an epoch, until the run is finished
    checkpoint.previous      the checkpoint before, should the last one be damaged
    weights.safetensors      the weights of the finished run
    .lock                    held by the process that writes here

All randomness follows from the seed, the epoch and the step, and plain gradient descent has no
state. So weights and the number of the epoch are all that a run needs to go on.
"""

import contextlib
import hashlib
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, TextIO

import numpy as np
from filelock import FileLock, Timeout
from safetensors import SafetensorError, safe_open

from shared.checks import InputError
from shared.config import RunConfig
from shared.files import open_regular, printable, sweep, sync_folder, write_whole
from shared.records import (
    EpochRecord,
    Header,
    TrainResult,
    Weights,
    check_header,
    check_history,
    read_log,
    write_line,
)
from shared.weights import NAMES, load_weights, to_bytes

LOG, WEIGHTS, LOCK = "log.jsonl", "weights.safetensors", ".lock"
CHECKPOINT, PREVIOUS = "checkpoint.safetensors", "checkpoint.previous"
NEW = f".{CHECKPOINT}.new"  # one that is not verified yet


def _digest(weights: Mapping[str, np.ndarray], header: str, history: str) -> str:
    digest = hashlib.sha256(f"{header}\n{history}\n".encode())
    for name in NAMES:
        digest.update(np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()


def write_checkpoint(path: Path, run: TrainResult, header: Header) -> None:
    """Write a checkpoint, verified by reading it again, and keep the one before.

    Raises:
        OSError: it cannot be written. The one before is still there.
    """
    words = json.dumps(header), json.dumps(run.history)
    metadata = {
        "header": words[0],
        "history": words[1],
        "sha256": _digest(run.weights, *words),
    }
    new = path.with_name(NEW)
    write_whole(new, to_bytes(run.weights, metadata))
    read_checkpoint(new)
    if path.exists():
        path.replace(path.with_name(PREVIOUS))
    new.replace(path)
    sync_folder(path.parent)


def read_checkpoint(path: Path) -> tuple[TrainResult, Header]:
    """Read a checkpoint, and the header of its run.

    Raises:
        InputError: it is not there, damaged, or no checkpoint.
    """
    weights = load_weights(path)
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
        if metadata["sha256"] != _digest(weights, metadata["header"], metadata["history"]):
            raise InputError(f"{path} is damaged: its SHA-256 differs")
        history: list[EpochRecord] = json.loads(metadata["history"])
        header: Header = json.loads(metadata["header"])
        return TrainResult(history, weights), header
    except InputError:
        raise
    except (OSError, SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise InputError(f"{path} is not a checkpoint: {printable(repr(error))}") from None


def check_checkpoint(path: Path, run: TrainResult, header: Header) -> None:
    """Raise InputError unless a run can go on from what a checkpoint holds."""
    try:
        check_header(header)
        check_history(run.history)
        epochs = [record["epoch"] for record in run.history]
        if not epochs or epochs != [*range(1, len(epochs) + 1)]:
            raise ValueError("its epochs are not 1, 2, ...")
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"cannot go on from {path}: {printable(repr(error))}") from None


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """Say which values of a dictionary have changed, or nothing if none has."""
    return "; ".join(
        f"{key} was {before.get(key)} and is now {after[key]}"
        for key in after
        if before.get(key) != after[key]
    )


class RunFolder:
    """The folder of a run, locked while the run writes into it.

    Attributes:
        start: the checkpoint to go on from, or None at the beginning.
        finished: the result, if the run that is to go on was finished already.
    """

    def __init__(self, config: RunConfig, header: Header) -> None:
        self.config, self.header, self.path = config, header, config.out
        self.start: TrainResult | None = None
        self.finished: TrainResult | None = None
        self.last: TrainResult | None = None
        self._saved = 0
        self._log: TextIO | None = None
        self._lock = FileLock(self.path / LOCK)

    def __enter__(self) -> Self:
        """Lock the folder, and find out what is in it.

        Raises:
            InputError: it cannot be written to, another process writes to it, or it holds a run
                that is neither to be continued nor to be replaced.
        """
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            raise InputError(f"another process writes to {self.path}") from None
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error}") from None
        try:
            self._look()
            if self.finished is None:
                self._open_log()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """Close the log and let others write."""
        if self._log:
            self._log.close()
        self._lock.release()

    def _look(self) -> None:
        sweep(self.path)
        there = [n for n in (WEIGHTS, CHECKPOINT, PREVIOUS, LOG) if (self.path / n).exists()]
        if self.config.resume:
            if WEIGHTS in there:
                self._check(read_header(self.path / WEIGHTS), WEIGHTS)
                history = read_log(self.path / LOG)[1]
                self.finished = TrainResult(history, load_weights(self.path / WEIGHTS))
            elif {CHECKPOINT, PREVIOUS} & set(there):
                self.start = self.last = self._checkpoint()
                self._saved = len(self.start.history)
        elif there and not self.config.overwrite:
            state = "a finished run" if WEIGHTS in there else "a run that was stopped"
            raise InputError(
                f"{self.path} holds {state}. --resume goes on with it, --overwrite replaces it, "
                "and --out names another folder"
            )
        elif self.config.overwrite:
            for name in there:
                try:
                    (self.path / name).unlink()
                except OSError as error:
                    raise InputError(f"cannot replace {self.path / name}: {error}") from None

    def _checkpoint(self) -> TrainResult:
        """Return the last checkpoint that is whole."""
        reasons = []
        for name in (CHECKPOINT, PREVIOUS):
            try:
                checkpoint, header = read_checkpoint(self.path / name)
                check_checkpoint(self.path / name, checkpoint, header)
            except InputError as error:
                reasons.append(str(error))
                continue
            self._check(header, name)
            if len(checkpoint.history) > self.config.epochs:
                raise InputError(f"{self.path / name} has more epochs than the run")
            places = [
                {"framework": one.get("framework"), **(one.get("machine") or {})}
                for one in (header, self.header)
            ]
            if changed := changes(*places):
                print(
                    f"note: {changed}. Sums may be rounded differently than in the first part of "
                    "the run",
                    file=sys.stderr,
                )
            if reasons:
                print(f"note: {reasons[0]}. Going on from {name} instead", file=sys.stderr)
            return checkpoint
        raise InputError("; ".join(reasons))

    def _check(self, found: Header | None, name: str) -> None:
        """Raise InputError unless a file is of a run with our settings and our data."""
        if found is None:
            raise InputError(f"{self.path / name} does not say of which run it is")
        theirs, ours = (
            {**h["config"], "data": h["data"], "images": h["images"]} for h in (found, self.header)
        )
        ours["out"] = theirs.get("out")  # a folder may be moved
        if different := changes(theirs, ours):
            raise InputError(f"cannot go on with the run in {self.path}: {different}")

    def _open_log(self) -> None:
        """Write the log as of the checkpoint, and open it for what follows."""
        history = self.start.history if self.start else []
        lines = [json.dumps(line) + "\n" for line in (self.header, *history)]
        try:
            write_whole(self.path / LOG, "".join(lines).encode())
            self._log = (self.path / LOG).open("a")
        except OSError as error:
            raise InputError(f"cannot write to {self.path}: {error}") from None

    def add(self, record: EpochRecord, weights: Weights) -> None:
        """Log an epoch, and save a checkpoint if one is due.

        Raises:
            InputError: something cannot be written.
        """
        history = [*(self.last.history if self.last else []), record]
        self.last = TrainResult(history, weights)
        try:
            assert self._log is not None
            write_line(self._log, record)
        except OSError as error:
            raise InputError(f"cannot write {self.path / LOG}: {error}. {self.place}") from None
        if len(history) % self.config.checkpoint_every == 0:
            self.save()

    def save(self) -> None:
        """Save a checkpoint of the last epoch, if there is none yet.

        Raises:
            InputError: it cannot be written.
        """
        if self.last is None or len(self.last.history) == self._saved:
            return
        try:
            write_checkpoint(self.path / CHECKPOINT, self.last, self.header)
        except OSError as error:
            raise InputError(f"cannot write a checkpoint: {error}. {self.place}") from None
        self._saved = len(self.last.history)

    @property
    def place(self) -> str:
        """Where the run goes on if it stops now, in words."""
        if not self._saved:
            return "There is no checkpoint yet"
        return f"The last checkpoint is that of epoch {self._saved}: --resume goes on from there"

    def finish(self, weights: Mapping[str, np.ndarray]) -> None:
        """Write the weights, and remove what only a run that goes on needs.

        Raises:
            InputError: they cannot be written.
        """
        try:
            metadata = {"header": json.dumps(_without_folder(self.header))}
            write_whole(self.path / WEIGHTS, to_bytes(weights, metadata))
        except OSError as error:
            raise InputError(f"cannot write the weights: {error}. {self.place}") from None
        for name in (CHECKPOINT, PREVIOUS, NEW):
            with contextlib.suppress(OSError):
                (self.path / name).unlink(missing_ok=True)


def _without_folder(header: Header) -> Header:
    """Return a header without the name of the folder: the same settings give the same files."""
    config = {name: value for name, value in header["config"].items() if name != "out"}
    return {**header, "config": config}


def belong_together(of_log: Header, of_weights: Header | None) -> bool:
    """Whether a log and a weight file are of the same run, or the weight file does not say."""
    return of_weights is None or _without_folder(of_log) == _without_folder(of_weights)


def read_header(path: Path) -> Header | None:
    """Return the header of the run that wrote a weight file, or None if the file does not say."""
    try:
        open_regular(path).close()
        with safe_open(path, "np") as file:
            header = json.loads((file.metadata() or {})["header"])
        check_header(header)
        return header
    except (OSError, SafetensorError, KeyError, ValueError, TypeError, RecursionError):
        return None
