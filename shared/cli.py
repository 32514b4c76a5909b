"""The commands: reading the flags, and what `train` and `evaluate` do in every framework."""

import atexit
import contextlib
import dataclasses
import io
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import tyro
from tqdm import tqdm

from shared.checks import InputError
from shared.config import EvaluateConfig, RunConfig
from shared.data import load, resize_images, side_of, to_inputs
from shared.files import printable
from shared.folder import LOG, RunFolder, belong_together, read_header
from shared.group import ALONE, Group, LostProcessError, check_same_settings, watch
from shared.idx import Data
from shared.memory import check_room, check_run
from shared.records import (
    EPOCH_HEADER,
    DivergedError,
    EpochRecord,
    Header,
    Machine,
    TrainResult,
    Weights,
    epoch_line,
    make_header,
    read_log,
    slow_epochs_note,
)
from shared.weights import layer_sizes, load_weights

# The packages whose versions go into the log of a run.
PACKAGES = {"torch": ("torch",), "jax": ("jax", "jaxlib", "flax", "optax")}

NARROWEST = 40  # columns. tyro never ends where a terminal has five or fewer

Settings = TypeVar("Settings")


def parse(
    settings: type[Settings], module: str, *, args: Sequence[str] | None = None, **defaults: Any
) -> Settings:
    """Read the command line into a dataclass.

    A wrong flag or value ends the process with status 2, after an explanation by tyro.

    Args:
        settings: the dataclass. Its fields are the flags.
        module: the command's module, for the line `usage: python -m MODULE`.
        args: the words of the command line, those of this process if None.
        defaults: defaults that differ for this command.
    """
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    # If `defaults` is empty, a field without a default value becomes a required flag.
    default = settings(**defaults) if defaults else tyro.MISSING_NONPROP
    return tyro.cli(settings, prog=f"python -m {module}", args=args, default=default)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """On an InputError, print its message in one line on stderr and exit with status 2.

    On Ctrl-C, exit with status 130; on a LostProcessError or a DivergedError, with 1. Text that a
    stream cannot print never ends a command.
    """
    mend_streams()
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None
    except DivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except LostProcessError as error:
        print(f"error: {error}. --resume goes on from the last checkpoint", file=sys.stderr)
        raise SystemExit(1) from None
    except (InputError, MemoryError) as error:
        words = " ".join(str(error).split()) or "there is not enough memory"
        print(f"error: {printable(words, 590)}", file=sys.stderr)
        raise SystemExit(2) from None


def mend_streams() -> None:
    """Make stdout and stderr take any text: escape what they cannot print, forget if closed."""
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:  # closed, so the next file that is opened would take the number
            os.open(os.devnull, os.O_RDWR)
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w" if number else "r"))  # noqa: SIM115
        elif number and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def train_main(
    framework: str,
    train: Callable[..., TrainResult],
    describe: Callable[[str], Machine],
    join: Callable[[Any], contextlib.AbstractContextManager[Group]],
    settings: type[RunConfig] = RunConfig,
) -> None:
    """Run the train command of a framework.

    Args:
        framework: its name, torch or jax.
        train: `train` of that implementation.
        describe: `describe` of its runtime. Raises InputError for a device that does not exist.
        join: given the settings, joins the other processes that train the same network.
        settings: the dataclass whose fields are the flags.
    """
    # While Python cleans up behind the run, nothing is left to stop.
    atexit.register(signal.signal, signal.SIGINT, signal.SIG_IGN)
    with one_line_errors():
        config = parse(settings, f"impls.{framework}.train", out=Path("runs") / framework)
        with join(config) as group, watch(group):
            machine = describe(config.device)
            data = load(config.data, resize=config.resize)
            train_and_save(framework, train, config, data, machine, group)
            if group.rank == 0:
                say(f"log and weights: {config.out}/log.jsonl, {config.out}/weights.safetensors")


def train_and_save(
    framework: str,
    train: Callable[..., TrainResult],
    config: RunConfig,
    data: Data,
    machine: Machine,
    group: Group = ALONE,
) -> TrainResult:
    """Train, print and log every epoch, and write the log and the weights into config.out.

    Ctrl-C and SIGTERM save a checkpoint and end the process with status 130 or 143.

    Args:
        framework: its name, torch or jax.
        train: `train` of that implementation.
        config: the settings.
        data: what to train on.
        machine: what to train with, for the log.
        group: the processes that train the network. Only process 0 prints and writes.

    Returns:
        What `train` returned.

    Raises:
        InputError: the folder holds another run, or something cannot be written.
    """
    side = data.train_images.shape[1]
    check_run(config, len(data.train_images), len(data.test_images), side)
    header = make_header(framework, PACKAGES[framework], config, data, machine)
    check_same_settings(group, header)
    if group.rank > 0:
        return _follow(train, config, data, group)
    with (
        stop_on_signals() as stop_if_asked,
        _open_folder(config, header, group) as folder,
        tqdm(total=config.epochs, unit="epoch", disable=None) as bar,  # None: only on a terminal
    ):
        if folder.finished:
            say(f"{framework}: the run in {config.out} is finished already")
            return folder.finished
        say(f"{framework}: {data.summary}")
        if folder.start:
            say(f"going on after epoch {len(folder.start.history)}")
            bar.update(len(folder.start.history))
        say(EPOCH_HEADER)

        def on_epoch(record: EpochRecord, get_weights: Callable[[], Weights]) -> None:
            folder.add(record, get_weights())
            with bar.external_write_mode():
                say(epoch_line(record))
            bar.update()
            stop_if_asked()

        try:
            with watch(group), _stopped_if_asked(stop_if_asked):
                result = train(config, data, on_epoch, start=folder.start)
            folder.finish(result.weights)
        except (DivergedError, LostProcessError) as error:
            print(f"error: {error}. {folder.place}", file=sys.stderr)
            raise SystemExit(1) from None
        except Stopped as stopped:
            folder.save()
            print(f"\nstopped. {folder.place}", file=sys.stderr)
            raise SystemExit(128 + stopped.signal) from None
    if note := slow_epochs_note(result.history, framework):
        say(note)
    return result


