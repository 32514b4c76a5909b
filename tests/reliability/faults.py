"""Save a checkpoint while each of its system calls is killed or fails, and while power is lost."""

import itertools
import os
import re
import resource
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from shared.checks import InputError
from shared.folder import CHECKPOINT, PREVIOUS, read_checkpoint, write_checkpoint
from shared.randomness import initial_weights
from shared.records import TrainResult

ROOT = Path(__file__).parents[2]
# A save without any framework, which takes a fraction of a second to start.
SAVE = """
import sys
from pathlib import Path
from tests.reliability.faults import checkpoint
for epoch in sys.argv[2:]:
    checkpoint(Path(sys.argv[1]), int(epoch))
"""
CALLS = ("openat", "write", "fsync", "chmod", "rename", "read", "close")
FAULTS = ("signal=SIGKILL", "error=ENOSPC", "error=EIO")


def checkpoint(folder: Path, epoch: int) -> None:
    """Write the checkpoint of an epoch into a folder."""
    folder.mkdir(exist_ok=True)
    run = TrainResult([{"epoch": epoch}], initial_weights(784, 8, 8, 10, seed=epoch))  # type: ignore[typeddict-item]
    write_checkpoint(folder / CHECKPOINT, run, {})  # type: ignore[typeddict-item]


def saved(folder: Path) -> int:
    """Return the last epoch that can be read in a folder, 0 if there is none."""
    epochs = [0]
    for name in (CHECKPOINT, PREVIOUS):
        try:
            epochs.append(read_checkpoint(folder / name)[0].history[-1]["epoch"])
        except InputError:
            continue
    return max(epochs)


def save(folder: Path, *strace: str, epochs: tuple[str, ...] = ("2",)) -> str:
    """Save checkpoints after that of epoch 1, in another process, and return its trace."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    checkpoint(folder, epoch=1)
    trace = folder.with_name("trace")
    command = ["strace", "-f", "-o", str(trace), *strace, sys.executable, "-c", SAVE, str(folder)]
    subprocess.run([*command, *epochs], cwd=ROOT, capture_output=True, timeout=60)
    return trace.read_text()


def moments(folder: Path) -> dict[str, range]:
    """Return which calls of each kind belong to the save, from a clean trace: numbers from 1."""
    counts: Counter = Counter()
    found: dict[str, list[int]] = {}
    for line in save(folder).splitlines():
        name = (re.match(r"\d+ +(\w+)\(", line) or [None, ""])[1]
        counts[name] += 1
        if name in CALLS and (str(folder) in line or name in ("fsync", "write")):
            found.setdefault(name, []).append(counts[name])
    return {name: range(min(at), max(at) + 1) for name, at in found.items()}


def system_calls(folder: Path, most: int = 1000) -> Counter:
    """Kill a save at its system calls, and let them fail. At most so many of each kind of call."""
    outcomes: Counter = Counter()
    for name, numbers in moments(folder / "save").items():
        for number, fault in itertools.product(list(numbers)[:most], FAULTS):
            save(folder / "save", "-e", f"inject={name}:{fault}:when={number}")
            kept = saved(folder / "save") in (1, 2)
            outcomes[fault if kept else f"FAILED: lost at {name} {number}, {fault}"] += 1
    return outcomes


def short_writes(folder: Path, step: int) -> Counter:
    """Save while a file can only have so many bytes: the last write that fits is a short one."""
    outcomes: Counter = Counter()
    checkpoint(folder, epoch=1)
    size = (folder / CHECKPOINT).stat().st_size
    for limit in range(0, size, step):
        if os.fork() == 0:  # Python ignores SIGXFSZ, so a write beyond the limit is an error
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                checkpoint(folder, epoch=2)
            except OSError:
                os._exit(0)
            os._exit(1)
        refused = os.wait()[1] == 0
        good = refused and saved(folder) == 1 and not list(folder.glob(".*unfinished"))
        outcomes["refused" if good else f"FAILED: lost at {limit} bytes"] += 1
    return outcomes


class File:
    """A file on a simulated disk: its content, and the part of it that a loss of power spares."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = self.safe = content


Disk = dict[str, File]


def replay(trace: str, folder: Path, before: Disk, *, synced: bool = True) -> Iterator[list[Disk]]:
    """Repeat the system calls of a save, and yield what the disk may hold if the power fails.

    Content that was not synced is lost. Of the changes of names since the folder was synced, the
    first so many are kept, for each number.

    Args:
        trace: of `save`, with `-xx`, `-y` and long strings.
        folder: where it wrote.
        before: what was in there.
        synced: if False, fsync does nothing.

    Yields:
        The disks that are possible after each call.
    """
    durable, changes, now = dict(before), [], dict(before)  # changes: of names, not yet synced

    def change(old: str, new: str, disk: Disk, file: File) -> None:
        disk.pop(old, None)
        disk[new] = file

    for line in trace.splitlines():
        line = re.sub(r"\\x([0-9a-f]{2})", lambda hex: chr(int(hex[1], 16)), line)
        call = re.match(r"\d+ +(\w+)\((.*)\) += (\d+)", line, re.S)
        if not call or str(folder) not in line:
            continue
        name, arguments, _ = call.groups()
        paths = re.findall(re.escape(str(folder)) + r"/?([^/\"<>]*)[\">]", line)
        if name == "openat" and "O_CREAT" in arguments:
            changes.append(("", paths[0], File()))
        elif name == "write":
            content = re.search(r'"(.*)", (\d+)$', arguments, re.S)
            assert content
            assert len(content[1]) == int(content[2])
            now[paths[0]].content += content[1].encode("latin-1")
        elif name == "rename":
            changes.append((paths[0], paths[1], now[paths[0]]))
        elif name == "fsync" and synced and paths[0]:
            now[paths[0]].safe = now[paths[0]].content
        elif name == "fsync" and synced:
            durable, changes = dict(now), []
        if name in ("openat", "rename") and changes:
            change(changes[-1][0], changes[-1][1], now, changes[-1][2])
        disks = [dict(durable)]
        for one in changes:
            disks.append(dict(disks[-1]))
            change(one[0], one[1], disks[-1], one[2])
        yield disks


def power_losses(folder: Path, *, synced: bool = True) -> Counter:
    """Look what can be read after a loss of power behind each system call of two saves."""
    outcomes: Counter = Counter()
    checkpoint(folder / "before", epoch=1)
    before = {CHECKPOINT: File((folder / "before" / CHECKPOINT).read_bytes())}
    trace = save(folder / "save", "-xx", "-y", "-s", "1000000", epochs=("2", "3"))
    disks: list[Disk] = []
    for disks in replay(trace, folder / "save", before, synced=synced):
        for disk in disks:
            found = readable(folder / "disk", disk)
            outcomes["a whole checkpoint" if found else "FAILED: no checkpoint"] += 1
    if any(readable(folder / "disk", disk) != 3 for disk in disks):
        outcomes["FAILED: a save had ended, and was lost"] += 1
    return outcomes


def readable(folder: Path, disk: Disk) -> int:
    """Return the epoch that can be read from a disk after a loss of power."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, file in disk.items():
        (folder / name).write_bytes(file.safe)
    return saved(folder)
