"""Start one command several times on this machine, and stop all of it when one of them fails."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from typing import NoReturn

from shared.checks import InputError

LAUNCHED = "STARTED_BY_LAUNCH"  # an environment variable of the processes that `launch` starts
GRACE = 5  # seconds for the others to notice by themselves, and to say how the run goes on


def free_address() -> str:
    """Return an address on this machine, with a port that nobody uses: 127.0.0.1:PORT."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def check_address(address: str) -> int:
    """Return the port of an address HOST:PORT.

    Raises:
        InputError: it is no such address.
    """
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) < 2**16):
        raise InputError(f"the address of process 0 must be HOST:PORT, got {address!r}")
    return int(port)


def check_free(address: str) -> None:
    """Check that nobody uses the port of an address HOST:PORT on this machine.

    Raises:
        InputError: somebody does, or it is no address.
    """
    port = check_address(address)
    try:
        with socket.create_server(("", port)):
            pass
    except OSError as error:
        raise InputError(f"cannot join the other processes: {address}: {error}") from None


def end_with_launcher() -> None:
    """Send SIGTERM to this process as soon as `launch` or torchrun, if it started it, is gone."""
    if not {LAUNCHED, "TORCHELASTIC_RUN_ID"} & os.environ.keys():
        return
    parent = os.getppid()

    def wait() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def launch(variables: list[dict[str, str]]) -> int:
    """Run the command of this process once for each element of a list, all at the same time.

    Args:
        variables: the environment variables that each process gets in addition to ours.

    Returns:
        The exit status: 0 if all ended with 0, else that of the process that failed first, and 1 if
        that one was killed by a signal. If Ctrl-C or SIGTERM stopped all of them: 130 or 143.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    command = [sys.executable, *sys.orig_argv[1:]]
    started: list[subprocess.Popen] = []
    got: list[int] = []

    def pass_on(number: int, frame: object) -> None:
        got.append(number)
        for process in started:
            process.send_signal(number)

    for number in before:
        signal.signal(number, pass_on)
    try:
        for more in variables:
            # A group of its own: Ctrl-C reaches it once, from us.
            variables_of_one = os.environ | more | {LAUNCHED: "1"}
            started.append(subprocess.Popen(command, env=variables_of_one, start_new_session=True))
        status = _wait(started)
        return 128 + got[0] if got and status else status
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
    # Several may have failed within this moment. The likely cause comes first: killed, then ended
    # with an error, then aborted, which JAX does to those that lose another process.
    rank, status = min(failed, key=lambda one: (one[1] == -signal.SIGABRT, one[1] > 0, one[0]))
    if status < 0 and -status not in (signal.SIGINT, signal.SIGTERM):
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
