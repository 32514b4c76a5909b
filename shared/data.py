"""Fashion-MNIST as NumPy arrays: the full 60,000 + 10,000 images, or the bundled sample.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv:1708.07747, 2017.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import http.client
import math
import os
import shutil
import sys
import urllib.request
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from shared.config import InputError

SAMPLE = Path(__file__).parent / "sample"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
FOLDER_VARIABLE = "FASHION_MNIST_DIR"

# SHA-256 of the decompressed files: gzip headers differ between mirrors, contents do not.
FULL_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES = tuple(FULL_SHA256)


@dataclasses.dataclass(frozen=True)
class Data:
    """Images uint8 (N, side, side), 0 black to 255 white; labels int64 (N,), 0 to 9."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    source: str  # where it came from, for the log


def load(source: str = "auto", *, resize: int | None = None) -> Data:
    """Load Fashion-MNIST.

    Args:
        source: `full`: the folder that the variable FASHION_MNIST_DIR names, else this user's
            cache, else Debian's package dataset-fashion-mnist, else tensorflow-datasets, which
            downloads. `sample`: the 10,000 + 2,000 images that come with this project. `auto`:
            full if it can be had, else the sample, with a notice on stderr. Anything else: a
            folder of the four IDX files, gzipped or not, of any size.
        resize: side of the images wanted, in pixels; 28 unless given.

    Raises:
        InputError: the data is not there, or is not what it should be.
    """
    if source == "full":
        data = _load_full()
    elif source == "sample":
        data = read_folder(SAMPLE, name="sample")
    elif source == "auto":
        data = _load_auto()
    else:
        data = read_folder(Path(source), name=source)
    if resize is None:
        return data
    return dataclasses.replace(
        data,
        train_images=_resize(data.train_images, resize),
        test_images=_resize(data.test_images, resize),
    )


def to_inputs(images: np.ndarray) -> np.ndarray:
    """Return what a network sees: float32 (N, side * side) in [0, 1], from uint8 images."""
    return np.divide(images.reshape(len(images), -1), np.float32(255), dtype=np.float32)


def side_of(inputs: int) -> int:
    """Return the side of the square images that a network with so many inputs was trained on."""
    side = math.isqrt(inputs)
    if side * side != inputs:
        raise InputError(f"a network of {inputs} inputs does not take square images")
    return side


def read_folder(folder: Path, *, name: str, sha256: dict[str, str] | None = None) -> Data:
    """Read the four IDX files in a folder, each gzipped or not."""
    paths = {}
    for file in FILES:
        # os.path: a path that cannot be looked at is one that is not there
        candidates = (folder / file, folder / f"{file}.gz")
        found = [path for path in candidates if os.path.isfile(path)]
        if not found:
            raise InputError(f"no {file} or {file}.gz in the folder {folder}")
        paths[file] = found[0]
    return read_files(paths, name=name, sha256=sha256)


def read_files(paths: dict[str, Path], *, name: str, sha256: dict[str, str] | None = None) -> Data:
    """Read four IDX files, checking the SHA-256 of what they hold if it is given.

    Args:
        paths: where each of `FILES` is.
        name: what to call this data in the log.
        sha256: of the decompressed content of each of `FILES`.

    Raises:
        InputError: a file is unreadable or damaged, or the four do not belong together.
    """
    arrays = []
    for file in FILES:
        content = _read_file(paths[file])
        if sha256 and hashlib.sha256(content).hexdigest() != sha256[file]:
            raise InputError(f"{paths[file]} is not Fashion-MNIST's: its SHA-256 differs")
        arrays.append(_parse_idx(content, paths[file], dimensions=3 if "images" in file else 1))
    train_images, train_labels, test_images, test_labels = arrays
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if len(images) != len(labels):
            raise InputError(f"{name} has {len(images)} images but {len(labels)} labels")
        if images.shape[1] != images.shape[2]:
            raise InputError(f"{name} has images that are not square: {images.shape[1:]}")
        if labels.max() > 9:
            raise InputError(f"{name} has a label over 9: {labels.max()}")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise InputError(f"{name} has training and test images of different sizes")
    return Data(
        train_images,
        train_labels.astype(np.int64),
        test_images,
        test_labels.astype(np.int64),
        source=f"{name}: {len(train_images):,} + {len(test_images):,} images",
    )


