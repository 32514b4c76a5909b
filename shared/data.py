"""Fashion-MNIST as NumPy arrays: the full 60,000 + 10,000 images, or the sample in this folder.

It is published as IDX files. An IDX file is a header and then one byte per pixel or label. The
header is a row of big-endian 32-bit integers: the magic number 0x0800 + d, where d is the number of
dimensions and 08 stands for unsigned bytes, and then the d sizes.

Source: Xiao, Rasul and Vollgraf, "Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine
Learning Algorithms", arXiv:1708.07747, 2017.
"""

import contextlib
import dataclasses
import gzip
import hashlib
import math
import os
import shutil
import subprocess
import sys
import tempfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
from filelock import FileLock
from PIL import Image

from shared.checks import InputError

SAMPLE = Path(__file__).parent / "sample"
FOLDER_VARIABLE = "FASHION_MNIST_DIR"
PACKAGE = "dataset-fashion-mnist"  # Debian's package, which installs the four files here:
PACKAGE_FOLDER = Path("/usr/share/datasets/fashion-mnist")
URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
SILENCE = 30.0  # seconds without a byte after which a download is given up
# SHA-256 of each file as it is downloaded, and of its content: other mirrors compress differently.
FILES = {
    "train-images-idx3-ubyte": (
        "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
        "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    ),
    "train-labels-idx1-ubyte": (
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
        "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    ),
    "t10k-images-idx3-ubyte": (
        "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
        "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    ),
    "t10k-labels-idx1-ubyte": (
        "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
        "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
    ),
}


@dataclasses.dataclass(frozen=True)
class Data:
    """Images and labels.

    Attributes:
        train_images, test_images: uint8 (N, side, side), 0 is black and 255 is white.
        train_labels, test_labels: int64 (N,), 0 to 9.
        name: what to pass to `load` to get the same data again: full, sample or a folder.
        sha256: of the four arrays as they were loaded.
    """

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    name: str
    sha256: str = ""

    @property
    def images(self) -> str:
        """The numbers of images, for training and for the test."""
        return f"{len(self.train_images):,} + {len(self.test_images):,}"


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
        data = read_folder(SAMPLE, "sample")
    elif name == "auto":
        data = _load_auto()
    else:
        data = read_folder(Path(name), os.path.abspath(name))
    if resize is None:
        return data
    train, test = (resize_images(i, resize) for i in (data.train_images, data.test_images))
    return dataclasses.replace(data, train_images=train, test_images=test)


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
    train, test = to_inputs(data.train_images, dtype), to_inputs(data.test_images, dtype)
    return train, data.train_labels, test, data.test_labels


def resize_images(images: np.ndarray, side: int) -> np.ndarray:
    """Resize uint8 images as torchvision's `Resize` does to an image: Pillow's bilinear filter."""
    resized = np.empty((len(images), side, side), np.uint8)
    for i, image in enumerate(images):
        small = Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR)
        resized[i] = np.asarray(small)
    return resized


def read_folder(folder: Path, name: str, sha256: bool = False) -> Data:
    """Read the four IDX files in a folder, each gzipped or not.

    Args:
        folder: where the files are, named as in `FILES`. Names like `train-images.idx3-ubyte` and
            an ending `.gz` are understood, too.
        name: the name of this data.
        sha256: whether the files have to be those of Fashion-MNIST.

    Raises:
        InputError: a file is missing or cannot be used, or the four do not belong together.
    """
    try:
        there = {p.name.lower().removesuffix(".gz").replace(".idx", "-idx"): p
                 for p in sorted(folder.iterdir(), reverse=True)}  # fmt: skip
    except OSError as error:
        raise InputError(
            f"cannot read the folder {folder}: {error.strerror}. Data can be full, sample, auto, "
            "or a folder of IDX files"
        ) from None
    arrays = []
    for file in FILES:
        if file not in there:
            raise InputError(f"no {file} or {file}.gz in the folder {folder}")
        arrays.append(_read_file(there[file], dimensions=3 if "images" in file else 1))
    return _checked(arrays, name, sha256)


def _read_file(path: Path, dimensions: int) -> np.ndarray:
    """Return the content of an IDX file."""
    if path.is_dir():
        raise InputError(f"{path} is a folder. If the file is in it, move it to {path.parent}")
    try:
        content = path.read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path}: {error}") from None
    start = 4 * (1 + dimensions)
    numbers = np.frombuffer(content[: min(start, len(content) // 4 * 4)], ">u4")
    magic, *shape = numbers.tolist() or [0]
    if magic >> 16 or magic & 0xFF != dimensions or len(shape) != dimensions:
        raise InputError(f"{path} is not an IDX file of {dimensions} dimensions")
    if magic >> 8 != 8:
        raise InputError(
            f"{path} holds numbers of the IDX type 0x{magic >> 8:02X}. Only 0x08, unsigned bytes, "
            "can be read"
        )
    if math.prod(shape) != len(content) - start or 0 in shape:
        raise InputError(
            f"{path} says that its shape is {tuple(shape)}, but {len(content) - start:,} bytes "
            "follow"
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)


def _checked(arrays: list[np.ndarray], name: str, sha256: bool) -> Data:
    """Return four uint8 arrays as data, if they belong together, and are Fashion-MNIST."""
    digests = []
    for (file, (_, published)), array in zip(FILES.items(), arrays, strict=True):
        header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
        digests.append(hashlib.sha256(header + array.tobytes()).hexdigest())
        if sha256 and digests[-1] != published:
            raise InputError(
                f"{file} is not the file of Fashion-MNIST: its SHA-256 differs. Get it again, or "
                "use --data FOLDER for data of your own"
            )
    train_images, train_labels, test_images, test_labels = arrays
    for images, labels in ((train_images, train_labels), (test_images, test_labels)):
        if len(images) != len(labels):
            raise InputError(f"{name} has {len(images)} images but {len(labels)} labels")
        if images.shape[1] != images.shape[2] or images.shape[1] != train_images.shape[1]:
            raise InputError(f"{name} has images that are not square, or not of one size")
        if labels.max() > 9:
            raise InputError(f"{name} has the label {labels.max()}; labels must be 0 to 9")
    train_labels, test_labels = train_labels.astype(np.int64), test_labels.astype(np.int64)
    together = hashlib.sha256("".join(digests).encode()).hexdigest()
    return Data(train_images, train_labels, test_images, test_labels, name, together)


def cache_folder() -> Path:
    """Return the folder for files that are kept to save time. It may be deleted at any moment."""
    return platformdirs.user_cache_path("dropout-three-ways")


def _load_full() -> Data:
    """Load all images from the first of these places, checking the SHA-256 of each file.

    1. The folder that the variable FASHION_MNIST_DIR names.
    2. Debian's package, if it is installed.
    3. tensorflow-datasets, which prepares the files that pooch downloads and serves them from then
       on, from this user's cache.
    4. Debian's package, fetched with `apt-get download` into the cache. This needs no root.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        try:
            return read_folder(Path(named), "full", sha256=True)
        except InputError as error:
            raise InputError(f"{FOLDER_VARIABLE} is {named}: {error}") from None
    if PACKAGE_FOLDER.exists():
        return read_folder(PACKAGE_FOLDER, "full", sha256=True)
    reasons = []
    for name, source in (("tensorflow-datasets", _from_tfds), ("apt-get download", _from_apt)):
        try:
            cache = cache_folder()
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / "lock"):  # one process fetches, the others find what it got
                return source(cache)
        except (InputError, OSError) as error:
            reasons.append(f"{name}: {' '.join(str(error).split())}")
    raise InputError("; ".join(reasons))


def _load_auto() -> Data:
    try:
        return _load_full()
    except InputError as error:
        if os.environ.get(FOLDER_VARIABLE):  # the user said where the data is: do not use another
            raise
        sample = read_folder(SAMPLE, "sample")
        rule = "!" * 78
        print(
            f"{rule}\n"
            f"!! Using the small SAMPLE, {sample.images} images, not the full 60,000 + 10,000.\n"
            f"!! Why: {error}\n"
            f"!! For the full data: apt-get install {PACKAGE}, or connect to the internet,\n"
            f"!! or set {FOLDER_VARIABLE} to a folder with the four IDX files.\n"
            f"{rule}",
            file=sys.stderr,
        )
        return sample


def _from_tfds(cache: Path) -> Data:
    """Let tensorflow-datasets serve the images, after it has prepared them at the first time."""
    try:  # here, because it takes seconds, and is an extra of its own
        import pooch
        import tensorflow_datasets as tfds
    except Exception as error:  # as a package of another version can raise anything
        raise InputError(f"{error!r}. pip install '.[data]' brings what it needs") from None

    class FashionMNIST(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]  # untyped
        """The builder that comes with tensorflow-datasets needs TensorFlow. This one does not."""

        VERSION = tfds.core.Version("1.0.0")
        name = "fashion_mnist"

        def _info(self) -> tfds.core.DatasetInfo:
            image = tfds.features.Tensor(shape=(28, 28), dtype=np.uint8)
            label = tfds.features.ClassLabel(num_classes=10)
            features = tfds.features.FeaturesDict({"image": image, "label": label})
            return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            data = read_folder(_download(pooch, cache), "download", sha256=True)
            return {
                "train": self._generate_examples(data.train_images, data.train_labels),
                "test": self._generate_examples(data.test_images, data.test_labels),
            }

        def _generate_examples(self, images: np.ndarray, labels: np.ndarray) -> Any:
            for i, (image, label) in enumerate(zip(images, labels, strict=True)):
                yield i, {"image": image, "label": int(label)}

    tfds.disable_progress_bar()
    try:
        builder = FashionMNIST(data_dir=cache / "tfds", file_format="array_record")
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for what commands are asked for
            builder.download_and_prepare()
        shutil.rmtree(cache / "downloads", ignore_errors=True)
        arrays = []
        for split in ("train", "test"):
            source = builder.as_data_source(split)
            examples = source.__getitems__(range(len(source)))
            arrays.append(np.stack([example["image"] for example in examples]))
            arrays.append(np.array([example["label"] for example in examples], np.uint8))
        return _checked(arrays, "full", sha256=True)
    except InputError:
        raise
    except Exception as error:  # the errors of tensorflow-datasets have no common base class
        raise InputError(f"it cannot prepare the data in {cache}: {error}") from error


def _download(pooch: Any, cache: Path) -> Path:
    """Download the four files, those that are not there yet, and return their folder."""
    registry = {f"{file}.gz": f"sha256:{digest}" for file, (digest, _) in FILES.items()}
    folder = pooch.create(cache / "downloads", URL, registry=registry, retry_if_failed=2)
    get = pooch.HTTPDownloader(timeout=SILENCE, progressbar=sys.stderr.isatty())
    pooch.get_logger().setLevel("ERROR")
    for file in sorted(registry, key=lambda file: "images" in file):  # small ones show what works
        try:
            folder.fetch(file, downloader=get)
        except (OSError, ValueError) as error:  # of requests, and of pooch for a wrong SHA-256
            raise InputError(f"cannot download {URL}{file}: {error}") from None
    return cache / "downloads"


def _from_apt(cache: Path) -> Data:
    """Fetch Debian's package, and keep its files in the cache."""
    kept = cache / "idx"
    if not kept.exists():
        with tempfile.TemporaryDirectory(dir=cache) as name:
            work = Path(name)
            _run(["apt-get", "download", PACKAGE], work)
            for package in work.glob("*.deb"):
                _run(["dpkg-deb", "--extract", str(package), "."], work)
            (work / PACKAGE_FOLDER.relative_to("/")).rename(kept)
    return read_folder(kept, "full", sha256=True)


def _run(command: list[str], folder: Path) -> None:
    try:
        subprocess.run(command, cwd=folder, timeout=300, check=True, capture_output=True, text=True)
    except subprocess.CalledProcessError as error:
        raise InputError((error.stderr.strip() or str(error)).splitlines()[-1]) from None
    except (OSError, subprocess.SubprocessError) as error:
        raise InputError(str(error)) from None
