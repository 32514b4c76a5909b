"""Processes that train one network together: what they tell each other, without a framework.

Process 0 alone prints, logs and writes files. `impls/<framework>/parallel.py` makes the group.
"""

import contextlib
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from shared.checks import InputError
from shared.records import Header

JOIN_TIMEOUT = 60  # seconds in which the processes must find each other
WAIT_TIMEOUT = 600  # seconds to wait for a process that has joined: it may be loading data
# What gloo says when a process is gone. Both frameworks use gloo for all-reduce between CPUs.
LOST = re.compile(r"connection (closed|reset|refused)|broken pipe|time[d ]*out", re.IGNORECASE)


class Group(NamedTuple):
    """The processes of a run, as one of them sees them."""

    rank: int  # the number of this process, counted from 0
    size: int  # how many there are
    gather: Callable[[Any], list[Any]]  # returns what all passed to it, in the order of the ranks


ALONE = Group(0, 1, lambda value: [value])


def check_same_settings(group: Group, header: Header) -> None:
    """Check that every process has the settings and the data of process 0.

    Raises:
        InputError: one has not. Only process 0 prints it. The others exit with status 2.
    """
    settings = {**header["config"], "data": header["data"], "images": header["images"]}
    settings.pop("out")  # only process 0 writes
    ours, *others = group.gather(settings)
    for rank, theirs in enumerate(others, 1):
        different = [
            f"{key} is {theirs.get(key)} there and {ours.get(key)} in process 0"
            for key in ours
            if theirs.get(key) != ours.get(key)
        ]
        if different:
            message = f"process {rank} of {group.size} has other settings: {'; '.join(different)}"
            raise InputError(message) if group.rank == 0 else SystemExit(2)


@contextlib.contextmanager
def joining() -> Iterator[None]:
    """Turn what a framework raises while processes join each other into an InputError."""
    try:
        yield
    except InputError:
        raise
    except (RuntimeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else repr(error)
        raise InputError(f"cannot join the other processes: {reason}") from None


@contextlib.contextmanager
def deadline(address: str) -> Iterator[None]:
    """End the process with a line and status 2 if the context lasts longer than `JOIN_TIMEOUT`.

    Left to themselves, the frameworks print pages of C++, JAX aborts, and neither minds Ctrl-C.

    Args:
        address: where the processes meet.
    """

    def give_up() -> None:
        print(
            f"error: not all processes connected to {address} within {JOIN_TIMEOUT} seconds",
            file=sys.stderr,
            flush=True,
        )
        os._exit(2)

    timer = threading.Timer(JOIN_TIMEOUT, give_up)
    timer.daemon = True
    timer.start()
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
        timer.cancel()


class LostProcessError(RuntimeError):
    """Another process of the group does not answer."""


@contextlib.contextmanager
def watch(group: Group) -> Iterator[None]:
    """Turn what a framework raises when another process is gone into a LostProcessError."""
    try:
        yield
    except (RuntimeError, ValueError) as error:  # JAX raises either
        found = LOST.search(str(error))
        if group.size == 1 or found is None:
            raise
        raise LostProcessError(
            f"process {group.rank} of {group.size} has lost another one: {found[0].lower()}"
        ) from None
