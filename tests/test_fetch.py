"""Fetching the data, also from bad servers, onto full disks, and in processes that are killed."""

import contextlib
import gzip
import hashlib
import http.server
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest

from shared import data, fetch
from shared.checks import InputError
from shared.data import load
from shared.fashion_mnist import fashion_mnist_dataset_builder as builder
from shared.idx import FILES, FULL_SHA256, URL, Data, read_folder, write_folder

ROOT = Path(__file__).parents[1]
LARGEST = f"{FILES[0]}.gz"  # it is the last that is asked for

# tensorflow-datasets needs packages that use deprecated functions.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def nowhere(monkeypatch, tmp_path):
    """A machine without the data: no variable, an empty cache, no package, no network, no apt."""
    monkeypatch.delenv(data.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "PACKAGE_FOLDER", tmp_path / "no-package")
    monkeypatch.setattr(fetch, "CHECKSUMS", tmp_path / "checksums.tsv")
    real = (ROOT / "shared/fashion_mnist/checksums.tsv").read_text()
    # The discard port: refused.
    fetch.CHECKSUMS.write_text(real.replace(URL, "http://127.0.0.1:9/"))
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """200 training and 100 test images of the sample, as a folder of four IDX files."""
    folder = tmp_path_factory.mktemp("published")
    sample = load("sample")
    train, test = slice(200), slice(100)
    arrays = (sample.train_images[train], sample.train_labels[train])
    arrays += (sample.test_images[test], sample.test_labels[test])
    write_folder(folder, Data(*arrays, name="published"))
    return folder


def sha256_of(folder):
    return {f: hashlib.sha256((folder / f).read_bytes()).hexdigest() for f in FILES}


def in_cache():
    return sorted(path.name for path in data.cache_folder().iterdir())


class Answer(http.server.BaseHTTPRequestHandler):
    """A request to the mirror. What it sends is up to the server's `answers`."""

    def do_GET(self):
        name = self.path.rsplit("/", 1)[-1]
        self.server.requests[name] += 1
        with contextlib.suppress(OSError):  # the client is gone
            self.server.answers.get(name, whole)(self, self.server.files[name])

    def goes_on(self, pause):
        """Wait, and return whether to send more: not after the test, and not for ever."""
        stopped = self.server.stopped.wait(pause)
        return not stopped and time.monotonic() < self.server.started + 5

    def start(self, length):
        self.send_response(200)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def send(self, content):
        self.wfile.write(content)
        self.server.sent += len(content)

    def log_message(self, *_):
        pass


def whole(answer, content):
    answer.start(len(content))
    answer.send(content)


def silent(answer, content):
    answer.goes_on(5)


def stalls(answer, content):
    answer.start(len(content))
    answer.send(content[:1000])
    answer.goes_on(5)


def drips(answer, content):
    answer.start(len(content))
    for i in range(len(content)):
        answer.send(content[i : i + 1])
        if not answer.goes_on(0.02):
            break


def drips_headers(answer, content):
    answer.send(b"HTTP/1.0 200 OK\r\n")
    while answer.goes_on(0.02):
        answer.send(b"X")


def never_ends(answer, content):
    answer.start(None)
    while answer.goes_on(0):
        answer.send(bytes(2**16))


def never_ends_and_says_so(answer, content):
    answer.start(10**15)
    while answer.goes_on(0):
        answer.send(bytes(2**16))


def goes_on_after_the_end(answer, content):
    answer.start(len(content))
    answer.send(content[:-1] + b"!")
    while answer.goes_on(0):
        answer.send(bytes(2**16))


def ends_early(answer, content):
    answer.start(len(content))
    answer.send(content[:1000])


def fails(answer, content):
    answer.send_error(500)


class Mirror(http.server.ThreadingHTTPServer):
    """The four gzipped files of a folder on the loopback interface."""

    def __init__(self, folder):
        super().__init__(("127.0.0.1", 0), Answer)
        self.files = {f"{f}.gz": gzip.compress((folder / f).read_bytes()) for f in FILES}
        self.answers: dict[str, Callable] = {}
        self.requests: Counter[str] = Counter()
        self.sent = 0  # bytes of bodies
        self.started, self.stopped = time.monotonic(), threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


