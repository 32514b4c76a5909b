"""IDX files: the format in which MNIST and Fashion-MNIST are published.

An IDX file is a header and then one byte per pixel or label. The header is a row of big-endian
32-bit integers: the magic number 0x0800 + d, where d is the number of dimensions and 08 stands for
unsigned bytes, and then the d sizes. Images have d = 3 (N, height, width), labels d = 1 (N,).

Source: LeCun, Cortes and Burges, "The MNIST database of handwritten digits", file formats.
"""

import dataclasses
import hashlib
import math
import os
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from shared.checks import InputError
from shared.files import open_regular, write_whole
from shared.memory import check_room

URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"  # of Fashion-MNIST's files
# SHA-256 of the decompressed files, because the compressed files differ between mirrors.
FULL_SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
FILES = tuple(FULL_SHA256)
CHUNK = 2**16


@dataclasses.dataclass(frozen=True)
class Data:
    """Images and labels.

    Attributes:
        train_images, test_images: uint8 (N, side, side), 0 is black and 255 is white.
        train_labels, test_labels: int64 (N,), 0 to 9.
        name: what to pass to `load` to get the same data again: full, sample or a folder.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    name: str

    @property
    def images(self) -> str:
        """The numbers of images, for training and for the test."""
        return f"{len(self.train_images):,} + {len(self.test_images):,}"

    @property
    def summary(self) -> str:
        """The name and the numbers of images, for people to read."""
        return f"{self.name}: {self.images} images"


def read_folder(folder: Path, *, name: str, sha256: dict[str, str] | None = None) -> Data:
    """Read the four IDX files in a folder, each gzipped or not.

    Args:
        folder: where the files are, under the names in `FILES`, with or without `.gz`.
        name: the name of this data.
        sha256: the SHA-256 of the decompressed content of each of `FILES`, if it is to be checked.

    Raises:
        InputError: a file is missing or cannot be used, or the four do not belong together.
    """
    if not os.path.isdir(folder):
        raise InputError(
            f"there is no folder {folder}. Data can be full, sample, auto, or a folder of IDX files"
        )
    paths = {}
    for file in FILES:
        # os.path.isfile, because Path.is_file raises an error for a folder that cannot be entered.
        found = [path for path in (folder / file, folder / f"{file}.gz") if os.path.isfile(path)]
        if not found:
            raise InputError(f"no {file} or {file}.gz in the folder {folder}")
        paths[file] = found[0]
    return read_files(paths, name=name, sha256=sha256)


def read_files(paths: dict[str, Path], *, name: str, sha256: dict[str, str] | None = None) -> Data:
    """Read four IDX files from the paths given, one for each of `FILES`."""
    arrays = []
    for file in FILES:
        content, shape = _read_file(paths[file], dimensions=3 if "images" in file else 1)
        if sha256 and _sha256(content, shape) != sha256[file]:
            raise InputError(
                f"{paths[file]} is not the file of Fashion-MNIST: its SHA-256 differs. "
                "Get it again, or use --data FOLDER for data of your own"
            )
        arrays.append(np.frombuffer(content, np.uint8).reshape(shape))
    train_images, train_labels, test_images, test_labels = arrays
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if len(images) != len(labels):
            raise InputError(f"{name} has {len(images)} images but {len(labels)} labels")
        if images.shape[1] != images.shape[2]:
            raise InputError(f"{name} has images that are not square: {images.shape[1:]}")
        if labels.max() > 9:
            raise InputError(f"{name} has the label {labels.max()}; labels must be 0 to 9")
    if train_images.shape[1:] != test_images.shape[1:]:
        raise InputError(f"{name} has training and test images of different sizes")
    return Data(
        train_images,
        train_labels.astype(np.int64),
        test_images,
        test_labels.astype(np.int64),
        name,
    )


def check_content(data: Data, sha256: dict[str, str]) -> None:
    """Raise InputError unless the arrays are what the files with these SHA-256 hold."""
    arrays = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    for file, array in zip(FILES, arrays, strict=True):
        if _sha256(array.astype(np.uint8).tobytes(), array.shape) != sha256[file]:
            raise InputError(f"what was prepared is not {file}: its SHA-256 differs")


def write_folder(folder: Path, data: Data) -> None:
    """Write the four IDX files, uncompressed. A file appears complete or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays = (data.train_images, data.train_labels, data.test_images, data.test_labels)
    for file, array in zip(FILES, arrays, strict=True):
        write_whole(folder / file, _header(array.shape) + array.astype(np.uint8).tobytes())


def _header(shape: tuple[int, ...]) -> bytes:
    return np.array([0x800 + len(shape), *shape], ">u4").tobytes()


def _sha256(content: bytes | bytearray, shape: tuple[int, ...]) -> str:
    """Return the SHA-256 of a file with this content behind its header."""
    digest = hashlib.sha256(_header(shape))
    digest.update(content)
    return digest.hexdigest()


def _read_file(path: Path, dimensions: int) -> tuple[bytes | bytearray, tuple[int, ...]]:
    """Return the bytes of an IDX file behind its header, and the shape that the header gives.

    No more is read than the header says, and one byte, however much the file holds or unfolds to.
    """
    size = 4 * (1 + dimensions)
    try:
        with open_regular(path) as file:
            zipped = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            source: _Gunzip | BinaryIO = _Gunzip(file) if zipped else file
            start = source.read(size)
            header = np.frombuffer(start, ">u4") if len(start) == size else [0]
            if header[0] != 0x800 + dimensions:
                raise InputError(f"{path} is not an IDX file of {dimensions} dimensions")
            shape = tuple(int(n) for n in header[1:])
            expected = math.prod(shape)
            check_room(expected, f"the images and labels of {path}")
            content = source.read(expected + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    if len(content) != expected or 0 in shape:
        more = "more" if len(content) > expected else f"{len(content) + size}"
        raise InputError(f"{path} says that its shape is {shape}, but it has {more} bytes")
    return content, shape


class _Gunzip:
    """Reads a gzipped file bit by bit. The module gzip takes minutes for many empty members."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.rest = file, b""
        self.decoder, self.produced = zlib.decompressobj(31), 0

    def read(self, n: int) -> bytearray:
        """Return the next n bytes, or fewer at the end of the file."""
        content = bytearray()
        while n > 0:
            if self.decoder.eof:  # of a member: another one may follow
                self.rest = self.decoder.unused_data or self.file.read(CHUNK)
                if not self.rest:
                    break
                if not self.produced:
                    raise EOFError("it holds an empty gzip member")
                self.decoder, self.produced = zlib.decompressobj(31), 0
            data = self.rest or self.file.read(CHUNK)
            if not data:
                raise EOFError("it ends in the middle of a gzip member")
            part = self.decoder.decompress(data, n)
            self.rest = self.decoder.unconsumed_tail
            self.produced += len(part)
            n -= len(part)
            content += part
        return content
