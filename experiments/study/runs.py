"""Training runs of the exercises: what sets one apart, how it is trained, and where it is kept."""

import contextlib
import dataclasses
import functools
import importlib
import json
import math
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.study.paired import Difference, interval, paired
from shared.config import Config
from shared.data import load, to_arrays
from shared.randomness import epoch_order
from shared.records import DivergedError, EpochRecord, epoch_record

CURVES = ("train_loss", "train_accuracy", "test_loss", "test_accuracy")
RUNS_PER_PROCESS = 40
PACKAGES = {"torch": ("torch",), "jax": ("jax", "flax", "optax")}  # whose versions are noted


@dataclasses.dataclass(frozen=True)
class Setting:
    """Everything that the result of a training run depends on.

    Attributes:
        framework: torch or jax.
        seed: of initial weights, order and masks.
        images: the number of training images, the first ones. None takes all.
        validation: whether the last sixth of the training images is held out and plays the part of
            the test images. Settings are chosen like this.
        epochs, batch_size, lr, p1, p2, hidden_1, hidden_2: as in `shared.config.Config`.
        noise: dropout, dropconnect, or a kind of impls/<framework>/noise.py. `masks-4` averages 4.
        schedule: `constant`, `early` (the rates fall linearly to 0 in the first `schedule_epochs`)
            or `late` (the rates are 0 in the first `schedule_epochs`).
        schedule_epochs: see schedule.
        weight_decay: this times the weights is added to the gradient (L2).
        max_norm: the largest norm of the weights that lead into a unit. 0 sets no limit.
        copies: how many masks each example of a step is seen with. The gradient is their mean.
        random_labels: whether the training labels are drawn at random.
        data: as in `shared.data.load`.
        measure: an exercise. Its function `measure` looks at the trained network.
    """

    framework: str = "torch"
    seed: int = 0
    images: int | None = None
    validation: bool = False
    epochs: int = 20
    batch_size: int = 256
    lr: float = 0.5
    p1: float = 0.2
    p2: float = 0.5
    hidden_1: int = 256
    hidden_2: int = 256
    noise: str = "dropout"
    schedule: str = "constant"
    schedule_epochs: int = 0
    weight_decay: float = 0.0
    max_norm: float = 0.0
    copies: int = 1
    random_labels: bool = False
    data: str = "full"
    measure: str = ""

    def but(self, **changes: Any) -> "Setting":
        """Return a copy with changes."""
        return dataclasses.replace(self, **changes)

    @property
    def key(self) -> str:
        """The whole setting as one line."""
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def kind(self) -> dict[str, Any]:
        """The arguments of `Noise`: `masks-4` is the kind masks with 4 masks."""
        kind, _, masks = self.noise.partition("-")
        return {"kind": kind, "masks": int(masks or 1)}

    @property
    def cost(self) -> float:
        """How long the run takes, about, in proportion: multiplications, and as much for a step."""
        examples = self.epochs * self.copies * (self.images or 60_000)
        return examples * (self.hidden_1 * (784 + self.hidden_2) + 10**7 / self.batch_size)

    def rates(self, epoch: int) -> tuple[float, float]:
        """Return both rates of dropout of an epoch, which is counted from 1."""
        part = 1.0
        if self.schedule == "early":
            part = max(0.0, 1 - (epoch - 1) / self.schedule_epochs)
        elif self.schedule == "late":
            part = float(epoch > self.schedule_epochs)
        return self.p1 * part, self.p2 * part

    def network(self, inputs: int, networks: Sequence[Any], noises: Sequence[Any]) -> Any:
        """Make the network of a framework.

        Args:
            inputs: pixels of an image.
            networks: the framework's `MLP`, and the one that drops weights instead of units.
            noises: its `Dropout` and `Noise`.
        """
        dropout, noise = noises
        if self.noise not in ("dropout", "dropconnect"):
            dropout = functools.partial(noise, **self.kind)
        sizes = (inputs, self.hidden_1, self.hidden_2, 10)
        make = networks[self.noise == "dropconnect"]
        return make(*sizes, *self.rates(1), noise=dropout, seed=self.seed)


