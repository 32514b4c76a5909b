"""A run as its command sees it: flags, data, folder, log, checkpoints, and Ctrl-C.

    OUT/log.jsonl, OUT/weights.safetensors       the finished run
    OUT/unfinished/log.jsonl                     the run in progress, as far as it was printed
    OUT/unfinished/checkpoint.safetensors        its weights and its log after an epoch
    OUT/.lock                                    held by the process that writes here

All randomness follows from the seed, the epoch and the step, and plain gradient descent has no
state. So weights and the number of the epoch are all that a run needs to go on.
"""

import contextlib
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from filelock import FileLock, Timeout

from shared.checks import InputError
from shared.cli import one_line_errors, parse
from shared.config import RunConfig
from shared.data import load, to_arrays
from shared.records import (
    EPOCH_HEADER,
    DivergedError,
    EpochRecord,
    changes,
    epoch_line,
    make_header,
    slow_epochs_note,
    split_lines,
)
from shared.weights import read_file, to_bytes

LOG, WEIGHTS = "log.jsonl", "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"


class Model(Protocol):
    """What a run asks of a network."""

    def get_weights(self) -> dict[str, np.ndarray]:
        """Return copies of the weights."""

    def set_weights(self, weights: Mapping[str, np.ndarray]) -> None:
        """Set the weights."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there, whole and on the disk, or as it was before.

    Raises:
        OSError: the file cannot be written.
    """
    new = path.with_name(f".{path.name}.new")
    with new.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    new.replace(path)
    with contextlib.suppress(OSError):  # not every file system can sync a folder
        descriptor = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _alone(value: Any) -> list[Any]:
    return [value]


# What gloo says when a process is gone. Both frameworks use gloo between processes on CPUs.
LOST = re.compile(r"connection (closed|reset|refused)|broken pipe|timed? ?out", re.IGNORECASE)


