"""Fashion-MNIST as NumPy arrays: the full 60,000 + 10,000 images, or the sample in this folder.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv:1708.07747, 2017.
"""

import contextlib
import dataclasses
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from shared.checks import InputError
from shared.fetch import DOWNLOADS, PACKAGE, PACKAGE_FOLDER, WORK, fetch
from shared.files import sweep
from shared.idx import FULL_SHA256, Data, read_folder, write_folder
from shared.memory import check_room

SAMPLE = Path(__file__).parent / "sample"
FOLDER_VARIABLE = "FASHION_MNIST_DIR"
IDX = "idx"  # the folder of the copy in the cache


def load(name: str = "auto", *, resize: int | None = None) -> Data:
    """Load Fashion-MNIST.

    Args:
        name: `full`: all 60,000 + 10,000 images, see `_load_full` for where they come from.
            `sample`: the 10,240 + 2,000 images that come with this project. `auto`: full if it is
            available, else the sample, with a notice on stderr. Anything else is a folder of four
            IDX files, gzipped or not, with any number of square images of one size.
        resize: side in pixels to resize the images to. They keep their size if it is None.

    Raises:
        InputError: the data is not there, or it is not what it should be.
    """
    if name == "full":
        data = _load_full()
    elif name == "sample":
        data = read_folder(SAMPLE, name="sample")
    elif name == "auto":
        data = _load_auto()
    else:
        data = read_folder(Path(name), name=os.path.abspath(name))
    if resize is None:
        return data
    number = len(data.train_images) + len(data.test_images)
    check_room(number * resize**2, f"{number:,} images of {resize} x {resize}")
    return dataclasses.replace(
        data,
        train_images=resize_images(data.train_images, resize),
        test_images=resize_images(data.test_images, resize),
    )


def to_inputs(images: np.ndarray, dtype: str = "float32") -> np.ndarray:
    """Return what a network sees: uint8 images as (N, side * side) numbers in [0, 1].

    They are rounded to float32 first, so that float64 networks see the same numbers.
    """
    pixels = np.divide(images.reshape(len(images), -1), np.float32(255), dtype=np.float32)
    return pixels.astype(dtype, copy=False)


def to_arrays(data: Data, dtype: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Return the inputs and the labels for training, then those for the test.

    Inputs are (N, side * side) of `dtype`, as from `to_inputs`. Labels are int64 (N,).
    """
    return (
        to_inputs(data.train_images, dtype),
        data.train_labels.astype(np.int64),
        to_inputs(data.test_images, dtype),
        data.test_labels.astype(np.int64),
    )


def side_of(inputs: int) -> int:
    """Return the side in pixels of the square images that have this number of pixels.

    Raises:
        InputError: no square image has that number of pixels.
    """
    side = math.isqrt(inputs)
    if side * side != inputs:
        raise InputError(f"a network of {inputs} inputs was not trained on square images")
    return side


def cache_folder() -> Path:
    """Return the folder for files that are kept to save time. It may be deleted at any moment."""
    for base in (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache")):
        if os.path.isabs(base):  # the XDG standard says to ignore relative ones
            return Path(base) / "dropout-three-ways"
    return Path(tempfile.gettempdir()) / f"dropout-three-ways-{os.getuid()}"  # no home


def _load_full() -> Data:
    """Load all images from the first of these places, checking the SHA-256 of each file.

    1. The folder that the variable FASHION_MNIST_DIR names.
    2. This user's cache. The first use of 3, 4 or 5 leaves a copy there.
    3. Debian's package, if it is installed.
    4. A download, which tensorflow-datasets prepares.
    5. Debian's package, fetched with `apt-get download`, which needs no root and installs nothing.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        try:
            return read_folder(Path(named), name="full", sha256=FULL_SHA256)
        except InputError as error:
            raise InputError(f"{FOLDER_VARIABLE} is {named}: {error}") from None
    cache = cache_folder()
    with contextlib.suppress(InputError):  # not there yet, or damaged: made again below
        return read_folder(cache / IDX, name="full", sha256=FULL_SHA256)
    with _one_at_a_time(cache) as folder:
        with contextlib.suppress(InputError):  # another process has made it meanwhile
            return read_folder(cache / IDX, name="full", sha256=FULL_SHA256)
        if PACKAGE_FOLDER.exists():
            data = read_folder(PACKAGE_FOLDER, name="full", sha256=FULL_SHA256)
            _keep(data, cache)
        else:
            data, source = fetch(folder)
            where = f"kept in {cache}" if _keep(data, cache) else f"cannot be kept in {cache}"
            print(f"Fashion-MNIST: fetched with {source}, {where}", file=sys.stderr)
        return data


def _keep(data: Data, cache: Path) -> bool:
    """Write a copy that takes a tenth of a second to read, and return whether that succeeded."""
    try:
        write_folder(cache / IDX, data)
    except OSError:
        return False
    shutil.rmtree(cache / DOWNLOADS, ignore_errors=True)
    return True


@contextlib.contextmanager
def _one_at_a_time(cache: Path) -> Iterator[Path]:
    """Let one process at a time make the copy, and remove what killed ones left in the cache.

    Yields:
        The folder to work in: the cache, or a temporary one if the cache cannot be written.
    """
    try:
        cache.mkdir(parents=True, exist_ok=True)
        lock = FileLock(cache / "lock")
        lock.acquire()
    except OSError as error:
        try:
            temporary = tempfile.TemporaryDirectory()
        except OSError:
            raise InputError(f"cannot write to {cache}: {error}") from None
        with temporary:
            yield Path(temporary.name)
        return
    try:
        for stale in cache.glob(f"{WORK}*"):
            shutil.rmtree(stale, ignore_errors=True)
        sweep(cache / IDX)
        sweep(cache / DOWNLOADS)
        yield cache
    finally:
        lock.release()


def _load_auto() -> Data:
    try:
        return _load_full()
    except InputError as error:
        if os.environ.get(FOLDER_VARIABLE):  # the user said where the data is: do not use another
            raise
        sample = read_folder(SAMPLE, name="sample")
        rule = "!" * 78
        print(
            f"{rule}\n"
            f"!! Using the small SAMPLE, {len(sample.train_images):,} + "
            f"{len(sample.test_images):,} images, instead of the full 60,000 + 10,000.\n"
            f"!! Why: {error}\n"
            f"!! For the full data: apt-get install {PACKAGE}, or connect to the\n"
            f"!! internet, or set {FOLDER_VARIABLE} to a folder with the four IDX files.\n"
            f"{rule}",
            file=sys.stderr,
        )
        return sample


def resize_images(images: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8 images as torchvision's `Resize` does to an image: Pillow's bilinear filter."""
    resized = [
        Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in images
    ]
    return np.stack([np.asarray(image) for image in resized])