@pytest.fixture
def mirror(nowhere, monkeypatch, published):
    """A mirror of the small data, with its checksums in place of the pinned ones."""
    server = Mirror(published)
    url = f"http://127.0.0.1:{server.server_port}/"
    fetch.CHECKSUMS.write_text(
        "".join(
            f"{url}{name}\t{len(content)}\t{hashlib.sha256(content).hexdigest()}\t{name}\n"
            for name, content in server.files.items()
        )
    )
    for module in (data, fetch, builder):
        monkeypatch.setattr(module, "FULL_SHA256", sha256_of(published))
    monkeypatch.setattr(fetch, "PAUSES", (0, 0))
    yield server
    server.stopped.set()
    server.shutdown()
    server.server_close()


def test_full_cannot_be_had(nowhere):
    started = time.perf_counter()
    with pytest.raises(InputError, match=r"cannot download http.*refused"):
        load("full")
    assert time.perf_counter() - started < 5


def test_auto_falls_back_with_a_notice_no_one_can_miss(nowhere, capsys):
    loaded = load("auto")
    assert len(loaded.train_images) == 10_240
    assert loaded.name == "sample"
    notice = capsys.readouterr().err
    assert notice.count("!" * 78) == 2
    for word in ("SAMPLE", "cannot download", "no apt-get", "apt-get install"):
        assert word in notice
    assert data.FOLDER_VARIABLE in notice


@pytest.mark.parametrize("proxy", ["http://localhost:abc", "nonsense", "http://.x:1"])
def test_a_broken_proxy_is_one_more_reason_for_the_sample(nowhere, monkeypatch, capsys, proxy):
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies
    monkeypatch.setenv("http_proxy", proxy)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert load("auto").name == "sample"
    assert "SAMPLE" in capsys.readouterr().err


def test_full_downloads_once_and_then_reads_its_cache(mirror, published, capsys):
    expected = read_folder(published, name="published")
    loaded = load("full")
    np.testing.assert_array_equal(loaded.train_images, expected.train_images)
    np.testing.assert_array_equal(loaded.test_labels, expected.test_labels)
    assert mirror.requests == {f"{f}.gz": 1 for f in FILES}
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == (
        f"Fashion-MNIST: fetched with tensorflow-datasets, kept in {data.cache_folder()}\n"
    )
    assert in_cache() == ["idx", "lock"]  # what tensorflow-datasets worked with is gone
    mirror.answers = {f"{f}.gz": fails for f in FILES}
    np.testing.assert_array_equal(load("full").train_images, expected.train_images)


def test_a_download_of_other_bytes_is_refused(mirror, capsys):
    name = f"{FILES[3]}.gz"
    mirror.files[name] = mirror.files[name][:-1] + b"!"
    with pytest.raises(InputError, match=r"tensorflow-datasets: what .* SHA-256 differs"):
        load("full")
    assert load("auto").name == "sample"
    assert "SAMPLE" in capsys.readouterr().err


def test_what_was_prepared_is_checked(mirror, monkeypatch):
    real = builder.Builder._generate_examples
    monkeypatch.setattr(
        builder.Builder, "_generate_examples", lambda self, x, y: real(self, 255 - x, y)
    )
    with pytest.raises(InputError, match="what was prepared is not train-images"):
        load("full")


@pytest.mark.parametrize(
    ("answer", "reason", "sent"),
    [
        (silent, "did not answer in 0.7 s", 0),
        (drips_headers, "did not answer in 0.7 s", 100),
        (stalls, "sent nothing for 1 s", 1000),
        (drips, r"is too slow: \d+ of [\d,]+ bytes came before the 1.2 s for all files", 100),
        (never_ends, r"does not have [\d,]+ bytes, but None", 20_000_000),
        (never_ends_and_says_so, r"does not have [\d,]+ bytes, but 1000000000000000", 20_000_000),
        (goes_on_after_the_end, "SHA-256 differs", 20_000_000),
        (ends_early, r"ended after 1,000 of [\d,]+ bytes", 1000),
        (fails, "HTTP Error 500", 0),
    ],
)  # fmt: skip
def test_a_bad_server_is_given_up_soon_and_what_it_sent_is_not_kept(
    mirror, monkeypatch, answer, reason, sent
):
    for name, seconds in (("ANSWER", 0.7), ("SILENCE", 1), ("ALL_FILES", 1.2)):
        monkeypatch.setattr(fetch, name, seconds)
    others = sum(len(content) for name, content in mirror.files.items() if name != LARGEST)
    mirror.answers[LARGEST] = answer
    started = time.perf_counter()
    with pytest.raises(InputError, match=reason) as error:
        load("full")
    assert time.perf_counter() - started < 4
    assert "\n" not in str(error.value)
    # The operating systems at both ends take more than is read.
    assert others <= mirror.sent <= others + sent
    # What was whole stays, and is not asked for again.
    assert in_cache() == ["downloads", "lock"]
    kept = {path.name: path.read_bytes() for path in (data.cache_folder() / "downloads").iterdir()}
    assert kept == {name: content for name, content in mirror.files.items() if name != LARGEST}
    mirror.answers.clear()
    mirror.requests.clear()
    load("full")
    assert mirror.requests == {LARGEST: 1}
    assert in_cache() == ["idx", "lock"]