@contextlib.contextmanager
def one_line_if_lost() -> Iterator[None]:
    """End with one line and status 1 if another process of the run is gone."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # JAX raises either
        if not (found := LOST.search(str(error))):
            raise
        print(
            f"error: another process is lost ({found[0].lower()}). --resume goes on from the last "
            "checkpoint",
            file=sys.stderr,
        )
        raise SystemExit(1) from None


class Run:
    """The run that a command line asks for. Use it in a `with`, which opens its folder.

    Attributes:
        config: the settings.
        arrays: inputs and labels for training, then those for the test, as NumPy arrays.
        gather: returns what each process of the run passed to it. By default there is one process.
        writes: whether this process is the one that prints and writes.
    """

    def __init__(
        self,
        framework: str,
        args: Sequence[str] | None = None,
        module: str = "train",
        settings: type[RunConfig] = RunConfig,
    ) -> None:
        """Read the flags.

        Args:
            framework: its name, torch or jax.
            args: the words of the command line, those of this process if None.
            module: the command is `python -m impls.FRAMEWORK.MODULE`.
            settings: the dataclass whose fields are the flags.
        """
        with one_line_errors():
            name = f"impls.{framework}.{module}"
            self.config = parse(settings, name, args, out=Path("runs") / framework)
        self.framework = framework
        self.arrays: tuple[np.ndarray, ...] = ()
        self.gather: Callable[[Any], list[Any]] = _alone
        self.writes = True
        self._lines: list[Any] = []  # of the log
        self._weights: dict[str, np.ndarray] = {}  # after the last epoch
        self._finished = False
        self._saved = 0  # the epoch of the checkpoint
        self._there = 0  # epochs that others made
        self._signal = 0
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Self:
        """Load the data and look into the folder. An error ends all processes of the run."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(one_line_errors())
            problem = None
            try:
                self._data = load(self.config.data, resize=self.config.resize)
                self.arrays = to_arrays(self._data, self.config.dtype)
                if self.writes:
                    self._open(stack)
            except (InputError, OSError) as error:
                problem = str(error)
            self._agree(problem)
            stack.push(self._finish)
            self._stack = stack.pop_all()
        return self

    def _agree(self, problem: str | None) -> None:
        """End all processes if one has a problem, or other settings than process 0."""
        header = make_header(self.framework, self.config, self._data, "") if not problem else None
        state = (self._lines, self._weights, self._finished) if self.writes else None
        everyone = self.gather((problem, header, state))
        for rank, (theirs, other, _) in enumerate(everyone):
            message = theirs or "; ".join(
                f"{name} is {there}, and {here} in process 0"
                for name, (here, there) in changes(everyone[0][1], other).items()
                if name not in ("processor", "cores")
            )
            if message and self.writes:
                raise InputError(f"process {rank}: {message}" if rank else message)
            if message:
                raise SystemExit(2)
        self._lines, self._weights, self._finished = everyone[0][2]

    def _open(self, stack: contextlib.ExitStack) -> None:
        """Lock the folder, and find out what is in it."""
        out, config = self.config.out, self.config
        self._unfinished = out / "unfinished"
        out.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out / ".lock")
        try:
            stack.enter_context(lock.acquire(timeout=0))
        except Timeout:
            raise InputError(f"another process writes to {out}") from None
        stopped = [p for p in (self._unfinished / LOG, self._unfinished / CHECKPOINT) if p.exists()]
        finished = (out / WEIGHTS).exists() or (out / LOG).exists()
        if config.resume:
            if stopped[-1:] == [self._unfinished / CHECKPOINT]:
                self._go_on(self._unfinished / CHECKPOINT)
            elif finished and not stopped:
                self._go_on(out / WEIGHTS)
                self._finished = True
        elif stopped and not config.overwrite:
            raise InputError(
                f"{out} holds a run that was stopped. --resume goes on with it, --overwrite starts "
                "anew, and --out names another folder"
            )
        elif finished and not config.overwrite:
            raise InputError(
                f"{out} holds a finished run. --overwrite replaces it, and --out names another "
                "folder"
            )
        else:
            for path in stopped:
                path.unlink()
        if not self._finished:
            self._unfinished.mkdir(exist_ok=True)
        # Better now than after an epoch. It also syncs the name of the folder `unfinished`.
        write_whole(out / ".writable", b"")
        (out / ".writable").unlink()

    def _go_on(self, path: Path) -> None:
        """Read the weights and the log of a run with our settings."""
        weights, metadata = read_file(path)
        try:
            lines = json.loads(metadata["log"])
            headers, history = split_lines(lines)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{path} does not say of which run it is: {error!r}") from None
        ours: Any = make_header(self.framework, self.config, self._data, "")
        for name in ("framework", "versions", "machine"):  # which may differ
            ours[name] = headers[-1][name]
        if different := changes(headers[-1], ours):
            raise InputError(f"cannot go on with the run in {self.config.out}: {_say(different)}")
        self._lines, self._weights, self._saved = lines, weights, len(history)

    def restore(self, model: Model, device: Any) -> int:
        """Set the weights if the run goes on, and print where it stands.

        Args:
            model: the network, with its initial weights.
            device: what it computes on, for the log.

        Returns:
            The number of the first epoch to train, 1 for a new run.
        """
        if self._weights:
            model.set_weights(self._weights)
        headers, history = split_lines(self._lines) if self._lines else ([], [])
        self._there = len(history)
        if self._finished:
            made = " and ".join(dict.fromkeys(header["framework"] for header in headers))
            if self.writes:
                print(f"the run in {self.config.out} is finished already (made with {made})")
            return self.config.epochs + 1
        self._stack.enter_context(self._stop_on_signals())
        if not self.writes:
            return len(history) + 1
        header = make_header(self.framework, self.config, self._data, _name(device))
        print(f"{self.framework}: {self._data.name}: {self._data.images} images", flush=True)
        if headers:
            print(f"going on after epoch {len(history)}")
        changed = changes(headers[-1], header) if headers else {}
        if changed:
            print(f"note: {_say(changed)}", file=sys.stderr)
        if changed or not headers:
            self._lines.append(header)
        write_whole(self._unfinished / LOG, _text(self._lines))
        print(EPOCH_HEADER, flush=True)
        return len(history) + 1

    def save(self, record: EpochRecord, model: Model) -> None:
        """Log an epoch, save a checkpoint if one is due, print a line, and stop if asked to.

        Args:
            record: of the epoch.
            model: the network as it is now.
        """
        self._lines.append(record)
        if self.writes:
            self._weights = model.get_weights()
            if record["epoch"] % self.config.checkpoint_every == 0:
                self._checkpoint(record["epoch"])
            with (self._unfinished / LOG).open("ab") as log:
                log.write(_text([record]))
            print(epoch_line(record), flush=True)
        if number := next(filter(None, self.gather(self._signal)), 0):
            if self.writes:
                self._checkpoint(record["epoch"])
                print(
                    f"\nstopped after epoch {record['epoch']}. --resume goes on from there",
                    file=sys.stderr,
                )
            raise SystemExit(128 + number)

    def _checkpoint(self, epoch: int) -> None:
        if epoch > self._saved:
            metadata = {"log": json.dumps(self._lines)}
            write_whole(self._unfinished / CHECKPOINT, to_bytes(self._weights, metadata))
            self._saved = epoch

    def __exit__(self, *error: Any) -> bool | None:
        """Finish the run, unless an error ended it."""
        return self._stack.__exit__(*error)

    def _finish(self, kind: Any, error: Any, traceback: Any) -> None:
        """Let the run take the place of an older one. If this is interrupted, --resume does it."""
        if isinstance(error, DivergedError) and not self.writes:
            raise SystemExit(1)  # process 0 prints it
        if error or self._finished or not self._weights or not self.writes:
            return
        _, history = split_lines(self._lines)
        self._checkpoint(len(history))
        out = self.config.out
        write_whole(out / LOG, _text(self._lines))
        # Without seconds and folder, so that the same settings give the same bytes.
        lines = [
            line | ({"seconds": 0} if "epoch" in line else {"config": line["config"] | {"out": ""}})
            for line in self._lines
        ]
        write_whole(out / WEIGHTS, to_bytes(self._weights, {"log": json.dumps(lines)}))
        for name in (LOG, CHECKPOINT):
            (self._unfinished / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # what others put there stays
            self._unfinished.rmdir()
        if note := slow_epochs_note(history[self._there :], self.framework):
            print(note)
        print(f"log and weights: {out / LOG}, {out / WEIGHTS}")

    @contextlib.contextmanager
    def _stop_on_signals(self) -> Iterator[None]:
        """Let the first Ctrl-C or SIGTERM stop the run after the epoch. A second one acts at once.

        Where several processes share the run, further ones are ignored: launchers repeat them.
        """
        if threading.current_thread() is not threading.main_thread():  # others cannot have handlers
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

        def ask(number: int, frame: Any) -> None:
            self._signal = number
            for one, handler in before.items():
                signal.signal(one, handler if self.gather is _alone else signal.SIG_IGN)

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _say(changed: Mapping[str, tuple[Any, Any]]) -> str:
    return "; ".join(f"{name} was {a} and is now {b}" for name, (a, b) in changed.items())


def _name(device: Any) -> str:
    return str(getattr(device, "device_kind", device))  # JAX calls it cpu, too, or names the GPU


def _text(lines: Sequence[Any]) -> bytes:
    return "".join(json.dumps(line, allow_nan=False) + "\n" for line in lines).encode()
