"""Files that appear complete or not at all, and that are read only if they can be."""

import contextlib
import os
import stat
import tempfile
from pathlib import Path
from typing import BinaryIO

UNFINISHED = ".unfinished"


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is there, whole and on the disk, or as it was before.

    The content goes into a new file in the same folder, which then takes the name. If the process
    is killed in between, that file stays, and `sweep` removes it.

    Raises:
        OSError: the file cannot be written. Nothing is left behind.
    """
    descriptor, name = tempfile.mkstemp(suffix=UNFINISHED, prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)  # as open() would have made it
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
    sync_folder(path.parent)


def open_regular(path: Path) -> BinaryIO:
    """Open a file to read it, without waiting for the other end of a pipe.

    Raises:
        OSError: it cannot be opened, or it is a pipe, a device or a folder.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError("it is not a regular file")
    return open(descriptor, "rb")


def check_writable(path: Path) -> None:
    """Raise OSError unless a file can be written at this path. What is there stays as it is."""
    if os.path.lexists(path):
        open_regular(path).close()
        path.open("ab").close()
    else:
        path.open("xb").close()
        path.unlink()


def read_text(path: Path, most: int) -> str:
    """Read a text file of at most so many bytes.

    Raises:
        OSError: it cannot be opened, or it is a pipe, a device or a folder, or longer.
        ValueError: it is not UTF-8.
    """
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > most:
            raise OSError(f"it has more than {most:,} bytes")
        return file.read(most).decode()


def printable(words: object, most: int = 300) -> str:
    """Return words from elsewhere as one short line without control characters."""
    line = "".join(c if c.isprintable() else "?" for c in str(words))
    return line if len(line) <= most else f"{line[:most]}..."


def sync_folder(folder: Path) -> None:
    """Have the names in a folder written to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what processes left in a folder that were killed while they wrote."""
    for path in folder.glob(f".*{UNFINISHED}"):
        with contextlib.suppress(OSError):
            path.unlink()
