"""Logs for `experiments.compare`."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.reliability.inputs.attempts import Attempt, as_nobody, command, printed
from tests.reliability.inputs.base import finished_run, small_data

ODD: tuple[Any, ...] = (
    None, [], {}, True, "", "x", "\x1b[31m\n", "\0", "\ud800", "x" * 10_000, -1, 0, 1.5, 10**400,
    float("nan"), float("inf"), [[1]], {"a": {}}, "sample", "/dev", "../..",
)  # fmt: skip


def odd_texts(header: dict[str, Any], record: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield whole logs."""
    lines = [json.dumps(header), json.dumps(record)]
    good = "\n".join(lines)
    for text in ("", "\n", "\n\n\n", "null", "[]", "{}", "3", '"x"', "NaN", "{" * 1_000_000,
                 "[" * 1_000_000 + "]" * 1_000_000, '{"a":' * 1_000_000, "1" * 10_000,
                 "\ufeff" + good,
                 good.replace("\n", "\r\n"), good.replace("\n", "\u2028"), good + "\n\n",
                 good[:-10],
                 lines[0], lines[1], "\n".join(lines[::-1]), "\n".join([lines[0]] * 2),
                 good + "\n" + lines[1], good + "\n" + lines[0], good + "\n[]", good + "\nnull",
                 lines[0] + "\x00" * 100, lines[0] + '\n{"epoch": 1, "epoch": 1}'):  # fmt: skip
        yield f"the text {text[:15]!r}... of {len(text)} characters", text.encode()
    yield "UTF-16", good.encode("utf-16")
    yield "not UTF-8", good.encode() + b"\n\xff" * 500
    yield "all bytes", bytes(range(256)) * 100
    for end in range(0, len(good), 97):
        yield f"cut after {end} bytes", good.encode()[:end]


def odd_values(header: dict[str, Any], record: dict[str, Any]) -> Iterator[tuple[str, bytes]]:
    """Yield logs in which one value is odd, or missing."""

    def text(*lines: object) -> bytes:
        return "\n".join(json.dumps(line) for line in lines).encode()

    for key in header:
        for odd in ODD:
            yield f"{key} is {str(odd)[:12]!r}", text({**header, key: odd}, record)
        yield f"no {key}", text({k: v for k, v in header.items() if k != key}, record)
    for key in record:
        for odd in ODD:
            yield f"{key} is {str(odd)[:12]!r}", text(header, {**record, key: odd})
        yield f"no {key}", text(header, {k: v for k, v in record.items() if k != key})
    for key in ("config", "versions"):
        for odd in ODD:
            changed = {**header[key], "lr": odd, "\x1b[31m": odd}
            yield f"{key} holds {str(odd)[:12]!r}", text({**header, key: changed}, record)
    yield "epochs that do not count up", text(header, {**record, "epoch": 2}, record)


def attempts(folder: Path) -> Iterator[Attempt]:
    """Yield what to try."""
    data = small_data(folder / "data")
    good, odd = folder / "good", folder / "odd"
    finished_run(good, data)
    finished_run(odd, data)
    log = odd / "log.jsonl"
    content = log.read_bytes()
    header, record = map(json.loads, content.splitlines())

    def compare(about: str, *runs: object) -> Attempt:
        call = command("experiments.compare", *(runs or (good, odd)))
        return Attempt(about, call, lambda end: odd_is_shown(end.out))

    def odd_is_shown(out: str) -> bool:
        return "yes, " in out and out.replace("\n", "").isprintable() and "nan" not in out

    yield compare("nothing odd")
    for about, text in (*odd_texts(header, record), *odd_values(header, record)):
        log.write_bytes(text)
        yield compare(about)
    log.write_bytes(content)
    (odd / "weights.safetensors").rename(folder / "weights")
    yield compare("no weights")
    (folder / "weights").rename(odd / "weights.safetensors")
    log.unlink()
    yield compare("no log")
    for about, make in {
        "a gigabyte of zeros": lambda p: (p.touch(), os.truncate(p, 2**30)),
        "a sparse terabyte": lambda p: (p.write_bytes(content), os.truncate(p, 2**40)),
        "a pipe": os.mkfifo,
        "a loop": lambda p: p.symlink_to(p),
        "a device": lambda p: p.symlink_to("/dev/zero"),
        "a link": lambda p: p.symlink_to(good / "log.jsonl"),
        "not readable": lambda p: (p.write_bytes(content), p.chmod(0)),
        "a folder": Path.mkdir,
    }.items():
        make(log)
        attempt = compare(f"the log is {about}")
        attempt.call = as_nobody(attempt.call)
        yield attempt
        log.rmdir() if log.is_dir() else log.unlink()
    log.write_bytes(content)
    odd.chmod(0)
    attempt = compare("a folder that cannot be entered")
    yield Attempt(attempt.about, as_nobody(attempt.call), attempt.right)
    odd.chmod(0o755)
    for run in (
        "",
        ".",
        "/",
        "/dev/null",
        "x" * 300,
        "x/" * 3000,
        "\x1b[31m",
        "\udcff",
        good / "log.jsonl",
    ):
        yield compare(f"the run {str(run)[:10]!r}", good, run)
    yield compare("one run", good)
    yield compare("one run often", *[good] * 50)
    for name in ("é", "\udcff", "\x1b[31m", "a\nb", "x" * 255):
        good.rename(folder / name)
        attempt = compare(f"the folder {name[:10]!r}", folder / name)
        attempt.right = printed("yes, ")
        yield attempt
        (folder / name).rename(good)
