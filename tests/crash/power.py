"""Let a run fail at each of its system calls, and let the power fail after each of them.

It needs Linux and strace. The run adds 1 to its weights instead of training, which starts sooner.
"""

import contextlib
import dataclasses
import io
import itertools
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from impls.numpy.mlp import MLP
from shared.data import FILES
from shared.records import EpochRecord
from shared.run import Run
from tests.crash.kills import ROOT, last_epoch, result

EPOCHS = 2
SMALL = ["--epochs", str(EPOCHS), "--hidden-1", "2", "--hidden-2", "2"]
CALLS = ("mkdir", "openat", "write", "fsync", "rename", "close", "unlink", "rmdir")
FAULTS = {
    "signal=SIGKILL": "killed at a system call",
    "error=ENOSPC": "a system call fails: the disk is full",
    "error=EIO": "a system call fails: the disk is broken",
}
POWER = "the power fails after a system call"


def train(out: Path, *flags: str) -> int:
    """Train, with data from the folder beside `out`. Return how many epochs were there before."""
    data = out.with_name("data")
    data.mkdir(exist_ok=True)
    for name in FILES:
        header = np.array([0x803, 2, 1, 1] if "images" in name else [0x801, 2], ">u4").tobytes()
        (data / name).write_bytes(header + bytes(2))
    words = ["--data", str(data), "--out", str(out), *SMALL, *flags]
    with Run("torch", words) as run:
        model = MLP.from_config(run.config, inputs=1)
        first = run.restore(model, "cpu")
        for epoch in range(first, EPOCHS + 1):
            model.set_weights({name: array + 1 for name, array in model.get_weights().items()})
            scores = dict.fromkeys(EpochRecord.__annotations__, 1.0)
            run.save({**scores, "epoch": epoch}, model)  # type: ignore[typeddict-item]  # of names
    return first - 1


def traced(out: Path, *strace: str, broken: str = "") -> tuple[subprocess.CompletedProcess, str]:
    """Train in another process. Return how it ended, and its system calls.

    `broken` is Python that runs first, to break something on purpose.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    code = f"import shared.run\n{broken}\nfrom tests.crash.power import *\ntrain(Path(sys.argv[1]))"
    trace = out.with_name("trace")
    command = ["strace", "-f", "-y", "-o", str(trace), "-e", f"trace={','.join(CALLS)}", *strace,
               sys.executable, "-c", code, str(out)]  # fmt: skip
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    return done, trace.read_text()


def lost(out: Path, promised: int, expected: tuple[bytes, list]) -> str:
    """Go on with a run of which so many epochs were printed. Return what was lost, or ""."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            there = train(out, "--resume")
    except SystemExit:
        return said.getvalue()
    if there < promised:
        return f"{there} epochs of {promised} were left"
    return "" if result(out) == expected else "it ended in another way"


def system_calls(folder: Path, every: int = 1) -> Iterator[tuple[str, str]]:
    """Let a run fail at each system call that writes. Yield the fault, and what was lost."""
    out, seen, numbers = folder / "run", Counter[str](), []
    _, trace = traced(out)
    expected = result(out)
    for name, arguments in re.findall(r"^\d+ +(\w+)\((.*)", trace, re.M):
        seen[name] += 1
        if str(out) in arguments and not arguments.startswith("1<"):  # 1: what it prints
            numbers.append((name, seen[name]))
    for (name, number), fault in list(itertools.product(numbers, FAULTS))[::every]:
        done, _ = traced(out, "-e", f"inject={name}:{fault}:when={number}")
        problem = lost(out, last_epoch(done.stdout), expected)
        if "error" in fault and (done.returncode not in (0, 2) or done.stderr.count("\n") > 1):
            problem += f" status {done.returncode}: {done.stderr}"
        yield FAULTS[fault], problem and f"{name} {number}: {problem}"


@dataclasses.dataclass(eq=False)
class File:
    """A file on a simulated disk: its content, and what a loss of power certainly spares of it."""

    content: bytes = b""
    safe: bytes = b""

    def possible(self) -> tuple[bytes, bytes, bytes]:
        """Return what a loss of power may leave: nothing new, all, or a part."""
        part = self.content[: len(self.content) // 2]
        return self.safe, self.content, self.safe if self.safe == self.content else part


FOLDER = File(b"folder", b"folder")
Change = tuple[str, str, File]  # old name, new name


def changed(names: dict[str, File], changes: list[Change]) -> dict[str, File]:
    """Return names after changes."""
    names = dict(names)
    for old, new, file in changes:
        names.pop(old, None)
        names |= {new: file} if new else {}
    return names


def plain(text: str) -> bytes:
    r"""Return what strace wrote as \x2f\x74."""
    return bytes.fromhex(text.replace("\\x", ""))


def disks(trace: str, out: Path) -> Iterator[tuple[int, tuple]]:
    """Repeat the system calls of a run, and yield what the disk may hold if the power fails.

    Of the names that changed since their folder was synced, the first so many are kept, for each
    number. The folder `out` is not lost: it was there before. Yielded with the last epoch that was
    printed.
    """
    durable: dict[str, File] = {}
    pending: list[Change] = []  # not yet synced
    promised = 0
    for line in trace.splitlines():
        call = re.match(r"\d+ +(\w+)\((?:(\d+)<(.*?)>)?(.*)\) += \d+", line)
        if not call:
            continue
        name, descriptor, opened, arguments = call.groups()
        texts = [plain(text) for text in re.findall(r'"(.*?)"', arguments)]
        if name == "write" and descriptor == "1":
            promised = max(promised, last_epoch(texts[0].decode()))
        path = (plain(opened) if opened else texts[0]).decode()
        if not path.startswith(str(out)):
            continue
        file = changed(durable, pending).get(path, FOLDER)
        if name == "mkdir":
            pending.append(("", path, FOLDER))
        elif name == "openat" and "O_CREAT" in arguments and file is FOLDER:
            pending.append(("", path, File()))
        elif name == "openat" and "O_TRUNC" in arguments:
            file.content = b""
        elif name == "write":
            file.content += texts[0]
        elif name == "rename":
            pending.append((path, texts[1].decode(), file))
        elif name in ("unlink", "rmdir"):
            pending.append((path, "", file))
        elif name == "fsync" and file is FOLDER:
            here = [one for one in pending if str(Path(one[1] or one[0]).parent) == path]
            durable = changed(durable, here)
            pending = [one for one in pending if one not in here]
        elif name == "fsync":
            file.safe = file.content
        for number, which in itertools.product(range(len(pending) + 1), range(3)):
            names = changed(durable, pending[:number])
            yield promised, tuple((path, names[path].possible()[which]) for path in sorted(names))


def power_losses(folder: Path, broken: str = "") -> Iterator[tuple[str, str]]:
    """Go on with a run after a loss of power behind each system call. Yield what was lost."""
    out = folder / "run"
    _, trace = traced(out, "-xx", "-s", "1000000", broken=broken)
    expected = result(out)
    for promised, disk in dict.fromkeys(disks(trace, out)):
        shutil.rmtree(out)
        out.mkdir()
        for path, content in disk:
            if content == FOLDER.content:
                Path(path).mkdir()
            elif Path(path).parent.exists():  # else the name of the folder is lost
                Path(path).write_bytes(content)
        yield POWER, lost(out, promised, expected)