def _read_file(path: Path) -> bytes:
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None


def _parse_idx(content: bytes, path: Path, *, dimensions: int) -> np.ndarray:
    """IDX: magic 0x0000 08 (unsigned bytes) and the rank, each size as big-endian int32, bytes."""
    header = 4 * (1 + dimensions)
    numbers = np.frombuffer(content[:header], ">u4") if len(content) >= header else [0]
    if numbers[0] != 0x800 + dimensions:
        raise InputError(f"{path} is not an IDX file of {dimensions} dimensions")
    shape = tuple(int(n) for n in numbers[1:])
    if len(content) != header + math.prod(shape) or 0 in shape:
        raise InputError(f"{path} announces the shape {shape} but holds {len(content)} bytes")
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _load_full() -> Data:
    if folder := os.environ.get(FOLDER_VARIABLE):
        return read_folder(Path(folder), name=f"full, from {folder}", sha256=FULL_SHA256)
    cache = cache_folder() / "idx"
    with contextlib.suppress(InputError):  # not there yet, or damaged: made again below
        return read_folder(cache, name="full", sha256=FULL_SHA256)
    in_debian = DEBIAN.exists()
    data = read_folder(DEBIAN, name="full", sha256=FULL_SHA256) if in_debian else _download()
    # Decompressed, 53 MB load in a tenth of a second; no cache only means slower.
    with contextlib.suppress(OSError):
        _write_folder(cache, data)
    return data


def _load_auto() -> Data:
    try:
        return _load_full()
    except InputError as error:
        if os.environ.get(FOLDER_VARIABLE):  # the user said where it is: no second guess
            raise
        data = read_folder(SAMPLE, name="sample")
        rule = "!" * 78
        print(
            f"{rule}\n"
            f"!! Using the bundled SAMPLE, {data.source.removeprefix('sample: ')}, "
            "instead of the full 60,000 + 10,000.\n"
            f"!! Why: {error}\n"
            "!! For the full data: apt-get install dataset-fashion-mnist, or connect to the\n"
            f"!! internet, or set {FOLDER_VARIABLE} to a folder with the four IDX files.\n"
            f"{rule}",
            file=sys.stderr,
            flush=True,
        )
        return data


def _download() -> Data:
    """Have tensorflow-datasets download, verify and prepare the data, and read it back."""
    # Imported here: it takes seconds, and only the very first use needs it.
    from shared.fashion_mnist.fashion_mnist_dataset_builder import Builder

    # tensorflow-datasets retries for minutes; find out first, and fast, whether it can succeed.
    request = urllib.request.Request(f"{Builder.URL}{FILES[-1]}.gz", method="HEAD")
    try:
        urllib.request.urlopen(request, timeout=10).close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise InputError(f"cannot reach {Builder.URL}: {error}") from None
    # A folder of this process alone: two first uses at once must not meet in one.
    folder = cache_folder() / f"tensorflow_datasets.{os.getpid()}"
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
    except Exception as error:  # its errors have no common base
        raise InputError(f"tensorflow-datasets failed: {error}") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)  # the cache of IDX files takes over
    return Data(*splits["train"], *splits["test"], source="full: 60,000 + 10,000 images")


def _write_folder(folder: Path, data: Data) -> None:
    """Write the four IDX files, uncompressed, each whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    for file, array in zip(FILES, arrays, strict=True):
        header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
        unfinished = folder / f"{file}.{os.getpid()}.unfinished"
        unfinished.write_bytes(header + array.astype(np.uint8).tobytes())
        unfinished.replace(folder / file)


def cache_folder() -> Path:
    """Return the folder of what is made once and used again, which may be deleted at any time."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(base) / "dropout-three-ways"


def _resize(images: np.ndarray, side: int) -> np.ndarray:
    """Resize as torchvision's `Resize` does to an image: Pillow's bilinear filter."""
    resized = [
        Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR) for image in images
    ]
    return np.stack([np.asarray(image) for image in resized])
