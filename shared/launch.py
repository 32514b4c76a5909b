"""Start one command several times on this machine, and stop all of it when one of them fails."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

GRACE = 5  # seconds for the others to notice by themselves, and to say how the run goes on


def free_address() -> str:
    """Return an address on this machine, with a port that nobody uses: 127.0.0.1:PORT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def check_free(address: str) -> None:
    """Check that nobody uses the port of an address HOST:PORT on this machine.

    Raises:
        ValueError: somebody does, or it is no address.
    """
    try:
        with socket.create_server(("", int(address.rpartition(":")[2]))):
            pass
    except (OSError, ValueError) as error:
        raise ValueError(f"{address}: {error}") from None


def launch(variables: list[dict[str, str]]) -> int:
    """Run the command of this process once for each element of a list, all at the same time.

    Args:
        variables: the environment variables that each process gets in addition to ours.

    Returns:
        The exit status: 0 if all ended with 0, else that of the first that failed, and 1 if that
        one was killed by a signal.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    command = [sys.executable, *sys.orig_argv[1:]]
    started: list[subprocess.Popen] = []

    def pass_on(number: int, frame: object) -> None:
        for process in started:
            process.send_signal(number)

    for number in before:
        signal.signal(number, pass_on)
    try:
        for more in variables:
            # A group of its own: Ctrl-C reaches it once, from us.
            started.append(subprocess.Popen(command, env=os.environ | more, start_new_session=True))
        return _wait(started)
    finally:
        for process in started:
            process.kill()
            process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)


def _wait(started: list[subprocess.Popen]) -> int:
    """Return when all have ended, or `GRACE` seconds after one has failed."""
    while all(process.poll() in (None, 0) for process in started):
        if all(process.poll() == 0 for process in started):
            return 0
        time.sleep(0.05)
    failed = [(i, p.returncode) for i, p in enumerate(started) if p.returncode]
    # If several failed within this moment, JAX has aborted those that lost another one.
    rank, status = min(failed, key=lambda one: (one[1] == -signal.SIGABRT, one[1] > 0, one[0]))
    if status < 0:
        name = signal.Signals(-status).name
        print(
            f"error: process {rank} of {len(started)} was killed by {name}, so the others stop. "
            "--resume goes on from the last checkpoint",
            file=sys.stderr,
        )
    end = time.monotonic() + GRACE
    while time.monotonic() < end and any(process.poll() is None for process in started):
        time.sleep(0.05)
    return status if status > 0 else 1


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Let nobody print on stdout, C++ included, as long as the context lasts."""
    sys.stdout.flush()
    stdout = os.dup(1)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(stdout, 1)
        os.close(stdout)
        os.close(nowhere)


def leave(error: BaseException, after: float) -> NoReturn:
    """End the process with the status that `error` would give it, without any clean-up.

    Args:
        error: a SystemExit, or an error of which the traceback is printed.
        after: seconds to wait first.
    """
    status = 1
    if isinstance(error, SystemExit):
        status = error.code if isinstance(error.code, int) else 0
    else:
        traceback.print_exception(error)
    sys.stdout.flush()
    sys.stderr.flush()
    time.sleep(after)
    os._exit(status)
