"""Places to write to: folders, links, and what becomes of them during a run."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.reliability.inputs.attempts import Attempt, Ended, as_nobody, command
from tests.reliability.inputs.base import small_data

KEPT = "this must stay"
MADE: dict[str, Callable[[Path], Any]] = {
    "a file": lambda p: p.write_text(KEPT),
    "a pipe": os.mkfifo,
    "a loop": lambda p: p.symlink_to(p),
    "dangling": lambda p: p.symlink_to(p.with_name("nowhere")),
    "a link to a folder": lambda p: (p.with_name("real").mkdir(), p.symlink_to("real")),
    "a link to a file": lambda p: (
        p.with_name("outside").write_text(KEPT),
        p.symlink_to("outside"),
    ),
    "a link to a device": lambda p: p.symlink_to("/dev/full"),
    "a folder": Path.mkdir,
    "not writable": lambda p: (p.mkdir(), p.chmod(0o555)),
}
INSIDE = (
    "log.jsonl", "weights.safetensors", "checkpoint.safetensors", "checkpoint.previous", ".lock",
    ".checkpoint.safetensors.new", ".weights.safetensors.a.unfinished", ".log.jsonl.a.unfinished",
)  # fmt: skip
NAMES = (
    "x" * 255, "x" * 256, "x/" * 400, "x/" * 3000, "a\nb", "\x1b[31m", "\udcff", "é数", " ",
    "a'b", "%s",
    "a/../b", "-x", "~", "$HOME", "con.", "." * 100, "\u202e",
)  # fmt: skip


def during(change: Callable[[Path], Any], out: Path, call: Callable[[], None]) -> Callable:
    """Return the call of a train command that meets a change of its folder at its second epoch."""

    def changed() -> None:
        from shared.folder import RunFolder

        add = RunFolder.add

        def add_and_change(self, record, weights):
            if record["epoch"] == 2:
                change(out)
            add(self, record, weights)

        RunFolder.add = add_and_change  # type: ignore[method-assign]
        call()

    return changed


def full(out: Path) -> None:
    """Let no file of this process be longer than now."""
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "removed": shutil.rmtree,
    "renamed": lambda p: p.rename(p.with_name("renamed")),
    "not writable": lambda p: p.chmod(0o555),
    "a file": lambda p: (shutil.rmtree(p), p.write_text(KEPT)),
    "full": full,
    "without its checkpoint": lambda p: (p / "checkpoint.safetensors").unlink(),
    "with a folder for the checkpoint": lambda p: (
        (p / "checkpoint.safetensors").unlink(), (p / "checkpoint.safetensors").mkdir(),
    ),
    "with a folder for the weights": lambda p: (p / "weights.safetensors").mkdir(),
    "without its log": lambda p: (p / "log.jsonl").unlink(),
    "without its lock": lambda p: (p / ".lock").unlink(),
}  # fmt: skip


def attempts(folder: Path) -> Iterator[Attempt]:
    """Yield what to try."""
    data, place = folder / "data", folder / "place"
    small_data(data)

    def fresh() -> Path:
        if place.exists():
            for path in (place, *place.rglob("*")):
                if path.is_dir() and not path.is_symlink():
                    path.chmod(0o777)
            shutil.rmtree(place)
        place.mkdir()
        place.chmod(0o777)
        return place / "out"

    def train(about: str, out: Path, *flags: object, epochs: int = 1) -> Attempt:
        words = ("--data", data, "--hidden-1", 8, "--hidden-2", 8, "--epochs", epochs, "--out", out)
        call = as_nobody(command("impls.torch.train", *words, *flags))
        return Attempt(about, call, right(out), kept, place)

    def right(out: Path) -> Callable[[Ended], bool]:
        # A folder that was renamed during the run is where its name is now.
        return lambda end: (
            kept()
            and any((p / "weights.safetensors").is_file() for p in (out, out.with_name("renamed")))
        )

    def kept() -> bool:
        return not (place / "outside").exists() or (place / "outside").read_text() == KEPT

    for about, make in MADE.items():
        for flag in ("--no-overwrite", "--overwrite", "--resume"):
            out = fresh()
            make(out)
            yield train(f"--out is {about}, {flag}", out, flag)
        out = fresh()
        make(out)
        yield train(f"--out is in {about}", out / "run")
    for path in (
        "/dev/full",
        "/dev/null",
        "/proc/x",
        "/proc/self/fd",
        "/",
        "",
        ".",
        "/sys",
        "/no/such",
    ):
        yield (
            Attempt(f"--out {path!r}", train("", Path(path)).call)
            if path not in ("", ".")
            else train(f"--out {path!r}", fresh() / path)
        )
    for name in NAMES:
        yield train(f"--out {name[:10]!r}", fresh() / name)
    for name in INSIDE:
        for about, make in MADE.items():
            for flag in ("--overwrite", "--resume"):
                out = fresh()
                out.mkdir()
                out.chmod(0o777)
                make(out / name)
                if (out / "outside").exists():
                    (out / "outside").rename(place / "outside")
                    (out / name).unlink()
                    (out / name).symlink_to("../outside")
                attempt = train(f"{name} is {about}, {flag}", out, flag)
                attempt.folder = None if "unfinished" in name else attempt.folder
                attempt.seconds = 10
                yield attempt
    for about, change in CHANGES.items():
        out = fresh()
        attempt = train(f"during the run, the folder is {about}", out, epochs=3)
        attempt.call = during(change, out, attempt.call)
        yield attempt
    yield from plots(data, fresh)
    for about, make in MADE.items():
        for name in ("", "runs.jsonl", "README.md"):
            out = fresh()
            if name:
                out.mkdir()
                out.chmod(0o777)
            make(out / name)
            if (
                about not in ("a folder", "a link to a folder", "a link to a file", "a file")
                or name
            ):
                words = ("rates", "--quick", "--out", out, "--processes", "0")
                attempt = Attempt(
                    f"experiments, {name or '--out'} is {about}",
                    as_nobody(stop_before_work(command("experiments", *words))),
                    seconds=10,
                )
                yield attempt


class Began(SystemExit):
    """The work would begin."""


def stop_before_work(call: Callable[[], None]) -> Callable[[], None]:
    """Return the call of the exercises, which ends with status 0 where the work would begin."""

    def stopped() -> None:
        from experiments.study import report

        def began(*_: Any) -> None:
            raise Began(0)

        report.run = began  # type: ignore[assignment]
        call()

    return stopped


def plots(data: Path, fresh: Callable[[], Path]) -> Iterator[Attempt]:
    """Yield runs of lockstep whose plot goes to an odd place: refused before the run, if at all."""
    small = ("--epochs", 1, "--hidden-1", 8, "--hidden-2", 8, "--data", data, "--masks", "jax")

    def lockstep(about: str, plot: Path) -> Attempt:
        call = as_nobody(command("experiments.lockstep", *small, "--plot", plot))
        return Attempt(f"the plot is {about}", call, lambda end: plot.is_file(), silent=True)

    for about, make in MADE.items():
        plot = fresh().with_name("plot.png")
        make(plot)
        yield lockstep(about, plot)
        plot = fresh()
        make(plot)
        yield lockstep(f"in {about}", plot / "new.png")
    for name in (
        "x" * 300 + ".png",
        "x/" * 3000 + ".png",
        "a\nb.png",
        "\x1b[31m.svg",
        "x.pdf",
        ".png",
        "x",
    ):
        yield lockstep(repr(name[:10]), fresh().with_name("plots") / name)
    for path in ("/proc/x.png", "/sys/x.png", "/x.png"):
        yield lockstep(path, Path(path))
