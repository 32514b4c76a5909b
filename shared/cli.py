"""What all commands do: read the flags, and turn errors into one line and a status."""

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import numpy as np
import tyro

from shared.checks import InputError
from shared.config import Dtype, EvaluateConfig
from shared.data import Data, load, resize_images, to_inputs
from shared.records import DivergedError
from shared.weights import Sizes, dtype_of, layer_sizes, load_weights

Settings = TypeVar("Settings")


def parse(
    settings: type[Settings], module: str, args: Sequence[str] | None = None, **defaults: Any
) -> Settings:
    """Read the command line into a dataclass.

    A wrong flag or value ends the process with status 2, after an explanation by tyro.

    Args:
        settings: the dataclass. Its fields are the flags.
        module: the command's module, for the line `usage: python -m MODULE`.
        args: the words of the command line, those of this process if None.
        defaults: defaults that differ for this command.
    """
    # If `defaults` is empty, a field without a default value becomes a required flag.
    default = settings(**defaults) if defaults else tyro.MISSING_NONPROP
    return tyro.cli(settings, prog=f"python -m {module}", args=args, default=default)


@contextlib.contextmanager
def one_line_errors() -> Iterator[None]:
    """Turn an error that the user can do something about into one line on stderr and a status.

    2 for bad input, a file that cannot be read or written, and a lack of memory; 1 for a loss that
    is no number; 130 for Ctrl-C.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is signal.SIG_DFL:  # from shared/__init__.py
        signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        print("\nstopped", file=sys.stderr)
        raise SystemExit(130) from None
    except DivergedError as error:
        print(f"error: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    except (InputError, OSError, MemoryError, RuntimeError) as error:
        words = " ".join(str(error).split()) or "there is not enough memory"
        if isinstance(error, RuntimeError) and "memory" not in words.lower():
            raise  # PyTorch and JAX say with a RuntimeError that there is no memory left
        print(f"error: {words:.600}", file=sys.stderr)
        raise SystemExit(2) from None
    finally:
        if before is signal.SIG_DFL:  # JAX takes a moment to end, and would print a traceback
            signal.signal(signal.SIGINT, before)


class Evaluation(NamedTuple):
    """What a framework needs to score the weights that the user named."""

    device: str
    dtype: Dtype  # of the weights
    weights: dict[str, np.ndarray]
    sizes: Sizes  # of the layers
    images: np.ndarray  # of the test, (N, inputs) of that dtype
    labels: np.ndarray  # int64 (N,)
    data: Data

    def show(self, framework: str, loss: float, accuracy: float) -> None:
        """Print the scores."""
        n = len(self.labels)
        print(f"{framework}: {self.data.name}: {self.data.images} images")
        correct = f"({round(accuracy * n)} of {n})"
        print(f"test loss {loss:.6f}  test accuracy {accuracy:.4f}  {correct}")


def read_evaluation(framework: str, args: Sequence[str] | None = None) -> Evaluation:
    """Read the command line of an evaluate command, the weights and the test images.

    Args:
        framework: its name, torch, jax or numpy.
        args: the words of the command line, those of this process if None.

    Raises:
        InputError: the weights or the data cannot be had, or do not fit each other.
    """
    config = parse(EvaluateConfig, f"impls.{framework}.evaluate", args)
    weights = load_weights(config.weights)
    return evaluation(weights, config.data, config.device)


def evaluation(weights: Mapping[str, np.ndarray], data: str, device: str = "cpu") -> Evaluation:
    """Load test images in the size that a network was trained on.

    Args:
        weights: the network's, as in a weight file.
        data: as in `shared.data.load`.
        device: for the result.

    Raises:
        InputError: the data cannot be had, or the network does not fit it.
    """
    sizes, dtype = layer_sizes(weights), dtype_of(weights)
    side = round(sizes[0] ** 0.5)
    if side * side != sizes[0]:
        raise InputError(f"a network of {sizes[0]} inputs was not trained on square images")
    loaded = load(data)
    images = loaded.test_images
    if images.shape[1] != side:
        if side > 128:  # the most that --resize allows
            raise InputError(
                f"the network was trained on images of {side} x {side} pixels, and these have "
                f"{images.shape[1]} x {images.shape[1]}"
            )
        images = resize_images(images, side)
    if sizes[3] <= loaded.test_labels.max():
        raise InputError(
            f"the network has {sizes[3]} outputs, but the labels go up to "
            f"{loaded.test_labels.max()}"
        )
    inputs, labels = to_inputs(images, dtype), loaded.test_labels
    return Evaluation(device, dtype, dict(weights), sizes, inputs, labels, loaded)
