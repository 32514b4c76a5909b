"""Fashion-MNIST as NumPy arrays: the full 60,000 + 10,000 images, or the sample in this folder.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv:1708.07747, 2017.
"""

import contextlib
import dataclasses
import http.client
import math
import os
import shutil
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
from filelock import FileLock
from PIL import Image

from shared.checks import InputError
from shared.idx import FILES, FULL_SHA256, URL, Data, check_content, read_folder, write_folder
from shared.memory import check_room

SAMPLE = Path(__file__).parent / "sample"
PACKAGE = "dataset-fashion-mnist"  # Debian's package, which installs the four files here:
PACKAGE_FOLDER = Path("/usr/share/datasets/fashion-mnist")
PREPARED = "tensorflow_datasets."  # how folders are called that tensorflow-datasets works in
FOLDER_VARIABLE = "FASHION_MNIST_DIR"


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
    4. A download through tensorflow-datasets.
    5. Debian's package, fetched with `apt-get download`, which needs no root and installs nothing.
    """
    if folder := os.environ.get(FOLDER_VARIABLE):
        try:
            return read_folder(Path(folder), name="full", sha256=FULL_SHA256)
        except InputError as error:
            raise InputError(f"{FOLDER_VARIABLE} is {folder}: {error}") from None
    cache = cache_folder() / "idx"
    with contextlib.suppress(InputError):  # not there yet, or damaged: fetched again below
        return read_folder(cache, name="full", sha256=FULL_SHA256)
    if PACKAGE_FOLDER.exists():
        return _keep(read_folder(PACKAGE_FOLDER, name="full", sha256=FULL_SHA256), cache)
    with _one_at_a_time(cache.parent):
        with contextlib.suppress(InputError):  # another process has fetched it meanwhile
            return read_folder(cache, name="full", sha256=FULL_SHA256)
        sources = {"tensorflow-datasets": _download, f"apt-get download {PACKAGE}": _from_apt}
        return _keep(_fetch(sources), cache)


def _keep(data: Data, cache: Path) -> Data:
    """Write a copy that takes a tenth of a second to read. Without one, loading is slower."""
    with contextlib.suppress(OSError):
        write_folder(cache, data)
    return data


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Let one process at a time fetch the data, and remove what killed ones left in the folder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / "lock")
        lock.acquire()
    except OSError:  # no cache on this machine
        yield
        return
    try:
        for stale in folder.glob(f"{PREPARED}*"):
            shutil.rmtree(stale, ignore_errors=True)
        yield
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


def _fetch(sources: dict[str, Callable[[], Data]]) -> Data:
    """Return what the first source gives that works, and say in one line which one it was."""
    reasons = []
    for name, fetch in sources.items():
        try:
            data = fetch()
        except InputError as error:
            reasons.append(f"{name}: {error}")
        else:
            print(f"Fashion-MNIST: fetched with {name}, kept in {cache_folder()}", file=sys.stderr)
            return data
    raise InputError("; ".join(reasons))


def _download() -> Data:
    """Have tensorflow-datasets download, verify and prepare the data, and read the result."""
    # tensorflow-datasets tries again for minutes. This request shows in seconds whether the server
    # can be reached.
    request = urllib.request.Request(f"{URL}{FILES[-1]}.gz", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"cannot reach {URL}: {error}") from None
    # Imported here because it takes seconds and only the first use needs it.
    from shared.fashion_mnist.fashion_mnist_dataset_builder import Builder

    try:
        cache_folder().mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=PREPARED, dir=cache_folder()))
    except OSError as error:
        raise InputError(f"cannot write to {cache_folder()}: {error}") from None
    try:
        builder = Builder(data_dir=folder, file_format="array_record")
        builder.download_and_prepare()
        splits = {}
        for split in ("train", "test"):
            source = builder.as_data_source(split)
            examples = source.__getitems__(range(len(source)))
            splits[split] = (
                np.stack([example["image"][:, :, 0] for example in examples]),
                np.array([example["label"] for example in examples], np.int64),
            )
    except Exception as error:  # the errors of tensorflow-datasets have no common base class
        raise InputError(f"tensorflow-datasets failed: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # only the cache of IDX files is kept
    data = Data(*splits["train"], *splits["test"], name="full")
    check_content(data, FULL_SHA256)
    return data


def _from_apt() -> Data:
    """Fetch Debian's package into a temporary folder, unpack it there and read its files."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _run(["apt-get", "download", PACKAGE], folder)
        for package in folder.glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(package), "."], folder)
        unpacked = folder / PACKAGE_FOLDER.relative_to("/")
        return read_folder(unpacked, name="full", sha256=FULL_SHA256)


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, timeout=300, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        raise InputError(f"there is no {command[0]} on this machine") from None
    except subprocess.TimeoutExpired:
        raise InputError(f"{command[0]} took more than 5 minutes") from None
    except subprocess.CalledProcessError as error:
        raise InputError((error.stderr.strip() or str(error)).splitlines()[-1]) from None


def resize_images(images: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8 images as torchvision's `Resize` does to an image: Pillow's bilinear filter."""
    resized = [
        Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in images
    ]
    return np.stack([np.asarray(image) for image in resized])
