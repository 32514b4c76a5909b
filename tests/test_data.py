"""Where the data comes from, and what is refused."""

import contextlib
import gzip
import hashlib
import http.server
import itertools
import shutil
import sys
import threading
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pooch
import pytest
from PIL import Image

from shared import data
from shared.checks import InputError
from shared.data import FILES, Data, load, to_arrays, to_inputs
from tests.conftest import small, write_folder

IMAGES, LABELS, TEST_IMAGES, TEST_LABELS = FILES
# tensorflow-datasets needs packages that use deprecated functions.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


def test_full(full_data):
    assert full_data.train_images.shape == (60_000, 28, 28)
    assert full_data.test_images.shape == (10_000, 28, 28)
    assert full_data.train_images.dtype == full_data.test_images.dtype == np.uint8
    assert full_data.train_labels.dtype == full_data.test_labels.dtype == np.int64
    assert np.bincount(full_data.train_labels).tolist() == [6_000] * 10
    assert np.bincount(full_data.test_labels).tolist() == [1_000] * 10
    assert full_data.train_labels[:5].tolist() == [9, 0, 0, 3, 0]


def test_sample_is_the_first_of_each_class(full_data):
    # Training: the first 1,000 of each class in their original order, then the next 24.
    sample = load("sample")
    for split, parts in (("train", (0, 1_000, 1_024)), ("test", (0, 200))):
        labels = getattr(full_data, f"{split}_labels")
        chosen = np.concatenate(
            [
                np.sort(np.concatenate([np.flatnonzero(labels == c)[a:b] for c in range(10)]))
                for a, b in itertools.pairwise(parts)
            ]
        )
        for what in ("labels", "images"):
            theirs = getattr(full_data, f"{split}_{what}")[chosen]
            np.testing.assert_array_equal(getattr(sample, f"{split}_{what}"), theirs)


def test_sample_has_no_short_last_batch_and_equally_many_of_each_class():
    sample = load("sample")
    assert sample.images == "10,240 + 2,000"
    assert len(sample.train_images) % 256 == 0
    assert np.bincount(sample.train_labels).tolist() == [1_024] * 10
    assert np.bincount(sample.test_labels).tolist() == [200] * 10
    assert "Zalando" in (data.SAMPLE / "LICENSE").read_text()


def test_arrays_for_a_network(small_data):
    pixels = np.array([0, 51, 255, 255], np.uint8).reshape(1, 2, 2)
    assert to_inputs(pixels).dtype == np.float32
    np.testing.assert_array_equal(to_inputs(pixels), np.float32([[0, 51 / 255, 1, 1]]))
    train, train_labels, test, test_labels = to_arrays(small_data, "float64")
    assert (train.shape, test.shape) == ((600, 784), (200, 784))
    assert train.dtype == test.dtype == np.float64
    np.testing.assert_array_equal(train, to_inputs(small_data.train_images))  # the same numbers
    np.testing.assert_array_equal(train_labels, small_data.train_labels)
    np.testing.assert_array_equal(test_labels, small_data.test_labels)


def test_resize_is_pillow_s_bilinear(small_data, small_folder):
    resized = load(str(small_folder), resize=14)
    assert resized.train_images.shape == (600, 14, 14)
    assert resized.test_images.dtype == np.uint8
    expected = Image.fromarray(small_data.test_images[3]).resize((14, 14), Image.BILINEAR)
    np.testing.assert_array_equal(resized.test_images[3], np.asarray(expected))


def equal(a: Data, b: Data) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("train_images", "train_labels", "test_images", "test_labels")
    )