def test_errors_of_the_server_that_pass_are_survived(mirror):
    left = [fails, fails, whole]
    mirror.answers[LARGEST] = lambda *arguments: left.pop(0)(*arguments)
    load("full")
    assert mirror.requests[LARGEST] == 3


def test_all_waits_for_a_broken_server_are_short():
    assert sum(fetch.PAUSES) + fetch.ANSWER * (len(fetch.PAUSES) + 1) < 60
    assert fetch.SILENCE <= 60
    assert fetch.ALL_FILES <= 900


def test_a_damaged_download_is_fetched_again(mirror):
    mirror.answers[LARGEST] = fails
    with pytest.raises(InputError):
        load("full")
    damaged = data.cache_folder() / "downloads" / f"{FILES[2]}.gz"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    mirror.answers.clear()
    mirror.requests.clear()
    load("full")
    assert mirror.requests == {LARGEST: 1, damaged.name: 1}


@contextlib.contextmanager
def largest_file(size):
    """A disk that has no room for a file of more bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_no_room(mirror, capsys):
    """The reason is told, whether there is no room for a download or for what is prepared."""
    size = len(mirror.files[LARGEST])
    for room, reason in (
        (size - 1, r"cannot write .*: File too large"),
        (size, r"cannot prepare .*: File too large"),
    ):
        with largest_file(room), pytest.raises(InputError, match=reason) as error:
            load("full")
        assert "\n" not in str(error.value)
        assert capsys.readouterr() == ("", "")
        assert in_cache() == ["downloads", "lock"]
    mirror.requests.clear()
    load("full")
    assert mirror.requests == {}
    assert in_cache() == ["idx", "lock"]


def test_no_room_for_the_copy(mirror, capsys):
    data.cache_folder().mkdir(parents=True)
    (data.cache_folder() / "idx").touch()  # not a folder
    for _ in range(2):
        assert load("full").name == "full"
        assert capsys.readouterr().err.endswith(f", cannot be kept in {data.cache_folder()}\n")
    assert set(mirror.requests.values()) == {1}


def test_a_cache_that_cannot_be_written(mirror, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert load("full").name == "full"


PROCESS = """
import json, os, signal, sys, time
from pathlib import Path
from shared import data, fetch
from shared.cli import one_line_errors
from shared.fashion_mnist import fashion_mnist_dataset_builder as builder

checksums, sha256, waits_in = sys.argv[1:]
signal.signal(signal.SIGINT, signal.default_int_handler)  # as in a shell
os.getpid = lambda: 7  # as in containers, where all have the same
fetch.CHECKSUMS, data.PACKAGE_FOLDER = Path(checksums), Path("/nowhere")
for module in (data, fetch, builder):
    module.FULL_SHA256 = json.loads(sha256)

def wait(*arguments):
    Path(waits_in).touch()
    time.sleep(60)
    yield

if waits_in:
    builder.Builder._generate_examples = wait
with one_line_errors():
    print(data.load("full").summary)
