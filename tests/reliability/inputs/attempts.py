"""One attempt: a command or a function in a process of its own, and a verdict on how it ended."""

import dataclasses
import importlib
import os
import re
import resource
import select
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
MOST_MEMORY = 3 * 2**30  # in use
MOST_ADDRESSES = 12 * 2**30  # reserved


@dataclasses.dataclass
class Ended:
    """How a process ended: its exit status (below 0: the signal), and what it printed."""

    code: int
    out: str
    err: str
    memory: int  # bytes, at most
    late: bool = False


def printed(words: str) -> Callable[[Ended], bool]:
    """Return a check that a process printed these words."""
    return lambda ended: words in ended.out


@dataclasses.dataclass
class Attempt:
    """What to try.

    Attributes:
        about: a few words.
        call: called in a process of its own, in an empty working directory.
        right: whether the result is right, asked after exit status 0.
        kept: whether what had to stay as it was did so, asked after an error.
        folder: where no half-written file may stay.
        seconds: how long it may take.
        silent: whether an error has to come before anything is printed.
    """

    about: str
    call: Callable[[], Any]
    right: Callable[[Ended], bool] = lambda ended: True
    kept: Callable[[], bool] = lambda: True
    folder: Path | None = None
    seconds: float = 30
    silent: bool = False


def command(module: str, *words: object, **variables: str | None) -> Callable[[], None]:
    """Return what runs a command in this process, with changes to the environment."""

    def call() -> None:
        sys.argv = [module, *map(str, words)]
        set_environment(variables)
        commands = importlib.import_module(module)
        (
            commands if hasattr(commands, "main") else importlib.import_module(f"{module}.__main__")
        ).main()

    return call


def program(module: str, *words: object, shell: str = "", **variables: str | None) -> Callable:
    """Return what becomes a new Python that runs a command. `shell`: redirections."""

    def call() -> None:
        set_environment({"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "0", **variables})
        python = [sys.executable, "-m", module, *map(str, words)]
        os.execvp("sh", ["sh", "-c", f'exec "$@" {shell}', "sh", *python])

    return call


def set_environment(variables: dict[str, str | None]) -> None:
    """Set environment variables, or remove them where the value is None."""
    for name, value in variables.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def as_nobody(call: Callable[[], Any]) -> Callable[[], Any]:
    """Return the call without the rights of root: a user without a name, a home and permissions."""

    def changed() -> Any:
        if os.getuid() == 0:
            os.setgroups([])
            os.setgid(54321)
            os.setuid(54321)
        return call()

    return changed


def function(call: Callable[[], Any]) -> Callable[[], None]:
    """Return the call of a function such that a TypeError or ValueError ends as in a command."""

    def checked() -> None:
        try:
            call()
        except (TypeError, ValueError) as error:
            sys.stderr.write(f"error: {error}\n")
            raise SystemExit(2) from None

    return checked


def start(attempt: Attempt, folder: Path) -> int:
    """Fork a process for the attempt, and return its number."""
    if pid := os.fork():
        return pid
    code = 70
    try:
        os.setsid()
        for number, name in ((1, "out"), (2, "err")):
            os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666), number)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.chdir(folder / "here")
        resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
        attempt.call()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):
                code = code or 120  # as when Python ends
        os._exit(code)


def ended(attempt: Attempt, folder: Path) -> Ended:
    """Run the attempt in the folder `here` of this one, until it ends or its time is up."""
    shutil.rmtree(folder / "here", ignore_errors=True)
    (folder / "here").mkdir()
    (folder / "here").chmod(0o777)
    sys.stdout.flush()
    pid = start(attempt, folder)
    handle = os.pidfd_open(pid)
    late = not select.select([handle], [], [], attempt.seconds)[0]
    os.close(handle)
    if late:
        os.killpg(pid, signal.SIGKILL)
    _, status, usage = os.wait4(pid, 0)
    out, err = ((folder / name).read_text(errors="replace") for name in ("out", "err"))
    return Ended(os.waitstatus_to_exitcode(status), out, err, usage.ru_maxrss * 1024, late)


def complaint(attempt: Attempt, end: Ended, folder: Path) -> str | None:
    """Return what is wrong with how an attempt ended, or None."""
    said = [line for line in end.err.splitlines() if line and not line.startswith("note: ")]
    last = re.sub(r"\s+", " ", said[-1])[:200] if said else ""
    if end.late:
        return f"took longer than {attempt.seconds} s"
    if end.code < 0:
        return f"ended by signal {-end.code}"
    if "Traceback" in end.err + end.out or "Exception ignored" in end.err:
        return f"a traceback: {last}"
    if "Warning" in end.err:
        return f"a warning: {said[0][:200]}"
    if end.memory > MOST_MEMORY:
        return f"used {end.memory / 2**30:.1f} GiB of memory"
    if left := sorted(path.name for path in (folder / "here").iterdir()):
        return f"left in the working directory: {left}"
    if attempt.folder and (left := list(attempt.folder.rglob("*unfinished"))):
        return f"half-written files: {[path.name[-60:] for path in left]}"
    if end.code == 0:
        try:
            right = attempt.right(end)
        except Exception as error:
            return f"a wrong result. {str(error)[:200]!r}"
        return None if right else f"a wrong result. {end.out[-80:]!r} {last}"
    if (end.code == 2 and "--help" in end.err) or "─ Unrecognized options ─" in end.err:
        return None  # tyro's explanation of a flag
    if end.code == 1 and "NO, " in end.out:  # compare says so in the table
        return None
    if end.code not in (1, 2) or (end.code == 1 and "the loss is" not in end.err):
        return f"exit status {end.code}: {last}"
    if len(said) != 1 or not said[0].startswith("error: "):
        return f"an error of {len(said)} lines: {last}"
    if not said[0].isprintable() or len(said[0]) > 600:
        return f"an error of {len(said[0])} characters, or with control characters: {last}"
    if attempt.silent and end.out:
        return f"an error that comes late: {last}"
    return None if attempt.kept() else f"an error that changed what was there: {last}"


def outcomes(attempts: Iterable[Attempt], folder: Path) -> dict[str, Any]:
    """Try them one after another, and count how they end."""
    counts: dict[str, Any] = {"tried": 0, "clear error": 0, "works": 0, "FAILED": []}
    folder.mkdir(exist_ok=True)
    folder.chmod(0o777)
    for attempt in attempts:
        end = ended(attempt, folder)
        counts["tried"] += 1
        if wrong := complaint(attempt, end, folder):
            counts["FAILED"].append(f"{attempt.about}: {wrong}")
        else:
            counts["works" if end.code == 0 else "clear error"] += 1
    return counts