@pytest.mark.parametrize(
    "named",
    [lambda name: name, lambda name: f"{name}.gz", lambda name: f"{name}.GZ",
     lambda name: name.replace("-idx", ".idx"), lambda name: f"{name.replace('-idx', '.idx')}.gz"],
    ids=["plain", "gz", "GZ", "dotted", "dotted gz"],
)  # fmt: skip
def test_a_folder(small_data, small_folder, named, monkeypatch):
    for path in list(small_folder.iterdir()):
        content = path.read_bytes()
        path.unlink()
        name = named(path.name)
        content = gzip.compress(content) if name.lower().endswith("gz") else content
        (small_folder / name).write_bytes(content)
    loaded = load(str(small_folder))
    assert equal(loaded, small_data)
    assert (loaded.name, loaded.images) == (str(small_folder), "600 + 200")
    monkeypatch.chdir(small_folder)
    assert load(".").name == str(small_folder)  # a log has to name it from wherever it is read


def test_data_is_known_by_its_sha256(small_folder):
    before = load(str(small_folder)).sha256
    zipped = small_folder / f"{LABELS}.gz"
    zipped.write_bytes(gzip.compress((small_folder / LABELS).read_bytes()))
    (small_folder / LABELS).unlink()
    assert load(str(small_folder)).sha256 == before
    zipped.unlink()
    names = ("train_images", "train_labels", "test_images", "test_labels")
    digests = {before}
    for name in names:
        changed = getattr(small(), name).copy()
        changed.flat[-1] = 9 - changed.flat[-1] % 10
        write_folder(small_folder, small(**{name: changed}))
        digests.add(load(str(small_folder)).sha256)
    assert len(digests) == 1 + len(names)


def test_gzip_in_several_members_and_padded_with_zeros_is_read(small_data, small_folder):
    content = (small_folder / LABELS).read_bytes()
    members = gzip.compress(content[:100]) + gzip.compress(content[100:])
    (small_folder / LABELS).write_bytes(members + bytes(1000))
    assert equal(load(str(small_folder)), small_data)


def test_a_file_that_cannot_be_used_is_named(small_folder, tmp_path):
    path = small_folder / IMAGES
    good = path.read_bytes()
    for content, complaint in (
        (good[:-1], "says that its shape is (600, 28, 28), but 470,399 bytes follow"),
        (good + b"\0", "says that its shape is (600, 28, 28), but 470,401 bytes follow"),
        (good[:4] + bytes(4) + good[8:], "says that its shape is (0, 28, 28)"),
        (b"\0\0\x08\x01" + good[4:], "not an IDX file of 3 dimensions"),
        (b"\0\0\x0d\x03" + good[4:], "numbers of the IDX type 0x0D. Only 0x08"),
        (b"\x89PNG" + good[4:], "not an IDX file"),
        (b"", "not an IDX file"),
        (b"\0\0\x08", "not an IDX file"),
        (gzip.compress(good)[:-9], "cannot read"),
        (gzip.compress(good)[:5], "cannot read"),
        (b"\x1f\x8b" + good, "cannot read"),
    ):
        path.write_bytes(content)
        refused(small_folder, complaint)
        refused(small_folder, str(path))
    path.unlink()
    refused(small_folder, f"no {IMAGES} or {IMAGES}.gz in the folder")
    path.mkdir()
    refused(small_folder, f"{path} is a folder. If the file is in it, move it to {small_folder}")
    refused(tmp_path / "none", "No such file or directory. Data can be full, sample, auto, or a")
    refused(small_folder / LABELS, "Not a directory")


def refused(folder: Path, complaint: str) -> None:
    with pytest.raises(InputError) as caught:
        load(str(folder))
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_do_not_belong_together(tmp_path):
    good = small()
    images, labels = good.train_images, good.train_labels
    for changes, complaint in (
        ({"train_labels": labels[:-1]}, "has 600 images but 599 labels"),
        ({"train_images": images[:, :14, :14]}, "not of one size"),
        ({"train_images": images[:, :20]}, "not square"),
        ({"train_labels": labels + 1}, "has the label 10; labels must be 0 to 9"),
        ({"test_labels": good.test_labels + 1}, "has the label 10; labels must be 0 to 9"),
        ({"test_labels": good.test_labels[:-1]}, "has 200 images but 199 labels"),
        ({"test_images": good.test_images[:, :14, :14]}, "not of one size"),
    ):
        refused(write_folder(tmp_path / "folder", small(**changes)), complaint)


# The full data, from wherever it can be had. In these tests, it is small.


