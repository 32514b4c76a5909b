"""Any bytes at all as a file that a command reads: it is read, or an InputError says why not."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.checks import InputError
from shared.config import RunConfig
from shared.data import FILES, load
from shared.randomness import initial_weights
from shared.records import make_header, read_log
from shared.run import CHECKPOINT, LOG, WEIGHTS, Run
from shared.weights import load_weights, to_bytes
from tests.conftest import small, write_folder
from tests.test_records import record

# The same examples each time. Each takes less than a millisecond, but for those of a run.
MANY = settings(
    max_examples=200, derandomize=True, deadline=None, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
FEW = settings(MANY, max_examples=75)


@st.composite
def mutated(draw, valid: bytes) -> bytes:
    """A valid file of which a part was cut off, or some bytes were changed, or anything."""
    kind = draw(st.sampled_from(["anything", "cut", "changed", "inserted", "changed at the start"]))
    if kind == "anything":
        return draw(st.binary(max_size=200))
    content = bytearray(valid)
    if kind == "cut":
        return bytes(content[: draw(st.integers(0, len(content)))])
    if kind == "inserted":
        at = draw(st.integers(0, len(content)))
        return bytes(content[:at] + draw(st.binary(min_size=1, max_size=20)) + content[at:])
    end = min(len(content), 60 if kind == "changed at the start" else len(content)) - 1
    for at in draw(st.lists(st.integers(0, end), min_size=1, max_size=4)):
        content[at] = draw(st.integers(0, 255))
    return bytes(content)


def refusal(read, path: Path) -> str:
    """Read a file. Return what an InputError says, "" if there is none."""
    try:
        read(path)
    except InputError as error:
        return str(error)
    return ""


TINY = small(train_images=small().train_images[:3], train_labels=small().train_labels[:3])
HEADER = make_header("torch", RunConfig(), TINY, "cpu")
RECORDS = [record(1, 0.5, 1.0), record(2, 0.75, 1.0)]
LINES = [HEADER, *RECORDS]
LOG_FILE = "".join(json.dumps(line) + "\n" for line in LINES).encode()
RAW_WEIGHTS = initial_weights(4, 2, 2, 10, seed=0)
WEIGHT_FILE = to_bytes(RAW_WEIGHTS, {"log": json.dumps(LINES)})
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=6,
)


def test_what_is_changed_below_is_valid(tmp_path):
    (tmp_path / LOG).write_bytes(LOG_FILE)
    assert read_log(tmp_path / LOG) == ([HEADER], RECORDS)
    (tmp_path / WEIGHTS).write_bytes(WEIGHT_FILE)
    assert load_weights(tmp_path / WEIGHTS).keys() == RAW_WEIGHTS.keys()


@pytest.mark.parametrize(
    ("name", "valid", "read"),
    [(LOG, LOG_FILE, read_log), (WEIGHTS, WEIGHT_FILE, load_weights)],
    ids=["log", "weights"],
)
@given(draw=st.data())
@MANY
def test_a_file_of_any_bytes(tmp_path, name: str, valid: bytes, read, draw):
    (tmp_path / name).write_bytes(draw.draw(mutated(valid)))
    said = refusal(read, tmp_path / name)
    assert not said or name in said


@given(
    st.lists(JSON | st.sampled_from(LINES), max_size=3),
    st.sampled_from([*HEADER, *RECORDS[0]]),
    JSON,
)
@MANY
def test_a_log_of_any_json(tmp_path, lines: list, name: str, value):
    changed = [{**line, name: value} if name in line else line for line in LINES]
    for some in (lines, changed):
        (tmp_path / LOG).write_text("\n".join(map(json.dumps, some)))
        refusal(read_log, tmp_path / LOG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("inputs") / "data", TINY)


SETTINGS = {"epochs": 2, "hidden_1": 2, "hidden_2": 2}


@pytest.fixture(scope="module")
def checkpoint(folder) -> bytes:
    """A checkpoint after the first of two epochs."""
    header = make_header("torch", RunConfig(data=str(folder), **SETTINGS), load(str(folder)), "cpu")
    weights = initial_weights(784, 2, 2, 10, seed=0)
    return to_bytes(weights, {"log": json.dumps([header, RECORDS[0]])})


def resume(out: Path, folder: Path) -> int:
    """Look into a folder as a command with --resume does. Return its status."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
    run = Run("torch", [*words, "--data", str(folder), "--out", str(out), "--resume"])
    try:
        with run:
            raise SystemExit(0)  # so that the run is not finished
    except SystemExit as stop:
        return stop.code


@given(content=st.data())
@FEW
def test_a_checkpoint_of_any_bytes(tmp_path, folder, checkpoint, content):
    log = JSON.map(lambda log: to_bytes(RAW_WEIGHTS, {"log": json.dumps(log)}))
    of_any_bytes = content.draw(mutated(checkpoint) | log)
    for path in (tmp_path / "unfinished" / CHECKPOINT, tmp_path / WEIGHTS):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(of_any_bytes)
        assert resume(tmp_path, folder) in (0, 2)
        path.write_bytes(checkpoint)
        assert resume(tmp_path, folder) == 0
        path.unlink()


@pytest.mark.parametrize("file", list(FILES)[:2])
@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzipped"])
@given(content=st.data())
@FEW
def test_a_data_file_of_any_bytes(folder, file: str, zipped: bool, content):
    path = folder / file
    valid = path.read_bytes()
    try:
        path.write_bytes(content.draw(mutated(gzip.compress(valid, mtime=0) if zipped else valid)))
        assert "\n" not in refusal(lambda _: load(str(folder)), path)
    finally:
        path.write_bytes(valid)
