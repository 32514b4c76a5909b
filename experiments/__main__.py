"""The exercises of the article, answered.

python -m experiments list
python -m experiments NAME
python -m experiments all
"""

import dataclasses
import importlib
import signal
import sys
from collections.abc import Sequence
from concurrent.futures import BrokenExecutor
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.exercises import EXERCISES
from experiments.plot import pyplot
from experiments.study import report
from experiments.study.runs import Store, Study
from shared.checks import InputError
from shared.cli import one_line_errors, parse

MODULES = {name: importlib.import_module(f"experiments.exercises.{name}") for name in EXERCISES}
QUICK_FOLDER = Path("runs/exercises-quick")


@dataclasses.dataclass(frozen=True)
class ExerciseConfig:
    """Answer the article's exercises: train networks, compare them, and write a page for each."""

    name: Annotated[str, tyro.conf.Positional]
    """An exercise, or list to name them, or all."""
    framework: Literal["torch", "jax", "both"] = "both"
    """In which framework to train."""
    seeds: int | None = None
    """How many seeds each setting is run with: 0, 1, ... None: 5, or 2 with --quick."""
    quick: bool = False
    """A look at tiny networks, in seconds, to see that everything works."""
    processes: int = 2
    """How many networks to train at the same time. 0 trains in the process of the command."""
    out: Path = Path("docs/exercises")
    """Folder for pages, figures, numbers, and runs.jsonl. With --quick: runs/exercises-quick."""

    def __post_init__(self) -> None:
        if self.name not in ("list", "all", *EXERCISES):
            raise InputError(f"no exercise {self.name!r}. There are: {', '.join(EXERCISES)}")
        if self.seeds is not None and not 2 <= self.seeds <= 10_000:
            raise InputError(f"seeds must be in 2 ... 10000, got {self.seeds}")
        if not 0 <= self.processes <= 1024:
            raise InputError(f"processes must be in 0 ... 1024, got {self.processes}")


def answer(config: ExerciseConfig) -> None:
    """Train, and write the pages."""
    out = config.out
    if config.quick and out == ExerciseConfig.out:
        out = QUICK_FOLDER
    names = list(EXERCISES) if config.name == "all" else [config.name]
    # See before hours of work that we can write there, and do not write over somebody's README.md.
    pyplot(*(out / f"{name}.svg" for name in names))
    readme, store = out / "README.md", out / "runs.jsonl"
    if readme.exists() and not readme.read_text().startswith(report.INDEX.splitlines()[0]):
        raise InputError(f"{readme} would be overwritten. --out names another folder")
    store.touch()
    study = Study(
        Store(store),
        ("torch", "jax") if config.framework == "both" else (config.framework,),
        config.seeds or (2 if config.quick else 5),
        config.quick,
        config.processes,
    )
    for name in names:
        module = MODULES[name]
        numbers = report.run(module, study)
        path = report.write(module, numbers, out)
        print(f"{EXERCISES[name]}\n\n{module.answer(numbers['results']).text}\n\nwrote {path}\n")
    readme.write_text(report.index(out, MODULES))


def main(args: Sequence[str] | None = None) -> None:
    """Read the command line, and answer."""
    with one_line_errors():
        config = parse(ExerciseConfig, "experiments", args)
        if config.name == "list":
            for name, module in MODULES.items():
                print(f"{name:13}{module.QUESTION}")
            return
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
        try:
            answer(config)
        except BrokenExecutor:
            raise InputError(
                "a process that trained was killed, perhaps for its memory. The same command goes "
                "on where it was, and --processes 1 needs less memory"
            ) from None
        except KeyboardInterrupt:
            print("\nstopped: the same command goes on where it was", file=sys.stderr)
            raise SystemExit(130) from None


if __name__ == "__main__":
    main()
