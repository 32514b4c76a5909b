"""Where the data comes from, and what is refused."""

import gzip
import hashlib
import itertools
import os
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from shared import data, idx
from shared.checks import InputError
from shared.config import Config
from shared.data import load, to_arrays, to_inputs
from shared.files import open_regular
from shared.idx import FILES, FULL_SHA256, URL
from shared.memory import check_run


def write_idx(folder, train, test, compress=False):
    folder.mkdir(exist_ok=True)
    arrays = (*train, *test)
    for file, array in zip(FILES, arrays, strict=True):
        header = np.array([0x800 + array.ndim, *array.shape], ">u4").tobytes()
        content = header + array.astype(np.uint8).tobytes()
        path = folder / (f"{file}.gz" if compress else file)
        path.write_bytes(gzip.compress(content) if compress else content)


def tiny(n=4, side=28):
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (n, side, side), np.uint8), np.arange(n) % 10


def test_full(full_data):
    assert full_data.train_images.shape == (60_000, 28, 28)
    assert full_data.test_images.shape == (10_000, 28, 28)
    assert full_data.train_images.dtype == full_data.test_images.dtype == np.uint8
    assert full_data.train_labels.dtype == full_data.test_labels.dtype == np.int64
    assert np.bincount(full_data.train_labels).tolist() == [6_000] * 10
    assert np.bincount(full_data.test_labels).tolist() == [1_000] * 10
    assert full_data.train_labels[:5].tolist() == [9, 0, 0, 3, 0]


def test_full_loads_in_half_a_second_after_first_use(full_data):
    def seconds():
        started = time.perf_counter()
        load("full")
        return time.perf_counter() - started

    assert min(seconds() for _ in range(3)) < 0.5


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
        np.testing.assert_array_equal(getattr(sample, f"{split}_labels"), labels[chosen])
        np.testing.assert_array_equal(
            getattr(sample, f"{split}_images"), getattr(full_data, f"{split}_images")[chosen]
        )
    assert "Zalando" in (data.SAMPLE / "LICENSE").read_text()


def test_sample_has_no_short_last_batch_and_equally_many_of_each_class():
    sample = load("sample")
    assert len(sample.train_images) % 256 == 0
    assert np.bincount(sample.train_labels).tolist() == [1_024] * 10
    assert np.bincount(sample.test_labels).tolist() == [200] * 10


def test_inputs_are_float32_from_0_to_1():
    images = np.array([0, 51, 255, 255], np.uint8).reshape(1, 2, 2)
    inputs = to_inputs(images)
    assert inputs.dtype == np.float32
    np.testing.assert_array_equal(inputs, np.float32([[0, 51 / 255, 1, 1]]))


def test_arrays_for_a_network(small_data):
    train, train_labels, test, test_labels = to_arrays(small_data, "float64")
    assert (train.shape, test.shape) == ((600, 784), (200, 784))
    assert train.dtype == test.dtype == np.float64
    np.testing.assert_array_equal(train, to_inputs(small_data.train_images))  # the same numbers
    np.testing.assert_array_equal(train_labels, small_data.train_labels)
    np.testing.assert_array_equal(test_labels, small_data.test_labels)


@pytest.mark.parametrize("compress", [False, True])
def test_a_folder(tmp_path, compress: bool):
    write_idx(tmp_path, tiny(5), tiny(3), compress)
    loaded = load(str(tmp_path))
    np.testing.assert_array_equal(loaded.train_images, tiny(5)[0])
    np.testing.assert_array_equal(loaded.test_labels, tiny(3)[1])
    assert loaded.summary == f"{tmp_path}: 5 + 3 images"


def test_bad_folders(tmp_path):
    def refused(complaint):
        with pytest.raises(InputError, match=complaint):
            load(str(tmp_path))

    refused("no train-images-idx3-ubyte or train-images-idx3-ubyte.gz in the folder")
    write_idx(tmp_path, tiny(5), tiny(3))
    good = (tmp_path / FILES[0]).read_bytes()
    for content, complaint in (
        (good[:-1], "says that its shape is"),
        (b"\0\0\x08\x01" + good[4:], "not an IDX file of 3 dimensions"),
        (b"", "not an IDX file"),
        (gzip.compress(good)[:-9], "cannot read"),
        (b"\x1f\x8b" + good, "cannot read"),
    ):
        (tmp_path / FILES[0]).write_bytes(content)
        refused(complaint)
    write_idx(tmp_path, (tiny(5)[0], tiny(4)[1]), tiny(3))
    refused("5 images but 4 labels")
    write_idx(tmp_path, tiny(0), tiny(3))
    refused(r"says that its shape is \(0, 28, 28\)")
    write_idx(tmp_path, tiny(5), tiny(3, side=14))
    refused("different sizes")
    write_idx(tmp_path, (tiny(5)[0][:, :20], tiny(5)[1]), tiny(3))
    refused("not square")
    write_idx(tmp_path, (tiny(5)[0], tiny(5)[1] + 6), tiny(3))
    refused("has the label 10; labels must be 0 to 9")


def test_full_refuses_other_data(monkeypatch, tmp_path):
    write_idx(tmp_path / "other", tiny(5), tiny(3))
    monkeypatch.setenv(data.FOLDER_VARIABLE, str(tmp_path / "other"))
    for source in ("full", "auto"):  # auto, too: the user said where the data is
        with pytest.raises(InputError, match=f"{data.FOLDER_VARIABLE} is .*SHA-256 differs"):
            load(source)


