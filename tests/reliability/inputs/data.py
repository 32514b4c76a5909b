"""Folders of IDX files."""

import gzip
import os
import random
import shutil
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from shared.idx import FILES
from shared.weights import save_weights
from tests.reliability.inputs.attempts import Attempt, as_nobody, command, printed
from tests.reliability.inputs.base import SMALL, flipped, small_data, weights

SIZES = (0, 1, 7, 11, 255, 2**16, 2**31 - 1, 2**31, 2**32 - 1)


def idx(*numbers: int, content: bytes = b"") -> bytes:
    """Return an IDX file: the magic number, the sizes, the content."""
    return np.array(numbers, ">u4").tobytes() + content


def odd_files(file: str, good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield contents for one of the files."""
    rng = random.Random(file)
    start = 16 if "images" in file else 8
    for end in {*range(0, start + 2), len(good) - 1, *rng.sample(range(start, len(good)), 2)}:
        yield f"cut after {end} bytes", good[:end]
    for bit in [*rng.sample(range(8 * start), 10), *rng.sample(range(8 * start, 8 * len(good)), 3)]:
        yield f"bit {bit} flipped", flipped(good, bit)
    for magic in (0, 0x801, 0x803, 0x802, 0x804, 0xD03, 0x8FF, 0x30800, 0xFFFFFFFF):
        yield f"the magic number {magic:#x}", idx(magic, content=good[4:])
    for size in SIZES:
        yield f"{size} images or labels", good[:4] + idx(size, content=good[8:])
        if "images" in file:
            yield f"images of {size} x {size}", good[:8] + idx(size, size, content=good[16:])
            yield f"images of {size} x 4", good[:8] + idx(size, 4, content=good[16:])
    yield "a terabyte", good[:4] + idx(2**30, 32, 32, content=good[16:])
    yield "more bytes", good + bytes(1000)
    yield "text", b"\x1b[31mnot data\n" * 100
    for value in (9, 10, 255):
        yield f"bytes of {value}", good[:start] + bytes([value]) * (len(good) - start)


def odd_zips(good: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield gzipped contents."""
    rng, zipped = random.Random(0), gzip.compress(good, mtime=0)
    yield "good", zipped
    yield "in two members", gzip.compress(good[:20]) + gzip.compress(good[20:])
    yield "in members of a byte", b"".join(gzip.compress(good[i : i + 1]) for i in range(len(good)))
    for end in (*range(0, 20), *range(20, len(zipped), 60), len(zipped) - 1):
        yield f"cut after {end} bytes", zipped[:end]
    for bit in rng.sample(range(8 * len(zipped)), 50):
        yield f"bit {bit} flipped", flipped(zipped, bit)
    yield "zipped twice", gzip.compress(zipped)
    yield "garbage behind it", zipped + b"garbage"
    yield "zeros behind it", zipped + bytes(1000)
    yield "a bomb of 2 GB", gzip.compress(good[:20]) + bomb(2 * 2**30)
    yield (
        "a bomb of 2 GB that the header promises",
        gzip.compress(good[:4] + idx(2**27, 4, 4)) + bomb(2 * 2**30),
    )
    yield "a bomb of empty members", gzip.compress(b"") * 2_000_000 + zipped
    yield "zlib without gzip", zlib.compress(good)
    name = gzip.compress(b"")[:3] + b"\x08" + bytes(6) + b"x" * 50_000_000
    yield "a name without end", name


def bomb(size: int) -> bytes:
    """Return a gzip member that unfolds to zeros."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    block = bytes(2**26)
    return b"".join(packer.compress(block) for _ in range(size // 2**26)) + packer.flush()


def replaced(path: Path, make: Callable[[Path], object]) -> Callable[[], None]:
    """Return what puts something else in the place of a file."""

    def change() -> None:
        path.unlink()
        make(path)

    return change


def attempts(folder: Path) -> Iterator[Attempt]:
    """Yield what to try."""
    base, data, path = folder / "base", folder / "data", folder / "weights"
    small_data(base)
    save_weights(path, weights())
    good = {file: (base / file).read_bytes() for file in FILES}

    def fresh() -> None:
        shutil.rmtree(data, ignore_errors=True)
        shutil.copytree(base, data)

    def evaluate(about: str, place: object = data) -> Attempt:
        call = command("impls.numpy.evaluate", "--weights", path, "--data", place)
        return Attempt(about, call, printed("test accuracy"), folder=data)

    def train(about: str, place: object = data, *flags: object) -> Attempt:
        out = folder / "out"
        call = command("impls.torch.train", *SMALL, "--data", place, "--out", out, "--overwrite",
                       *flags)  # fmt: skip
        return Attempt(f"train: {about}", call, printed("log and weights"), folder=out)

    fresh()
    yield evaluate("nothing odd")
    for file in FILES:
        for about, content in odd_files(file, good[file]):
            fresh()
            (data / file).write_bytes(content)
            yield evaluate(f"{file}: {about}")
    for about, content in odd_zips(good[FILES[0]]):
        fresh()
        (data / FILES[0]).unlink()
        (data / f"{FILES[0]}.gz").write_bytes(content)
        yield evaluate(f"gzipped: {about}")
    for about, make in {
        "a folder": Path.mkdir,
        "a pipe": os.mkfifo,
        "a loop": lambda p: p.symlink_to(p),
        "dangling": lambda p: p.symlink_to("nowhere"),
        "a device": lambda p: p.symlink_to("/dev/zero"),
        "a link": lambda p: p.symlink_to(base / FILES[0]),
        "missing": lambda p: None,
        "a sparse terabyte": lambda p: (p.write_bytes(good[FILES[0]]), os.truncate(p, 2**40)),
        "not readable": lambda p: (p.write_bytes(good[FILES[0]]), p.chmod(0)),
        "not readable, gzipped there": lambda p: (
            p.write_bytes(good[FILES[0]]), p.chmod(0),
            p.with_name(f"{p.name}.gz").write_bytes(gzip.compress(good[FILES[0]])),
        ),
        "damaged, gzipped there": lambda p: (
            p.write_bytes(b"x"),
            p.with_name(f"{p.name}.gz").write_bytes(gzip.compress(good[FILES[0]])),
        ),
        "there, gzipped damaged": lambda p: (
            p.write_bytes(good[FILES[0]]), p.with_name(f"{p.name}.gz").write_bytes(b"x"),
        ),
        "there, gzipped a folder": lambda p: (
            p.write_bytes(good[FILES[0]]), p.with_name(f"{p.name}.gz").mkdir(),
        ),
    }.items():  # fmt: skip
        fresh()
        replaced(data / FILES[0], make)()
        attempt = evaluate(f"a file is {about}")
        attempt.call = as_nobody(attempt.call)
        yield attempt
    for place in ("", ".", "/", "/dev/null", "/proc/self", "~", "x" * 300, "x/" * 3000, "\x1b[31m",
                  "a\nb", "\udcff", "FULL", "sample ", "../..", "file:///", "$HOME"):  # fmt: skip
        yield evaluate(f"the folder {place[:10]!r}", place)
    for train_images, test_images, side in ((1, 1, 4), (1, 1, 1), (1, 300, 4), (300, 1, 4),
        (3, 3, 1),
                                            (2, 2, 64), (255, 5, 3)):  # fmt: skip
        shutil.rmtree(data)
        small_data(data, train_images, test_images, side)
        about = f"{train_images} + {test_images} images of {side} x {side}"
        yield train(about)
        yield evaluate(about)
        yield train(f"{about}, resized", data, "--resize", 9)
        yield train(f"{about}, to one pixel", data, "--resize", 1)
        yield train(f"{about}, large batches", data, "--batch-size", 10**9)
    for name in ("é ü", "数据", "a'b\"c", "-data", "new\nline", "\x1b[31mred", "\udcff", "x" * 255):
        fresh()
        shutil.rmtree(folder / name, ignore_errors=True)
        data.rename(folder / name)
        yield train(f"the name {name[:10]!r}", folder / name)
        shutil.rmtree(folder / name)