# The article's settings.
ARTICLE = Setting(epochs=10)
# Few images and many steps, so that networks learn their images nearly by heart in seconds.
SMALL = Setting(images=5_000, epochs=30, batch_size=32)
# Accuracies and losses are means over this many last epochs.
FINAL = 5
# The learning rates among which the validation split decides.
LRS = (0.05, 0.1, 0.2)

# A run is a line of the store: the setting, one number per epoch for each of CURVES, `fit_loss` and
# `fit_accuracy` (of the training images, with dropout off, at the end), what was `measured`,
# `seconds` and `versions`.
Run = dict[str, Any]
Arrays = tuple[np.ndarray, ...]  # inputs and labels for training, then those to be scored on


@functools.cache
def arrays(data: str, images: int | None, validation: bool) -> Arrays:
    """Return inputs and labels for training, then those that the network is scored on."""
    train, labels, test, test_labels = to_arrays(load(data), "float32")
    if validation:
        held_out = len(train) * 5 // 6
        train, labels, test, test_labels = (
            train[:held_out], labels[:held_out], train[held_out:], labels[held_out:],
        )  # fmt: skip
    if images is not None:
        train, labels = train[:images].copy(), labels[:images]  # a view would keep all in memory
    return train, labels, test, test_labels


def random_labels(n: int, seed: int) -> np.ndarray:
    """Return labels that have nothing to do with any image, int64 (n,)."""
    return np.random.default_rng(seed).integers(0, 10, n)


def train(setting: Setting) -> Run:
    """Train a network with `train` of impls/, and what the exercises add to it."""
    started = time.perf_counter()
    images, labels, *test = arrays(setting.data, setting.images, setting.validation)
    if setting.random_labels:
        labels = random_labels(len(labels), setting.seed)
    lesson = importlib.import_module(f"impls.{setting.framework}.train")
    added = importlib.import_module(f"experiments.study.on_{setting.framework}")
    model, optimizer, data = added.prepare(setting, (images, labels, *test))
    config = Config(epochs=setting.epochs, batch_size=setting.batch_size, seed=setting.seed)
    if setting.copies == 1:
        epochs = lesson.train(model, optimizer, data, config)
    else:
        epochs = _train_on_copies(setting, added, lesson, model, optimizer, data)
    records: list[Mapping[str, Any]] = []
    with contextlib.suppress(DivergedError):
        for record in epochs:
            records.append(record)
            model.dropout_1.p, model.dropout_2.p = setting.rates(record["epoch"] + 1)
    fit_loss, fit_accuracy = lesson.evaluate(model, *data[:2])
    if missing := setting.epochs - len(records):  # it diverged: the weights stay NaN
        _, accuracy = lesson.evaluate(model, *data[2:])
        rest = zip(CURVES, (math.nan, fit_accuracy, math.nan, accuracy), strict=True)
        records += missing * [dict(rest)]
    measured = {}
    if setting.measure:
        exercise = importlib.import_module(f"experiments.exercises.{setting.measure}")
        measured = exercise.measure(setting, model.get_weights(), *test)
        # As it will be read again. None stands for NaN, as in a run that diverged.
        measured = json.loads(json.dumps(measured), parse_constant=lambda _: None)
    return {
        "setting": dataclasses.asdict(setting),
        **{curve: [_short(record[curve]) for record in records] for curve in CURVES},
        "fit_loss": _short(fit_loss),
        "fit_accuracy": fit_accuracy,
        "measured": measured,
        "seconds": round(time.perf_counter() - started, 2),
        "versions": versions(setting.framework),
    }


def _train_on_copies(
    setting: Setting, added: Any, lesson: Any, model: Any, optimizer: Any, data: Any
) -> Iterator[EpochRecord]:
    """Yield what `train` yields. But each step sees its batch `copies` times, with other masks."""
    n, size, copies = len(data[0]), setting.batch_size, setting.copies
    step = 0
    for epoch in range(1, setting.epochs + 1):
        order = epoch_order(n, seed=setting.seed, epoch=epoch)
        results = []
        for batch in np.split(order, range(size, n, size)):
            copied = np.tile(batch, copies)
            results.append(added.take_step(model, optimizer, data, copied, setting.seed, step))
            step += 1
        losses, correct = map(np.array, zip(*results, strict=True))
        scores = lesson.evaluate(model, *data[2:])
        yield epoch_record(epoch, losses, correct, scores, n * copies, size * copies, 0.0)


