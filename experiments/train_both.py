"""A first run: train in PyTorch and in JAX, check both in NumPy, draw the learning curves.

python -m experiments.train_both
"""

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType

import impls.jax.train
import impls.torch.train
from experiments.compare import FinishedRun, read_run
from experiments.plot import pyplot
from shared.cli import one_line_errors, parse
from shared.config import Config, RunConfig


@dataclasses.dataclass(frozen=True)
class BothConfig(RunConfig):
    """Train the same network in PyTorch and in JAX, and check both in NumPy."""

    out: Path = Path("runs")
    """Folder for the learning curves and for the folders torch and jax, each a finished run."""


TITLES = {"torch": "PyTorch", "jax": "JAX"}


def draw(plt: ModuleType, runs: Mapping[str, FinishedRun], path: Path) -> None:
    """Draw loss and accuracy of each epoch, in training and on the test images, into a PNG."""
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for panel, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for color, (framework, run) in enumerate(runs.items()):
            epochs = [record["epoch"] for record in run.history]
            for kind, style, note in (
                ("train", "--", "training, dropout on"),
                ("test", "o-", "test, dropout off"),
            ):
                panel.plot(
                    epochs,
                    [record[f"{kind}_{quantity}"] for record in run.history],  # type: ignore[literal-required]  # a key
                    style,
                    color=f"C{color}",
                    markersize=3,
                    label=f"{TITLES[framework]}, {note}",
                )
        panel.set(xlabel="epoch", ylabel=quantity)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


SUMMARY = """
The same network was trained in PyTorch and in JAX, on {images} images (epochs: {epochs}), with
dropout {p1:g} and {p2:g}. Both started from the same weights and saw the same batches.
{masks}:

{scores}
  {check}

Learning curves, logs and weights are in the folder {out}. What to try next:
  make lockstep    with the same masks in float64, the losses of both agree to 12 digits
  {python} -m impls.torch.train{flags} --p1 0 --p2 0 --out {out}/no-dropout
  {python} -m experiments.compare {out}/torch {out}/no-dropout"""
OWN_MASKS = """\
Each drew its own dropout masks, so they differ as two seeds do, by up to a few per cent"""
NO_MASKS = "No mask was drawn, so only rounding sets them apart"
AGREES = "NumPy   gets exactly as many right, with the weights of each"
DISAGREES = "NumPy   does NOT get as many right, with the weights of each"


def flags_of(config: BothConfig, *left_out: str) -> list[str]:
    """Return the flags of a train command for these settings, those that are no defaults."""
    flags = []
    for field in dataclasses.fields(RunConfig):
        value = getattr(config, field.name)
        if field.name not in left_out and value != field.default:
            flags.append(f"--{field.name.replace('_', '-')}")
            flags += [] if value is True else [str(value)]
    return flags


def summary(runs: Mapping[str, FinishedRun], config: BothConfig) -> str:
    """Return the results in words, for somebody who has not read anything yet."""
    python = Path(sys.executable)
    ours = {field.name for field in dataclasses.fields(RunConfig)}
    only_of_runs = ours - {field.name for field in dataclasses.fields(Config)}
    flags = flags_of(config, "out", "p1", "p2", *only_of_runs)
    return SUMMARY.format(
        images=runs["torch"].settings["images"].split()[0],
        epochs=config.epochs,
        p1=config.p1,
        p2=config.p2,
        masks=OWN_MASKS if {config.p1, config.p2} - {0.0, 1.0} else NO_MASKS,
        scores="\n".join(
            f"  {TITLES[name]:8}{run.history[-1]['test_accuracy']:.2%} of the test images correct, "
            f"{run.median_seconds:.2f} seconds per epoch"
            for name, run in runs.items()
        ),
        check=AGREES if all(run.agrees for run in runs.values()) else DISAGREES,
        out=shlex.quote(str(config.out)),
        python=python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else "python",
        flags=" " * bool(flags) + shlex.join(flags),
    )


def main(args: Sequence[str] | None = None) -> None:
    """Train both, and print what happened."""
    with one_line_errors():
        config = parse(BothConfig, "experiments.train_both", args)
        curves = config.out / "curves.png"
        plt = pyplot(curves)
        runs = {}
        for name, lesson in (("torch", impls.torch.train), ("jax", impls.jax.train)):
            out = config.out / name
            lesson.main([*flags_of(config, "out"), "--out", str(out)])
            runs[name] = read_run(out)
        print(summary(runs, config))
        draw(plt, runs, curves)
    if not all(run.agrees for run in runs.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
