"""Weight files for `evaluate`."""

import json
import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import safetensors.numpy

from shared.weights import NAMES, to_bytes
from tests.reliability.inputs.attempts import Attempt, as_nobody, command, printed, program
from tests.reliability.inputs.base import finished_run, flipped, small_data, weights


def with_header(header: object, data: bytes = bytes(4096)) -> bytes:
    """Return a safetensors file with this header, an object or text."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def entry(shape: object, dtype: object = "F32", offsets: object = (0, 4)) -> dict:
    """Return what a header says of an array."""
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def saved(**changes: Any) -> bytes:
    """Return a weight file with some arrays changed, or left out where they are None."""
    arrays = weights() | {name.replace("__", "."): array for name, array in changes.items()}
    arrays = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    return safetensors.numpy.save(arrays)


def odd_headers(good: bytes) -> dict[str, bytes]:
    """Return files by what is odd in their header."""
    length = int.from_bytes(good[:8], "little")
    header, data = json.loads(good[8 : 8 + length]), good[8 + length :]
    files = {
        "a header of a terabyte": (2**40).to_bytes(8, "little") + good[8:],
        "the longest header": (2**64 - 1).to_bytes(8, "little") + good[8:],
        "a header of 99 MB": (99_000_000).to_bytes(8, "little") + good[8:] + bytes(99_000_000),
        "a header of spaces": with_header(b"{" + b" " * 50_000_000 + b"}"),
        "a deep header": with_header(b"[" * 1_000_000),
        "a deep header, in an object": with_header(b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
        "a list": with_header([]),
        "null": with_header(b"null"),
        "nothing": with_header({}, b""),
        "not UTF-8": with_header(b'{"\xff": 1}'),
        "NUL": with_header(b"\0" * 100),
        "a million arrays": with_header(
            {f"a{i}": entry([0], offsets=(0, 0)) for i in range(300_000)}, b""
        ),
        "bytes behind the end": good + b"more",
        "a sparse terabyte": good,  # made longer below
    }
    for dtype in ("BF16", "F16", "F8_E4M3", "F8_E5M2", "I8", "I64", "U8", "BOOL", "C64",
        "x\x1b[31m",
                  "F" * 10_000, None, 7):  # fmt: skip
        changed = {n: e | {"dtype": dtype} if "shape" in e else e for n, e in header.items()}
        files[f"the dtype {str(dtype)[:10]!r}"] = with_header(changed, data)
    for shape in ([1] * 65, [1] * 10_000, [0], [0, 0], [], [2**63, 2], [2**64], [2**40, 1],
                  [-1], [1.5], "8", None, [1e400], [True], {"a": 1}):  # fmt: skip
        for name in ("linear_1.weight", "linear_2.bias"):
            files[f"{name} of the shape {str(shape)[:20]}"] = with_header(
                header | {name: header[name] | {"shape": shape}}, data
            )
            files[f"only {name}, of the shape {str(shape)[:20]}"] = with_header(
                {name: entry(shape)}
            )
    for offsets in ((0, 2**60), (4, 0), (-4, 4), (0,), "04", None, (0, 4, 8), (2**64, 2**64 + 4)):
        files[f"the offsets {offsets}"] = with_header(
            header | {"linear_1.bias": entry([8], offsets=offsets)}, data
        )
    same = {name: e | {"data_offsets": [0, 512]} for name, e in header.items() if "shape" in e}
    files["all at the same place"] = with_header(same, data)
    for metadata in (None, [], {"header": 1}, {"header": ""}, {"header": "[]"}, {"header": "null"},
                     {"header": "{}"}, {"header": '{"config": []}'}, {"header": '{"config": 1}'},
                     {"header": "[" * 10_000_000}, {"header": "1" * 10_000}, {"header": "NaN"},
                     {"header": '"\\ud800"'}, {"\x1b": "\x1b"}):  # fmt: skip
        files[f"the metadata {str(metadata)[:30]!r}"] = with_header(
            header | {"__metadata__": metadata}, data
        )
    return files


def odd_arrays() -> dict[str, bytes]:
    """Return well-formed files by what is odd in their arrays."""
    files = {f"without {name}": saved(**{name: None}) for name in NAMES}
    files |= {
        "one array more": saved(linear_4__bias=np.zeros(3)),
        "a long name": saved(**{"x" * 100_000: np.zeros(3)}),
        "a name of control characters": saved(**{"\x1b[2J\a\r\n\u202e": np.zeros(3)}),
        "renamed": saved(**{"linear_1.weight": None, "Linear_1.weight": weights()[NAMES[0]]}),
        "no units": saved(linear_1__weight=np.zeros((0, 16)), linear_1__bias=np.zeros(0)),
        "no outputs": saved(linear_3__weight=np.zeros((0, 8)), linear_3__bias=np.zeros(0)),
        "transposed": saved(linear_1__weight=weights()[NAMES[0]].T.copy()),
        "a number for an array": saved(linear_2__bias=np.float32(3)),
        "float32 and float64": saved(linear_2__bias=np.zeros(8)),
        "not square": to_bytes(weights() | {NAMES[0]: np.zeros((8, 15), np.float32)}),
        "one input": to_bytes(weights() | {NAMES[0]: np.ones((8, 1), np.float32)}),
        "many outputs": to_bytes(
            weights()
            | {
                "linear_3.weight": np.ones((10**5, 8), np.float32),
                "linear_3.bias": np.ones(10**5, np.float32),
            }
        ),
        "images of 1000 x 1000": to_bytes(weights() | {NAMES[0]: np.ones((8, 10**6), np.float32)}),
    }
    for dtype in ("float64", "float16", "int64", "uint8", "bool", ml_dtypes.bfloat16, "complex64"):
        arrays = {name: array.astype(dtype) for name, array in weights().items()}
        files[f"all of {np.dtype(dtype).name}"] = safetensors.numpy.save(arrays)
    for value in (np.nan, np.inf, -np.inf, 3e38, 1e-45, -0.0):
        files[f"the bias {value}"] = saved(linear_2__bias=np.full(8, value, np.float32))
        files[f"the weights {value}"] = saved(linear_2__weight=np.full((8, 8), value, np.float32))
    huge = {name: array.astype(np.float64) * 1e307 for name, array in weights().items()}
    return files | {"float64 weights of 1e307": safetensors.numpy.save(huge)}


def places(folder: Path, good: bytes) -> Iterator[tuple[str, Path]]:
    """Make things that are not ordinary files, and yield their paths."""
    made = {name: folder / name for name in ("pipe", "loop", "dangling", "folder", "link")}
    os.mkfifo(made["pipe"])
    made["loop"].symlink_to(made["loop"])
    made["dangling"].symlink_to(folder / "nowhere")
    made["folder"].mkdir()
    made["link"].symlink_to(folder / "good")
    (folder / "good").write_bytes(good)
    yield from made.items()
    devices = ("/dev/null", "/dev/zero", "/dev/full", "/dev/stdin", "/proc/self/mem", "/dev/tty")
    words = ("", ".", "/", "x" * 300, "/".join("x" * 3000), "no\x1b[31m\nsuch", "\udcff")
    for path in (*devices, *words, f"{folder}/good/below"):
        yield f"the path {path[:20]!r}", Path(path)


def attempts(folder: Path) -> Iterator[Attempt]:
    """Yield what to try."""
    run, data, path = folder / "run", folder / "data", folder / "run" / "weights.safetensors"
    finished_run(run, small_data(data))
    good, rng = path.read_bytes(), random.Random(0)

    def evaluate(about: str, path: Path = path, framework: str = "numpy", call=command) -> Attempt:
        words = ("--weights", path, "--data", data)
        return Attempt(
            f"{framework}: {about}",
            call(f"impls.{framework}.evaluate", *words),
            printed("test accuracy"),
        )

    yield evaluate("a good file")
    ends = sorted({*range(0, len(good), 24), *range(0, 16), len(good) - 1})
    files = {f"cut after {end} bytes": good[:end] for end in ends}
    length = 8 + int.from_bytes(good[:8], "little")
    for first, last, number in ((0, 8, 64), (8, length, 150), (length, len(good), 60)):
        bits = rng.sample(range(8 * first, 8 * last), number)
        files |= {f"bit {bit} flipped": flipped(good, bit) for bit in sorted(bits)}
    for about, content in (files | odd_headers(good) | odd_arrays()).items():
        path.write_bytes(content)
        if about == "a sparse terabyte":
            os.truncate(path, 2**40)
        yield evaluate(about)
        if rng.random() < 0.1:
            yield evaluate(about, framework="torch")
    for about, place in places(folder, good):
        yield evaluate(about, place)
    path.write_bytes(good)
    path.chmod(0)
    attempt = evaluate("no permission to read the file")
    yield Attempt(attempt.about, as_nobody(attempt.call), attempt.right)
    path.chmod(0o644)
    run.chmod(0)
    attempt = evaluate("no permission to enter the folder")
    yield Attempt(attempt.about, as_nobody(attempt.call), attempt.right)
    run.chmod(0o755)
    for about, content in odd_arrays().items():
        if rng.random() < 0.25:
            path.write_bytes(content)
            yield evaluate(about, framework="jax", call=program)