def versions(*frameworks: str) -> dict[str, str]:
    """Return the versions of NumPy and of the packages of each framework."""
    names = ("numpy", *(package for framework in frameworks for package in PACKAGES[framework]))
    return {name: version(name).split("+")[0] for name in names}  # a plus sign names a build


def _short(number: float) -> float | None:
    """Return six digits of a number, and None for what JSON cannot hold: a run that diverged."""
    return float(f"{number:.6g}") if math.isfinite(number) else None


class Store:
    """Runs that were made, as lines of a file. A run that is there is never made again."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.runs: dict[str, Run] = {}
        for line in path.read_text(errors="replace").splitlines() if path.exists() else []:
            try:
                run = json.loads(line)
                self.runs[Setting(**run["setting"]).key] = run
            except (ValueError, TypeError, KeyError):  # such as a last line that was cut off
                print(f"note: a line of {path} is no run: {line:.60}", file=sys.stderr)

    def missing(self, settings: Iterable[Setting]) -> list[Setting]:
        """Return those settings that have not been run yet."""
        return [s for s in dict.fromkeys(settings) if s.key not in self.runs]

    def add(self, setting: Setting, run: Run) -> None:
        """Keep a run, on disk at once."""
        whole = not self.path.exists() or self.path.read_bytes()[-1:] in (b"", b"\n")
        with self.path.open("a") as file:
            file.write(("" if whole else "\n") + json.dumps(run) + "\n")
        self.runs[setting.key] = run


def run_all(store: Store, settings: Iterable[Setting], title: str, processes: int) -> None:
    """Make the runs that the store lacks, in several processes, and show how long is left.

    With `processes=0` they are made in this process.
    """
    missing = store.missing(settings)
    total = sum(setting.cost for setting in missing)
    shape = "{desc}: {percentage:3.0f}%|{bar}| {elapsed} so far, {remaining} left"
    with (
        tqdm(total=total, desc=title, bar_format=shape, disable=None) as bar,
        contextlib.closing(_runs_of(missing, processes)) as runs,
    ):
        for setting, run in runs:
            store.add(setting, run)
            bar.update(setting.cost)


def _runs_of(settings: list[Setting], processes: int) -> Generator[tuple[Setting, Run]]:
    if processes == 0:
        yield from ((setting, train(setting)) for setting in settings)
        return
    # After some runs, new processes are started, because JAX keeps all that it compiled.
    size = RUNS_PER_PROCESS * processes
    for some in (settings[i : i + size] for i in range(0, len(settings), size)):
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, context, _use_one_thread) as pool:
            # Processes that are started now never see Ctrl-C: this one stops them.
            stops = {signal.SIGINT, signal.SIGTERM}
            before = signal.pthread_sigmask(signal.SIG_BLOCK, stops)
            futures = {pool.submit(train, setting): setting for setting in some}
            try:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
                for future in as_completed(futures):
                    yield futures[future], future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in multiprocessing.active_children():
                    process.kill()
                raise


def _use_one_thread() -> None:
    """Let a process compute with one thread: two with two each would wait for one another."""
    os.environ["OMP_NUM_THREADS"] = "1"
    flags = "--xla_cpu_multi_thread_eigen=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flags}".strip()


@dataclasses.dataclass
class Study:
    """What an exercise asks of its runs.

    Attributes:
        store: where runs are kept.
        frameworks: torch, jax or both.
        seeds: how many seeds each setting is run with: 0, 1, ...
        quick: whether all is made small, to see in seconds that everything works.
        processes: how many runs are made at the same time.
        title: for the progress bar.
        half: for each run at learning rate 0.5, whether it ended at chance: below 20 %.
    """

    store: Store
    frameworks: tuple[str, ...] = ("torch", "jax")
    seeds: int = 5
    quick: bool = False
    processes: int = 2
    title: str = ""
    half: dict[str, bool] = dataclasses.field(default_factory=dict)

    def of(self, full: Any, quick: Any) -> Any:
        """Return the first, or the second for a quick look."""
        return quick if self.quick else full

    def train(self, settings: Mapping[str, Setting]) -> dict[str, dict[str, list[Run]]]:
        """Train each setting with each seed in each framework.

        Returns:
            The runs in the order of their seeds: [framework][name of the setting].
        """
        every = {
            framework: {
                name: [
                    self._made_small(setting).but(framework=framework, seed=seed)
                    for seed in range(self.seeds)
                ]
                for name, setting in settings.items()
            }
            for framework in self.frameworks
        }
        flat = [s for of in every.values() for settings in of.values() for s in settings]
        run_all(self.store, flat, self.title, self.processes)
        for s in flat:
            if s.lr == 0.5 and not s.validation and not s.random_labels:
                (accuracy,) = final([self.store.runs[s.key]])
                self.half[s.key] = not accuracy >= 0.2  # also NaN
        return {
            framework: {
                name: [self.store.runs[s.key] for s in settings] for name, settings in of.items()
            }
            for framework, of in every.items()
        }

    def validate(self, settings: Mapping[str, Setting]) -> dict[str, dict[str, list[Run]]]:
        """Train each setting on the validation split, which then plays the part of the test images.

        This is done with three seeds in one framework, because both train the same network: in JAX
        if it takes part, because it is faster.
        """
        one = dataclasses.replace(self, frameworks=self.frameworks[-1:], seeds=min(self.seeds, 3))
        return one.train({name: s.but(validation=True) for name, s in settings.items()})

    def choose(
        self, settings: Mapping[str, Setting], field: str, values: tuple[float, ...]
    ) -> dict[str, float]:
        """Choose, for each setting, the value of a field with the best mean validation accuracy."""
        trials = {
            f"{name} {value}": setting.but(**{field: value})
            for name, setting in settings.items()
            for value in values
        }
        (runs,) = self.validate(trials).values()
        means = {name: [np.mean(final(runs[f"{name} {v}"])) for v in values] for name in settings}
        return {name: values[int(np.argmax(of))] for name, of in means.items()}

    def choose_rates(self, settings: Mapping[str, Setting]) -> dict[str, float]:
        """Choose a learning rate for each setting."""
        return self.choose(settings, "lr", self.of(LRS, (0.1,)))

    def _made_small(self, setting: Setting) -> Setting:
        if not self.quick:
            return setting
        return setting.but(
            data="sample",
            images=min(setting.images or 512, 512),
            epochs=2,
            hidden_1=min(setting.hidden_1, 32),
            hidden_2=min(setting.hidden_2, 32),
            schedule_epochs=min(setting.schedule_epochs, 1),
            copies=min(setting.copies, 2),
        )


def final(runs: Iterable[Run], curve: str = "test_accuracy") -> np.ndarray:
    """Return the mean of a curve over its last epochs, or `fit_loss`, for each run.

    At a constant learning rate, single epochs jump by points: the mean of the last FINAL epochs
    has half the spread between seeds. A run that diverged there has NaN.
    """
    ends = [[run[curve]] if curve.startswith("fit") else run[curve][-FINAL:] for run in runs]
    return np.array([np.nan if None in end else float(np.mean(end)) for end in ends])


Runs = Mapping[str, Mapping[str, list[Run]]]  # of each framework and setting, what `train` returns


def compare(runs: Runs, a: str, b: str, curve: str = "test_accuracy") -> dict[str, Difference]:
    """Return the paired differences between two settings, a - b, in each framework."""
    return {f: paired(final(of[a], curve), final(of[b], curve)) for f, of in runs.items()}


def levels(
    runs: Runs, names: Iterable[str], curve: str = "test_accuracy"
) -> dict[str, list[tuple[float, float, float]]]:
    """Return the mean of each setting and the ends of its interval, in each framework."""
    names = list(names)
    return {f: [interval(final(of[name], curve)) for name in names] for f, of in runs.items()}
