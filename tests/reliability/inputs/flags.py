"""Every flag of every command, with odd values."""

import dataclasses
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

from shared.config import EvaluateConfig, RunConfig
from shared.weights import save_weights
from tests.reliability.inputs.attempts import Attempt, command
from tests.reliability.inputs.base import SMALL, finished_run, small_data, weights

ODD = (
    "nan", "inf", "-inf", "-1", "0", "-0", "1e400", "1e-400", "", " ", "x", "None", "True",
    "ü数", "\x1b[31m",
    "a\nb", "\udcff", "1_0", "0x10", "١", "1.5", "1e3", "99999999999999999999999",
    "-" * 50, "--", "--help",
    "[]", "1,2", "9" * 5000, "x" * 100_000, "%s{0}", "4294967295", "4294967296", "0.99999999999",
)  # fmt: skip
TOO_LONG = {("epochs", "4294967295"), ("epochs", "1e3")}  # right, and it would take weeks
OTHERS = {
    "experiments.lockstep": ("epochs", "dtype", "masks", "batch-size", "lr", "hidden-1", "hidden-2",
                             "seed", "data", "plot"),
    "experiments.train_both": ("epochs", "out", "resume", "p1", "device", "checkpoint-every"),
    "experiments.article": ("seeds", "epochs", "data"),
    "experiments": ("framework", "seeds", "quick", "processes", "out"),
    "benchmarks": ("only", "rounds", "races", "goal", "device", "precision", "quick"),
}  # fmt: skip
RARE = ("-1", "", "x", "nan", "\x1b[31m", "9" * 5000)
# Values that are right, and odd.
UNUSUAL = (
    ("--lr", "0"), ("--lr", "1e-40"), ("--lr", "1e38"), ("--p1", "1", "--p2", "1"),
    ("--p1", "1e-300"),
    ("--p2", "0.9999999999999999"), ("--seed", "4294967295"), ("--batch-size", "1"),
    ("--resize", "1"),
    ("--batch-size", "1000000000"), ("--hidden-1", "1", "--hidden-2", "1"), ("--dtype", "float64"),
    ("--hidden-1", "1000000"), ("--precision", "medium"), ("--resize", "100"),
    ("--batch-size", "20"),
)  # fmt: skip


def names(settings: type) -> list[str]:
    """Return the flags that a dataclass becomes."""
    return [field.name.replace("_", "-") for field in dataclasses.fields(settings)]


def attempts(folder: Path) -> Iterator[Attempt]:
    """Yield what to try."""
    data, path, out = folder / "data", folder / "weights", folder / "out"
    save_weights(path, weights())
    finished_run(folder / "run", small_data(data))
    train = ("--data", data, "--out", out, "--overwrite", *SMALL)
    evaluate = ("--data", data, "--weights", path)

    def attempt(module: str, *words: object, call=command) -> Attempt:
        about = " ".join([module, *(ascii(str(word))[1:-1][:25] for word in words[-4:])])
        return Attempt(about, call(module, *words))

    for name, odd in itertools.product(names(RunConfig), ODD):
        if (name, odd) not in TOO_LONG and not (name == "out" and len(odd.strip()) < 51):
            yield attempt("impls.torch.train", *train, f"--{name}", odd)
    for words in UNUSUAL:
        yield attempt("impls.torch.train", *train, *words)
    for name, odd in itertools.product(names(EvaluateConfig), ODD):
        yield attempt("impls.numpy.evaluate", *evaluate, f"--{name}", odd)
    for name, odd in itertools.product(names(EvaluateConfig), RARE):
        yield attempt("impls.torch.evaluate", *evaluate, f"--{name}", odd)
    for odd in ODD:
        yield attempt("impls.torch.train", *train, odd)
        yield attempt("impls.torch.train", *train, f"--{odd}")
        yield attempt("experiments.compare", odd)
    for words in itertools.product(
        ([], ["--resume"], ["--no-resume"]),
        ([], ["--overwrite"], ["--no-overwrite"]),
        (
            [],
            ["--checkpoint-every", "2"],
            ["--checkpoint-every", "0"],
            ["--checkpoint-every", "-1"],
        ),
    ):
        place = ("--data", data, "--out", folder / "combined", *SMALL)
        attempt_now = attempt("impls.torch.train", *place, *itertools.chain(*words))
        attempt_now.right = lambda end: (folder / "combined" / "weights.safetensors").exists()
        yield attempt_now
    # With JAX, a device that does not exist ends what would work. Few are tried to their end.
    for name, odd in itertools.product(names(RunConfig), RARE):
        if name not in ("device", "out"):
            words = (f"--{name}", odd, "--device", "nonsense")
            yield attempt("impls.jax.train", *train, *words)
    for words in random.Random(0).sample(UNUSUAL, 6):
        yield attempt("impls.jax.train", *train, *words)
    for name, odd in itertools.product(names(EvaluateConfig), ("x", "")):
        yield attempt("impls.jax.evaluate", *evaluate, f"--{name}", odd)
    for module, flags in OTHERS.items():
        words = ("list",) if module == "experiments" else ()
        for name, odd in itertools.product(flags, RARE):
            if (module, odd) == ("experiments.lockstep", "") or name != "out":
                last = ("--data", "/no/such", f"--{name}", odd)
                yield attempt(module, *words, *(last[2:] if module == "experiments" else last))
