"""A first run: train in PyTorch and in JAX, check both in NumPy, draw the learning curves.

python -m experiments.train_both
"""

import dataclasses
import shlex
import sys
from pathlib import Path

import impls.jax.runtime
import impls.jax.train
import impls.torch.runtime
import impls.torch.train
from experiments.compare import FinishedRun, read_run
from shared.checks import InputError
from shared.cli import one_line_errors, parse, say, train_and_save
from shared.config import Config, RunConfig
from shared.data import Data, load
from shared.records import EpochRecord


@dataclasses.dataclass(frozen=True)
class BothConfig(RunConfig):
    """Train the same network in PyTorch and in JAX, and check both in NumPy."""

    out: Path = Path("runs")
    """Folder for the learning curves and for the folders torch and jax, each a finished run."""


TITLES = {"torch": "PyTorch", "jax": "JAX"}


def draw(histories: dict[str, list[EpochRecord]], path: Path) -> None:
    """Draw loss and accuracy of each epoch, in training and on the test images, into a PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 3.5), layout="constrained")
    for panel, quantity in zip(panels, ("loss", "accuracy"), strict=True):
        for color, (framework, history) in enumerate(histories.items()):
            epochs = [record["epoch"] for record in history]
            for kind, style, note in (
                ("train", "--", "training, dropout on"),
                ("test", "o-", "test, dropout off"),
            ):
                panel.plot(
                    epochs,
                    [record[f"{kind}_{quantity}"] for record in history],  # type: ignore[literal-required]
                    style,
                    color=f"C{color}",
                    markersize=3,
                    label=f"{TITLES[framework]}, {note}",
                )
        panel.set(xlabel="epoch", ylabel=quantity)
        panel.grid(alpha=0.3)
    panels[0].legend(fontsize="small")
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


SUMMARY = """
The same network was trained in PyTorch and in JAX, on {images:,} images (epochs: {epochs}), with
dropout {p1:g} and {p2:g}. Both started from the same weights and saw the same batches.
{masks}:

{scores}
  {check}

Learning curves, logs and weights are in the folder {out}. What to try next:
  make lockstep    with the same masks in float64, the losses of both agree to 12 digits
  {python} -m impls.torch.train{flags} --p1 0 --p2 0 --out {out}/no-dropout
  {python} -m experiments.compare {torch_run} {out}/no-dropout
"""
OWN_MASKS = """\
Each drew its own dropout masks, so they differ as two seeds do, by up to a few per cent"""
NO_MASKS = "No mask was drawn, so only rounding sets them apart"
AGREES = "NumPy   gets exactly as many right, with the weights of each"
DISAGREES = "NumPy   does NOT get as many right, with the weights of each"


def summary(runs: dict[str, FinishedRun], config: Config, data: Data) -> str:
    """Return the results in words, for somebody who has not read anything yet."""
    python = Path(sys.executable)
    return SUMMARY.format(
        images=len(data.train_images),
        epochs=config.epochs,
        p1=config.p1,
        p2=config.p2,
        masks=OWN_MASKS if {config.p1, config.p2} - {0.0, 1.0} else NO_MASKS,
        scores="\n".join(
            f"  {TITLES[name]:8}{run.last['test_accuracy']:.2%} of the test images correct, "
            f"{run.median_seconds:.2f} seconds per epoch"
            for name, run in runs.items()
        ),
        check=AGREES if all(run.agrees for run in runs.values()) else DISAGREES,
        out=shlex.quote(str(config.out)),
        python=python.relative_to(Path.cwd()) if python.is_relative_to(Path.cwd()) else "python",
        torch_run=shlex.quote(str(runs["torch"].folder)),
        flags="".join(
            f" --{field.name.replace('_', '-')} {shlex.quote(str(getattr(config, field.name)))}"
            for field in dataclasses.fields(Config)
            if field.name not in ("out", "p1", "p2")
            and getattr(config, field.name) != field.default
        ),
    )


def main() -> None:
    """Train both, and print what happened."""
    with one_line_errors():
        config = parse(BothConfig, "experiments.train_both")
        describe = {"torch": impls.torch.runtime.describe, "jax": impls.jax.runtime.describe}
        machines = {name: of(config.device) for name, of in describe.items()}
        data = load(config.data, resize=config.resize)
        histories, runs = {}, {}
        with impls.jax.runtime.compiled_code_on_disk():
            for name, train in (
                ("torch", impls.torch.train.train),
                ("jax", impls.jax.train.train),
            ):
                settings = dataclasses.replace(config, out=config.out / name)
                histories[name] = train_and_save(
                    name, train, settings, data, machines[name]
                ).history
                runs[name] = read_run(settings.out)
        say(summary(runs, config, data).rstrip("\n"))
        try:
            draw(histories, config.out / "curves.png")
        except OSError as error:
            raise InputError(f"cannot write {config.out}/curves.png: {error.strerror}") from None
    if not all(run.agrees for run in runs.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
