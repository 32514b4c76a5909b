"""Environments: variables, users, working directories, closed streams, a damaged cache."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from shared.weights import save_weights
from tests.reliability.inputs.attempts import (
    ROOT,
    Attempt,
    as_nobody,
    command,
    printed,
    program,
)
from tests.reliability.inputs.base import SMALL, finished_run, flipped, small_data, weights

VARIABLES: tuple[dict[str, str | None], ...] = (
    {"HOME": None}, {"HOME": "/no/such"}, {"HOME": "/proc"}, {"HOME": ""},
    {"XDG_CACHE_HOME": "relative"}, {"XDG_CACHE_HOME": "/dev/null"}, {"XDG_CACHE_HOME": "/proc"},
    {"XDG_CACHE_HOME": "/no\x1b[31m/a\nb"}, {"XDG_CACHE_HOME": "/" + "x" * 300},
    {"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
    {"LC_ALL": "no_SUCH"}, {"COLUMNS": "1"}, {"COLUMNS": "0"}, {"COLUMNS": "x"}, {"TERM": "dumb"},
    {"PYTHONOPTIMIZE": "2"}, {"PYTHONWARNINGS": "error"}, {"TMPDIR": "/no/such"}, {"TZ": "x"},
    {"OMP_NUM_THREADS": "x"}, {"OMP_NUM_THREADS": "0"}, {"PATH": None}, {"PYTHONSAFEPATH": "1"},
)  # fmt: skip
ALL_FULL = ">/dev/full 2>&1"
STREAMS = (
    ">&-", "2>&-", "<&-", ">&- 2>&-", ">&- 2>&- <&-", ">/dev/full", "2>/dev/full",
    ALL_FULL, "| true",
)  # fmt: skip
DAMAGES: dict[str, Callable[[Path], Any]] = {
    "cut": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "with a bit flipped": lambda p: p.write_bytes(
        flipped(p.read_bytes(), 8 * p.stat().st_size // 2)
    ),
    "empty": lambda p: p.write_bytes(b""),
    "text": lambda p: p.write_bytes(b"text"),
    "folders": lambda p: (p.unlink(), p.mkdir()),
}


def at_once(words: tuple[object, ...]) -> Callable[[], None]:
    """Return what fails unless the first epoch is printed while the run goes on."""

    def call() -> None:
        command = [sys.executable, "-m", "impls.torch.train", *map(str, words)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert process.stdout
        for line in process.stdout:
            if line.startswith("    1 "):
                assert process.poll() is None, "printed at the end only"
                process.kill()
                break
        else:
            raise AssertionError("no epoch is printed")
        process.wait()

    return call


def inside(folder: Path, call: Callable[[], Any], *, removed: bool = False) -> Callable[[], None]:
    """Return the call in another working directory, which is removed before."""

    def moved() -> None:
        os.chdir(folder)
        if removed:
            folder.rmdir()
        call()

    return moved


def attempts(folder: Path) -> Iterator[Attempt]:
    """Yield what to try."""
    data, run, out = folder / "dätä", folder / "rün", folder / "öut"
    finished_run(run, small_data(data))
    folder.chmod(0o777)
    full = folder / "full.safetensors"
    save_weights(full, weights(28))
    train = (*SMALL, "--batch-size", 8, "--data", data, "--out", out, "--overwrite")
    commands: dict[str, tuple[object, ...]] = {
        "impls.numpy.evaluate": ("--weights", run / "weights.safetensors", "--data", data),
        "experiments.compare": (run,),
        "impls.torch.train": train,
        "impls.jax.train": train,
    }
    words = {
        "impls.numpy.evaluate": "test accuracy", "experiments.compare": "yes, ",
        "impls.torch.train": "log and weights", "impls.jax.train": "log and weights",
    }  # fmt: skip

    def attempt(about: str, module: str, how: Any = program, **options: Any) -> Attempt:
        shutil.rmtree(out, ignore_errors=True)
        call = how(module, *commands[module], **options)
        return Attempt(f"{about}: {module}", call, printed(words[module]), seconds=60)

    for variables in VARIABLES:
        about = " ".join(f"{name}={value!r:.20}" for name, value in variables.items())
        for module in list(commands) if "XDG_CACHE_HOME" in variables else list(commands)[:3]:
            yield attempt(about, module, **variables)
        if "HOME" in variables or "XDG_CACHE_HOME" in variables:
            call = command("impls.numpy.evaluate", "--weights", full, "--data", "full",
                           **{"XDG_CACHE_HOME": None, **variables})  # fmt: skip
            yield Attempt(f"{about}: the full data", as_nobody(call), printed("test accuracy"))
    yield attempt("JAX_PLATFORMS=nonsense", "impls.jax.train", JAX_PLATFORMS="nonsense")
    for help_of in (*commands, "experiments", "benchmarks"):
        for variables in ({"PYTHONIOENCODING": "ascii"}, {"PYTHONOPTIMIZE": "2"}, {"COLUMNS": "1"}):
            call = program(help_of, "--help", **variables)
            yield Attempt(f"{variables}: {help_of} --help", call, printed("usage"))
    for stream in STREAMS:
        for module in list(commands) if "2>" in stream else list(commands)[:3]:
            if stream == ALL_FULL and not module.endswith("train"):
                continue  # neither the result nor an error can be printed
            one = attempt(stream, module, shell=stream)
            if module.endswith("train"):
                one.right = lambda end: (out / "weights.safetensors").is_file()
            elif "dev/full" in stream and ">/" in stream.replace("2>/", ""):
                one.right = lambda end: False  # what nobody gets is no success
            elif stream != "<&-" and stream != "2>&-" and stream != "2>/dev/full":
                one.right = lambda end: True
            yield one
    for module in commands:
        one = attempt("a user without a name", module, command, HOME=None)
        one.call = as_nobody(one.call)
        yield one
        place = folder / "readonly"
        place.mkdir(exist_ok=True)
        place.chmod(0o555)
        one = attempt("a working directory that is read-only", module, command)
        one.call = as_nobody(inside(place, one.call))
        yield one
        place = folder / "removed"
        place.mkdir(exist_ok=True)
        one = attempt("a working directory that is gone", module)
        one.call = inside(place, one.call, removed=True)
        if module != "impls.torch.train":  # Intel's MKL does not even load there
            yield one
    yield Attempt("lines appear at once", at_once((*train, "--epochs", 2000)), seconds=60)
    yield from caches(folder, attempt)


def caches(folder: Path, attempt: Callable[..., Attempt]) -> Iterator[Attempt]:
    """Yield runs with a damaged cache of compiled code, two with each damage."""
    good, cache = folder / "good-cache", folder / "cache"
    yield attempt("a new cache", "impls.jax.train", XDG_CACHE_HOME=str(good))
    for about, damage in DAMAGES.items():
        shutil.rmtree(cache, ignore_errors=True)
        shutil.copytree(good, cache)
        files = list((cache / "dropout-three-ways" / "jax").iterdir())
        assert files, "JAX kept nothing"
        for path in files:
            damage(path)
        for time in ("first", "second"):
            yield attempt(f"a cache of files that are {about}, {time} run", "impls.jax.train",
                          XDG_CACHE_HOME=str(cache))  # fmt: skip
