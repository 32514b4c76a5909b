"""Fashion-MNIST from the network, with limits of time and of bytes.

tensorflow-datasets prepares the data, but it does not download it here: its downloads wait for ever
for a server that falls silent, and write what a server sends without end. So it gets the files in
its folder for manual downloads.
"""

import contextlib
import hashlib
import http.client
import io
import queue
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
from tqdm import tqdm

from shared.checks import InputError
from shared.files import write_whole
from shared.idx import FULL_SHA256, Data, check_content, read_folder

# What to download, in the format of tensorflow-datasets: URL, bytes, SHA-256 and name of a file.
CHECKSUMS = Path(__file__).parent / "fashion_mnist" / "checksums.tsv"
PACKAGE = "dataset-fashion-mnist"  # Debian's package, which installs the four files here:
PACKAGE_FOLDER = Path("/usr/share/datasets/fashion-mnist")
DOWNLOADS = "downloads"  # the folder of files that are whole, until there is something better
WORK = "unfinished."  # how folders are called that are of no use after this process

# Limits, in seconds.
ANSWER = 10.0  # until a server answers: for the name, the connection and the headers
SILENCE = 30.0  # between two parts of a file
ALL_FILES = 900.0  # for the four files together
PAUSES = (1.0, 3.0)  # before a file is asked for once more, after an error of the server


def fetch(folder: Path) -> tuple[Data, str]:
    """Get the full data from the first source that works, and check its SHA-256.

    Args:
        folder: where to work. Finished downloads stay in its folder `downloads`. After a kill,
            folders stay whose names begin with `WORK`.

    Returns:
        The data, and the name of the source.

    Raises:
        InputError: no source works. The message has the reason of each, in one line.
    """
    sources = {"tensorflow-datasets": _from_tfds, f"apt-get download {PACKAGE}": _from_apt}
    reasons = []
    for name, source in sources.items():
        try:
            return source(folder), name
        except (InputError, OSError) as error:  # OSError: no room for a folder, for example
            reasons.append(f"{name}: {' '.join(str(error).split())}")
    raise InputError("; ".join(reasons))


def _from_tfds(folder: Path) -> Data:
    """Download the files, have tensorflow-datasets prepare them, and read the result."""
    downloads = folder / DOWNLOADS
    _download(downloads)
    # Imported here because it takes long and only the first use needs it.
    import tensorflow_datasets as tfds

    from shared.fashion_mnist.fashion_mnist_dataset_builder import Builder

    tfds.disable_progress_bar()
    try:
        with (
            tempfile.TemporaryDirectory(prefix=WORK, dir=folder) as data_dir,
            contextlib.redirect_stdout(io.StringIO()),  # it prints about sizes that it cannot know
        ):
            builder = Builder(data_dir=data_dir, file_format="array_record")
            config = tfds.download.DownloadConfig(manual_dir=downloads)
            builder.download_and_prepare(download_config=config)
            splits = {}
            for split in ("train", "test"):
                source = builder.as_data_source(split)
                examples = source.__getitems__(range(len(source)))
                splits[split] = (
                    np.stack([example["image"][:, :, 0] for example in examples]),
                    np.array([example["label"] for example in examples], np.int64),
                )
    except Exception as error:  # the errors of tensorflow-datasets have no common base class
        raise InputError(f"it cannot prepare the data: {error}") from error
    data = Data(*splits["train"], *splits["test"], name="full")
    check_content(data, FULL_SHA256)
    return data


def _download(folder: Path) -> None:
    """Download the files that are not yet in a folder. It is made if it is not there."""
    deadline = time.monotonic() + ALL_FILES
    missing = []
    for line in CHECKSUMS.read_text().splitlines():
        url, length, checksum, name = line.split("\t")
        path = folder / name
        if not (path.exists() and _is(path.read_bytes(), checksum)):
            missing.append((int(length), url, checksum, path))
    missing.sort()  # a small file shows first whether the server works
    total = sum(size for size, *_ in missing)
    # disable=None: a bar only on a terminal.
    with tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None) as bar:
        for size, url, checksum, path in missing:
            content = _get(url, size, deadline, bar)
            if not _is(content, checksum):
                raise InputError(f"what {url} sends is not what was published: its SHA-256 differs")
            try:
                folder.mkdir(exist_ok=True)
                write_whole(path, content)
            except OSError as error:
                raise InputError(f"cannot write {path}: {error.strerror}") from None


def _is(content: bytes, checksum: str) -> bool:
    return hashlib.sha256(content).hexdigest() == checksum


def _get(url: str, size: int, deadline: float, bar: tqdm) -> bytes:
    """Return a file of exactly this size from a server."""
    content = bytearray()
    try:
        with _open(url) as response:
            # Without a length, a body can go on for ever: its end is only what the server sends.
            if response.length != size:
                raise InputError(f"{url} does not have {size:,} bytes, but {response.length}")
            while part := response.read1(2**16):
                content += part
                bar.update(len(part))
                if time.monotonic() > deadline:
                    raise InputError(
                        f"{url} is too slow: {len(content):,} of {size:,} bytes came before the "
                        f"{ALL_FILES:g} s for all files were over"
                    )
    except InputError:
        raise
    except TimeoutError:
        raise InputError(f"{url} sent nothing for {SILENCE:g} s") from None
    except (OSError, http.client.HTTPException, ValueError) as error:  # ValueError: a wrong proxy
        raise InputError(f"cannot download {url}: {error}") from None
    if len(content) < size:
        raise InputError(f"{url} ended after {len(content):,} of {size:,} bytes")
    return bytes(content)


def _open(url: str) -> http.client.HTTPResponse:
    """Ask for a URL, and ask again if the server has an error."""
    for pause in PAUSES:
        try:
            return _answer(url)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
            time.sleep(pause)
    return _answer(url)


def _answer(url: str) -> http.client.HTTPResponse:
    """Return the answer of a server, of which only the headers have been read.

    A thread asks, because the timeout of urlopen is for each address and for each part of the
    headers, and these can be many.
    """
    answers: queue.SimpleQueue = queue.SimpleQueue()

    def ask() -> None:
        try:
            answers.put(urllib.request.urlopen(url, timeout=SILENCE))
        except urllib.error.HTTPError as error:
            error.close()
            answers.put(error)
        except Exception as error:
            answers.put(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        answer = answers.get(timeout=ANSWER)
    except queue.Empty:
        raise InputError(f"{url} did not answer in {ANSWER:g} s") from None
    if isinstance(answer, Exception):
        raise answer
    return answer


def _from_apt(folder: Path) -> Data:
    """Fetch Debian's package, unpack it and read its files."""
    with tempfile.TemporaryDirectory(prefix=WORK, dir=folder) as name:
        work = Path(name)
        _run(["apt-get", "download", PACKAGE], work)
        for package in work.glob("*.deb"):
            _run(["dpkg-deb", "--extract", str(package), "."], work)
        unpacked = work / PACKAGE_FOLDER.relative_to("/")
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
