"""Every setting of a run, in one frozen dataclass. The command line is made from it."""

import dataclasses
from pathlib import Path
from typing import Literal

from shared.checks import InputError, check_probability

Dtype = Literal["float32", "float64"]
Precision = Literal["highest", "high", "medium"]


@dataclasses.dataclass(frozen=True)
class Config:
    """Train the multilayer perceptron with dropout on Fashion-MNIST.

    The defaults are the settings of the article.
    """

    epochs: int = 10
    """Passes over the training data."""
    batch_size: int = 256
    """Examples in a step. The last step of an epoch takes the examples that are left."""
    lr: float = 0.5
    """Learning rate of stochastic gradient descent."""
    p1: float = 0.2
    """Probability of dropping a unit of the first hidden layer."""
    p2: float = 0.5
    """Probability of dropping a unit of the second hidden layer."""
    hidden_1: int = 256
    """Units in the first hidden layer."""
    hidden_2: int = 256
    """Units in the second hidden layer."""
    seed: int = 0
    """Initial weights, batch order and masks follow from it. 0 to 2**32 - 1."""
    data: str = "auto"
    """full, sample, auto (full if available, else sample), or a folder of four IDX files."""
    resize: int | None = None
    """Side in pixels to resize the square images to, at most 128. None keeps their size."""
    out: Path = Path("runs/run")
    """Folder for log.jsonl and weights.safetensors."""
    dtype: Dtype = "float32"
    """Dtype of weights, activations and gradients."""
    precision: Precision = "highest"
    """Precision of float32 matrix products. Lower is faster where the processor supports it."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, or another name that the framework knows."""

    def __post_init__(self) -> None:
        # Sizes that no machine can hold are left out: 128 x 128 pixels are 5 GB of inputs.
        check_range(
            self, epochs=10**9, batch_size=10**9, hidden_1=10**5, hidden_2=10**5, resize=128
        )
        if not 0 <= self.lr <= 1e38:  # a larger number is infinite in float32
            raise InputError(f"lr must be in 0 ... 1e38, got {self.lr}")
        if not 0 <= self.seed < 2**32:
            raise InputError(f"seed must be in 0 ... 2**32 - 1, got {self.seed}")
        for name in ("p1", "p2"):
            try:
                check_probability(getattr(self, name), name)
            except (TypeError, ValueError) as error:
                raise InputError(str(error)) from None


def check_range(config: object, **largest: int) -> None:
    """Raise InputError unless each of these fields is None or a number from 1 to its largest."""
    for name, most in largest.items():
        value = getattr(config, name)
        if value is not None and not 1 <= value <= most:
            raise InputError(f"{name} must be in 1 ... {most}, got {value}")


@dataclasses.dataclass(frozen=True)
class RunConfig(Config):
    """Train the multilayer perceptron with dropout on Fashion-MNIST.

    The defaults are the settings of the article.
    """

    resume: bool = False
    """Go on with the run in the folder that was stopped. Without one, start at the beginning."""
    overwrite: bool = False
    """Replace the run in the folder. A finished one stays until the new one is finished."""
    checkpoint_every: int = 1
    """Epochs between two checkpoints."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_range(self, checkpoint_every=10**9)
        if self.resume and self.overwrite:
            raise InputError("resume goes on with a run, overwrite replaces it: choose one")


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
    """Score a weight file on the test images, whichever framework wrote it."""

    weights: Path
    """A weights.safetensors file."""
    data: str = "auto"
    """full, sample, auto (full if available, else sample), or a folder of four IDX files."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, or another name that the framework knows."""