@pytest.fixture(scope="module")
def published(tmp_path_factory) -> tuple[Path, dict[str, bytes]]:
    """200 training and 100 test images: a folder, and its gzipped files."""
    of = small()
    few = {"train_images": of.train_images[:200], "train_labels": of.train_labels[:200],
           "test_images": of.test_images[:100], "test_labels": of.test_labels[:100]}  # fmt: skip
    folder = write_folder(tmp_path_factory.mktemp("published"), small(**few))
    return folder, {f: gzip.compress((folder / f).read_bytes(), mtime=0) for f in FILES}


@pytest.fixture
def nowhere(monkeypatch, tmp_path, published):
    """A machine without the data: no variable, an empty cache, no package, no network, no apt."""
    monkeypatch.delenv(data.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(data, "PACKAGE_FOLDER", tmp_path / "no-package")
    monkeypatch.setattr(data, "URL", "http://127.0.0.1:9/")  # the discard port: refused
    monkeypatch.setenv("PATH", str(tmp_path / "no-programs"))
    folder, zipped = published
    digests = {
        file: tuple(
            hashlib.sha256(c).hexdigest() for c in (zipped[file], (folder / file).read_bytes())
        )
        for file in FILES
    }
    monkeypatch.setattr(data, "FILES", digests)
    monkeypatch.setattr(pooch.core, "time", types.SimpleNamespace(sleep=lambda _: None))


class Mirror(http.server.ThreadingHTTPServer):
    """The gzipped files on the loopback interface. `answer` says what it does wrong."""

    def __init__(self, files: dict[str, bytes]) -> None:
        super().__init__(("127.0.0.1", 0), Request)
        self.files, self.answer = files, "whole"
        self.requests: Counter[str] = Counter()
        self.stopped = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()


class Request(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self):
        name = self.path.removeprefix("/").removesuffix(".gz")
        self.server.requests[name] += 1
        content, answer = self.server.files[name], self.server.answer
        if answer == "fails":
            self.send_error(500)
            return
        if answer == "silent":
            self.server.stopped.wait(5)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        with contextlib.suppress(OSError):  # the client is gone
            if answer == "wrong":
                content = content[:-1] + b"!"
            self.wfile.write(content[:50] if answer in ("short", "stalls") else content)
            if answer == "stalls":
                self.server.stopped.wait(5)

    def log_message(self, *_):
        pass


@pytest.fixture
def mirror(nowhere, monkeypatch, published):
    server = Mirror(published[1])
    monkeypatch.setattr(data, "URL", f"http://127.0.0.1:{server.server_port}/")
    yield server
    server.stopped.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def apt(nowhere, monkeypatch, tmp_path, published):
    """An apt-get that gives Debian's package with the small data in it, and a dpkg-deb."""
    programs = tmp_path / "programs"
    programs.mkdir()
    inside = str(data.PACKAGE_FOLDER).lstrip("/")
    for name, script in {
        "apt-get": f'[ "$*" = "download {data.PACKAGE}" ] && echo package > some_1_all.deb',
        "dpkg-deb": f'[ "$*" = "--extract some_1_all.deb ." ] || [ -f "$2" ] && mkdir -p {inside}'
        f" && cp {published[0]}/* {inside}",
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    return programs / "apt-get"


def test_a_folder_that_is_named_is_taken_or_refused(nowhere, monkeypatch, published, small_folder):
    monkeypatch.setenv(data.FOLDER_VARIABLE, str(published[0]))
    assert load("full").name == load("auto").name == "full"
    monkeypatch.setenv(data.FOLDER_VARIABLE, str(small_folder))
    for name in ("full", "auto"):  # auto, too: the user said where the data is
        with pytest.raises(InputError, match=f"{data.FOLDER_VARIABLE} is .*SHA-256 differs"):
            load(name)


def test_the_package_is_taken_where_it_is_installed(nowhere, monkeypatch, published, capsys):
    monkeypatch.setattr(data, "PACKAGE_FOLDER", published[0])
    assert len(load("auto").train_images) == 200
    assert capsys.readouterr() == ("", "")


def test_auto_falls_back_with_a_notice_no_one_can_miss(nowhere, capsys):
    assert load("auto").name == "sample"
    notice = capsys.readouterr().err
    assert notice.count("!" * 78) == 2
    for words in ("SAMPLE", f"cannot download {data.URL}", "apt-get download: ", "No such file",
                  "apt-get install dataset-fashion-mnist", data.FOLDER_VARIABLE):  # fmt: skip
        assert words in notice


def test_tensorflow_datasets_downloads_once_and_serves_from_then_on(mirror, published, capsys):
    expected = load(str(published[0]))
    loaded = load("full")
    assert equal(loaded, expected)
    assert (loaded.name, loaded.sha256) == ("full", expected.sha256)
    assert mirror.requests == dict.fromkeys(FILES, 1)
    mirror.answer = "fails"
    assert equal(load("full"), expected)
    assert equal(load("auto"), expected)
    assert mirror.requests == dict.fromkeys(FILES, 1)
    assert capsys.readouterr().out == ""
    assert not (data.cache_folder() / "downloads").exists()


@pytest.mark.parametrize(
    ("answer", "reason"),
    [("fails", "500 Server Error"), ("silent", "timed out"), ("stalls", "timed out"),
     ("short", "IncompleteRead"), ("wrong", "hash of downloaded file"), ("whole", "refused")],
)  # fmt: skip
def test_a_bad_server_is_one_reason_and_the_next_source_is_tried(
    mirror, apt, monkeypatch, published, answer, reason
):
    mirror.answer = answer
    monkeypatch.setattr(data, "SILENCE", 0.3)
    if answer == "whole":  # there is no server
        monkeypatch.setattr(data, "URL", "http://127.0.0.1:9/")
    package = apt.read_text()
    apt.write_text("#!/bin/sh\necho 'E: Unable to locate package' >&2\nexit 100\n")
    with pytest.raises(
        InputError, match=rf"tensorflow-datasets: cannot download http.*{reason}"
    ) as e:
        load("full")
    assert str(e.value).endswith("; apt-get download: E: Unable to locate package")
    assert "\n" not in str(e.value)
    apt.write_text(package)
    assert equal(load("full"), load(str(published[0])))
    if answer != "whole":
        mirror.answer = "whole"
        assert equal(load("full"), load(str(published[0])))  # what failed left nothing in the way


def test_what_was_interrupted_leaves_nothing_in_the_way(mirror, monkeypatch, published):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(data, "_download", interrupted)
        with pytest.raises(KeyboardInterrupt):
            load("full")
    assert equal(load("full"), load(str(published[0])))


@pytest.mark.parametrize("package", ["tensorflow_datasets", "pooch"])
@pytest.mark.parametrize("error", [ImportError, AttributeError, SystemError])
def test_a_package_that_cannot_be_imported_is_one_reason(
    nowhere, monkeypatch, capsys, package, error
):
    class Broken:
        @staticmethod
        def find_spec(name, *_):
            if name == package:
                raise error("of another version")

    monkeypatch.delitem(sys.modules, package, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Broken, *sys.meta_path])
    with pytest.raises(
        InputError, match=r"tensorflow-datasets: .*of another version.*pip install '"
    ):
        load("full")
    assert load("auto").name == "sample"
    assert "pip install '.[data]' brings what it needs" in capsys.readouterr().err


def test_the_package_is_fetched_without_installing_it(apt, published):
    expected = load(str(published[0]))
    assert equal(load("full"), expected)
    apt.write_text("#!/bin/sh\nexit 1\n")  # from now on there is only the cache
    assert equal(load("full"), expected)
    shutil.rmtree(data.cache_folder())
    with pytest.raises(InputError, match="apt-get download: "):
        load("full")


def test_a_package_of_other_bytes_is_refused(apt, monkeypatch):
    monkeypatch.setattr(data, "FILES", FILES)
    with pytest.raises(InputError, match=r"apt-get download: .* SHA-256 differs"):
        load("full")
