"""Whether there is enough memory, asked before it is needed."""

from itertools import pairwise

import numpy as np
import psutil

from shared.checks import InputError
from shared.config import Config


def check_room(size: int, what: str) -> None:
    """Check that something fits into the memory that is free.

    Args:
        size: in bytes.
        what: its name, for the message.

    Raises:
        InputError: it does not fit.
    """
    free = psutil.virtual_memory().available
    if size > free:
        raise InputError(
            f"{what} would need {size / 2**30:,.1f} GiB of memory, and {free / 2**30:,.1f} GiB are "
            "free"
        )


def check_run(config: Config, images: int, test_images: int, side: int) -> None:
    """Check that the images and the network of a run fit into memory.

    Counted are the images as inputs, the weights, their gradients and a copy, and the activations
    of a batch or of the test images, forwards and backwards.

    Args:
        config: the settings.
        images, test_images: how many there are.
        side: of the square images, in pixels.

    Raises:
        InputError: they do not fit.
    """
    sizes = (side**2, config.hidden_1, config.hidden_2, 10)
    weights = sum((a + 1) * b for a, b in pairwise(sizes))
    at_once = max(min(config.batch_size, images), test_images)
    numbers = (images + test_images) * side**2 + 3 * weights + 2 * at_once * sum(sizes[1:])
    check_room(
        np.dtype(config.dtype).itemsize * numbers,
        f"{images + test_images:,} images of {side} x {side} and a network with {sizes[1]:,} and "
        f"{sizes[2]:,} hidden units",
    )