"""


def process(waits_in=""):
    """Start a process that loads the full data. It makes the file `waits_in`, and then waits."""
    sha256 = json.dumps(data.FULL_SHA256)
    command = [sys.executable, "-c", PROCESS, str(fetch.CHECKSUMS), sha256, str(waits_in)]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)


@pytest.mark.parametrize("phase", ["download", "prepare"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_stopped_process_leaves_nothing_that_stays(mirror, tmp_path, number, phase):
    if phase == "download":
        mirror.answers[LARGEST] = stalls
    waits_in = tmp_path / "waits" if phase == "prepare" else ""
    stopped = process(waits_in)
    while not (waits_in.exists() if waits_in else mirror.requests[LARGEST]):
        assert stopped.poll() is None, stopped.communicate()
        time.sleep(0.01)
    assert psutil.Process(stopped.pid).children() == []  # so that nobody survives
    stopped.send_signal(number)
    said = stopped.communicate(timeout=10)
    if number == signal.SIGINT:
        assert (stopped.returncode, said) == (130, ("", "\nstopped\n"))
        assert in_cache() == ["downloads", "lock"]
    else:
        assert (stopped.returncode, said) == (-number, ("", ""))
    mirror.answers.clear()
    mirror.requests.clear()
    load("full")
    assert mirror.requests == ({LARGEST: 1} if phase == "download" else {})
    assert in_cache() == ["idx", "lock"]


def test_one_process_prepares_and_the_others_read(mirror):
    processes = [process() for _ in range(3)]
    said = [one.communicate(timeout=60) for one in processes]
    assert [out for out, _ in said] == ["full: 200 + 100 images\n"] * 3
    assert sum("fetched with tensorflow-datasets" in err for _, err in said) == 1
    assert set(mirror.requests.values()) == {1}
    assert in_cache() == ["idx", "lock"]


def test_what_a_killed_process_wrote_is_removed(mirror):
    cache = data.cache_folder()
    for folder in ("idx", "downloads"):
        (cache / folder).mkdir(parents=True)
        (cache / folder / f".{FILES[0]}.abc.unfinished").touch()
    (cache / f"{fetch.WORK}abc" / "folder").mkdir(parents=True)
    mirror.answers[f"{FILES[-1]}.gz"] = fails
    with pytest.raises(InputError):
        load("full")
    assert [path for path in cache.rglob("*") if path.is_file()] == [cache / "lock"]
    assert in_cache() == ["downloads", "idx", "lock"]


def test_the_builder_downloads_by_itself(mirror, monkeypatch, tmp_path):
    from tensorflow_datasets.core.download import checksums

    monkeypatch.setattr(builder, "URL", f"http://127.0.0.1:{mirror.server_port}/")
    infos = checksums.load_url_infos(fetch.CHECKSUMS)
    monkeypatch.setattr(builder.Builder, "url_infos", infos)
    prepared = builder.Builder(data_dir=tmp_path / "tfds", file_format="array_record")
    prepared.download_and_prepare()
    assert len(prepared.as_data_source("train")) == 200


@pytest.fixture
def apt(nowhere, monkeypatch, tmp_path, published):
    """An apt-get that gives Debian's package with the small data in it, and the real dpkg-deb."""
    if not (dpkg := shutil.which("dpkg-deb", path=os.defpath)):
        pytest.skip("not a Debian machine: there is no dpkg-deb")
    package = tmp_path / "package"
    shutil.copytree(published, package / "usr/share/not-installed")
    (package / "DEBIAN").mkdir()
    (package / "DEBIAN/control").write_text(
        f"Package: {fetch.PACKAGE}\nVersion: 1\nArchitecture: all\n"
        "Maintainer: nobody <nobody@example.org>\nDescription: small\n"
    )
    programs = tmp_path / "programs"
    programs.mkdir()
    file = programs / "small_1_all.deb"
    env = {"PATH": os.defpath}
    subprocess.run([dpkg, "--build", package, file], check=True, capture_output=True, env=env)
    script = programs / "apt-get"
    script.write_text(f'#!/bin/sh\n[ "$*" = "download {fetch.PACKAGE}" ] && cp {file} .\n')
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.defpath}")
    for module in (data, fetch):
        monkeypatch.setattr(module, "PACKAGE_FOLDER", Path("/usr/share/not-installed"))
        monkeypatch.setattr(module, "FULL_SHA256", sha256_of(published))
    return script


def test_the_package_is_fetched_without_installing_it(apt, published, capsys):
    expected = read_folder(published, name="published")
    loaded = load("full")
    np.testing.assert_array_equal(loaded.train_images, expected.train_images)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "fetched with apt-get download dataset-fashion-mnist" in said
    apt.unlink()  # from now on there is only the cache
    assert load("full").name == "full"
    assert capsys.readouterr().err == ""


def test_a_package_of_other_bytes_is_refused(apt, monkeypatch):
    monkeypatch.setattr(fetch, "FULL_SHA256", FULL_SHA256)
    with pytest.raises(InputError, match="SHA-256 differs"):
        load("full")


def test_a_failing_apt_gives_its_reason(apt):
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    with pytest.raises(InputError, match=r"apt-get download .*: E: Unable to locate package"):
        load("full")