def test_the_variable_names_the_folder(full_data, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv(data.FOLDER_VARIABLE, "/usr/share/datasets/fashion-mnist")
    np.testing.assert_array_equal(load("full").test_images, full_data.test_images)


def test_auto_takes_the_full_data_without_a_word(full_data, capsys):
    assert load("auto").name == full_data.name == "full"
    assert capsys.readouterr() == ("", "")


def test_a_damaged_cache_is_made_again(full_data, monkeypatch, tmp_path):
    monkeypatch.delenv(data.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    load("full")
    cached = tmp_path / "dropout-three-ways" / "idx" / FILES[1]
    good = cached.read_bytes()
    cached.write_bytes(good[:-1] + b"\0")
    np.testing.assert_array_equal(load("full").train_labels, full_data.train_labels)
    assert cached.read_bytes() == good


def test_resize_is_pillow_s_bilinear(small_data, small_folder):
    resized = load(str(small_folder), resize=14)
    assert resized.train_images.shape == (600, 14, 14)
    assert resized.test_images.dtype == np.uint8
    expected = Image.fromarray(small_data.test_images[3]).resize((14, 14), Image.BILINEAR)
    np.testing.assert_array_equal(resized.test_images[3], np.asarray(expected))


# tensorflow-datasets without TensorFlow. The packages that it needs use deprecated functions.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_builder_prepares_from_a_local_folder(monkeypatch, tmp_path, small_data, small_folder):
    import tensorflow_datasets as tfds

    from shared.fashion_mnist import fashion_mnist_dataset_builder as module

    expected = {f: hashlib.sha256((small_folder / f).read_bytes()).hexdigest() for f in FILES}
    monkeypatch.setattr(module, "FULL_SHA256", expected)
    builder = module.Builder(data_dir=tmp_path / "tfds", file_format="array_record")
    builder.download_and_prepare(
        download_config=tfds.download.DownloadConfig(manual_dir=small_folder)
    )
    source = builder.as_data_source("train")
    examples = source.__getitems__(range(len(source)))
    np.testing.assert_array_equal(
        np.stack([e["image"][:, :, 0] for e in examples]), small_data.train_images
    )
    assert [e["label"] for e in examples] == small_data.train_labels.tolist()


def test_the_pinned_checksums_are_complete():
    from shared.fashion_mnist.fashion_mnist_dataset_builder import Builder

    assert set(Builder.url_infos) == {f"{URL}{file}.gz" for file in FILES}
    assert len(FULL_SHA256) == 4


def test_no_more_is_read_than_a_file_says(small_folder, tmp_path, monkeypatch):
    """A gzipped file that unfolds to 300 MB more than its header says is refused at once."""
    folder = shutil.copytree(small_folder, tmp_path / "bomb")
    name = FILES[1]
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    zipped = gzip.compress(content + bytes(300_000_000), compresslevel=9)
    (folder / f"{name}.gz").write_bytes(zipped)
    asked = []
    real = idx._Gunzip.read
    monkeypatch.setattr(idx._Gunzip, "read", lambda self, n: asked.append(n) or real(self, n))
    with pytest.raises(InputError, match=r"shape is \(600,\), but it has more bytes"):
        load(str(folder))
    assert asked == [8, 601]


def test_several_gzip_members_are_one_file_but_empty_ones_are_refused(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "members")
    name = FILES[1]
    content = (folder / name).read_bytes()
    (folder / name).unlink()
    members = gzip.compress(content[:100]) + gzip.compress(content[100:])
    (folder / f"{name}.gz").write_bytes(members)
    assert len(load(str(folder)).train_labels) == 600
    (folder / f"{name}.gz").write_bytes(gzip.compress(b"") * 100_000 + members)
    started = time.monotonic()
    with pytest.raises(InputError, match="empty gzip member"):
        load(str(folder))
    assert time.monotonic() - started < 1


def test_sparse_files_and_pipes_are_not_read(small_folder, tmp_path):
    folder = shutil.copytree(small_folder, tmp_path / "sparse")
    with (folder / FILES[0]).open("r+b") as file:
        file.truncate(2**40)  # a terabyte of nothing
    with pytest.raises(InputError, match="but it has more bytes"):
        load(str(folder))
    (folder / FILES[0]).unlink()
    os.mkfifo(folder / FILES[0])
    with pytest.raises(InputError, match="no train-images"):
        load(str(folder))
    with pytest.raises(OSError, match="not a regular file"):
        open_regular(folder / FILES[0])


def test_what_does_not_fit_into_memory_is_refused_before(small_data, monkeypatch):
    config = Config(hidden_1=1_000_000, hidden_2=1_000_000)
    with pytest.raises(InputError, match=r"1,000,000 hidden units would need .* GiB"):
        check_run(config, 60_000, 10_000, 28)
    check_run(Config(), 600, 200, 28)
    monkeypatch.setattr(data, "resize_images", pytest.fail)
    with pytest.raises(InputError, match="12,240 images of 16384 x 16384 would need"):
        load("sample", resize=16384)


@pytest.mark.parametrize("value", ["relative", ""])
def test_the_cache_is_never_in_the_working_directory(monkeypatch, value):
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    monkeypatch.setenv("HOME", "")
    assert data.cache_folder().is_absolute()