@contextlib.contextmanager
def _open_folder(config: RunConfig, header: Header, group: Group) -> Iterator[RunFolder]:
    """Open the folder of a run, and tell the other processes where the run stands.

    What they pass to `gather` at the same time is not used.
    """
    with contextlib.ExitStack() as stack:
        try:
            folder = stack.enter_context(RunFolder(config, header))
        except InputError as error:
            group.gather((error, False))
            raise
        group.gather((folder.finished or folder.start, folder.finished is not None))
        yield folder


def _follow(
    train: Callable[..., TrainResult], config: RunConfig, data: Data, group: Group
) -> TrainResult:
    """Train as process 0 does, and leave it to process 0 to print and to write."""
    try:
        with stop_on_signals() as stop_if_asked, _stopped_if_asked(stop_if_asked):
            start, finished = group.gather(None)[0]  # from _open_folder
            if isinstance(start, InputError):
                raise SystemExit(2)
            return start if finished else train(config, data, start=start)
    except DivergedError:
        raise SystemExit(1) from None
    except Stopped as stopped:
        raise SystemExit(128 + stopped.signal) from None


@contextlib.contextmanager
def _stopped_if_asked(stop_if_asked: Callable[[], None]) -> Iterator[None]:
    """Raise Stopped again where JAX has turned it into an error of its own."""
    try:
        yield
    except Exception:
        stop_if_asked()
        raise


class Stopped(BaseException):  # not an Exception, so that nobody catches it by accident
    """A signal asks the process to stop."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.signal = number


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Callable[[], None]]:
    """Raise Stopped at the first Ctrl-C or SIGTERM, and ignore further ones.

    Yields:
        A function that raises it again. Python forgets an error that a signal raises while memory
        is cleaned up, and would print that it does.
    """
    got: list[int] = []
    print_forgotten = sys.unraisablehook

    def forgotten(error: Any) -> None:
        if not isinstance(error.exc_value, Stopped):
            print_forgotten(error)

    def again() -> None:
        if got:
            raise Stopped(got[0])

    def stop(number: int, frame: Any) -> None:
        for one in before:
            signal.signal(one, signal.SIG_IGN)
        got.append(number)
        raise Stopped(number)

    if threading.current_thread() is not threading.main_thread():  # others cannot have handlers
        yield again
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, stop)
    sys.unraisablehook = forgotten
    try:
        yield again
    finally:
        sys.unraisablehook = print_forgotten
        for number, handler in before.items():
            signal.signal(number, handler)


def say(text: str) -> None:
    """Print a line at once. If nobody reads any more, go on in silence: a run is worth more."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):  # a closed pipe, a full disk, a closed file
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(text: str) -> None:
    """Print a result.

    Raises:
        InputError: it cannot be printed.
    """
    try:
        print(text, flush=True)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the rest of it
        raise InputError(f"cannot print the result: {error.strerror}") from None


def evaluate_main(framework: str, evaluate_weights: Callable[..., tuple[float, float]]) -> None:
    """Run the evaluate command of a framework: print loss and accuracy on the test images.

    Args:
        framework: its name, torch, jax or numpy.
        evaluate_weights: the function of that name in that implementation.
    """
    with one_line_errors():
        config = parse(EvaluateConfig, f"impls.{framework}.evaluate")
        weights = load_weights(config.weights)
        log = config.weights.with_name(LOG)
        if os.path.exists(log) and not belong_together(
            read_log(log)[0], read_header(config.weights)
        ):
            print(f"note: {log} is the log of another run", file=sys.stderr)
        data = data_for(weights, config.data)
        images, labels = to_inputs(data.test_images), data.test_labels
        loss, accuracy = evaluate_weights(weights, images, labels, config.device)
        correct = round(accuracy * len(labels))
        show(
            f"{framework}: {data.summary}\n"
            f"test loss {loss:.6f}  test accuracy {accuracy:.4f}  ({correct} of {len(labels)})"
        )


def data_for(weights: Mapping[str, np.ndarray], name: str) -> Data:
    """Load data for a trained network, with the images in the size that it was trained on.

    Args:
        weights: the network's, as in a weight file.
        name: as in `shared.data.load`.

    Raises:
        InputError: the data cannot be had, or the network does not fit it.
    """
    inputs, *_, outputs = layer_sizes(weights)
    side = side_of(inputs)
    data = load(name)
    if data.test_images.shape[1] != side:
        check_room(len(data.test_images) * side**2, f"test images of {side} x {side}")
        data = dataclasses.replace(data, test_images=resize_images(data.test_images, side))
    if outputs <= data.test_labels.max():
        raise InputError(
            f"the network has {outputs} outputs, but the labels go up to {data.test_labels.max()}"
        )
    return data
