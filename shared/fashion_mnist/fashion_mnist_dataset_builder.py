"""A builder that works without TensorFlow, which TFDS's own `fashion_mnist` needs."""

from pathlib import Path
from typing import ClassVar

import numpy as np
import tensorflow_datasets as tfds

from shared.idx import FILES, FULL_SHA256, URL, read_files, read_folder


class Builder(tfds.core.GeneratorBasedBuilder):
    """Fashion-MNIST, images uint8 (28, 28, 1) and labels int64, in the original order.

    Create it with `file_format="array_record"` and read it with `as_data_source`. These two, and an
    image feature that is a plain tensor, work without TensorFlow.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES: ClassVar = {"1.0.0": "First release."}
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Optional: put the four IDX files here, gzipped or not."

    def _info(self) -> tfds.core.DatasetInfo:
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(28, 28, 1), dtype=np.uint8),
                    "label": tfds.features.ClassLabel(num_classes=10),
                }
            ),
            supervised_keys=("image", "label"),
            homepage="https://github.com/zalandoresearch/fashion-mnist",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager):
        """Read the files from the manual folder, or download them if there is none."""
        try:
            folder = Path(dl_manager.manual_dir)
        except AssertionError:  # no such folder, or nothing in it
            paths = dl_manager.download({file: f"{URL}{file}.gz" for file in FILES})
            data = read_files(paths, name="download", sha256=FULL_SHA256)
        else:
            data = read_folder(folder, name=str(folder), sha256=FULL_SHA256)
        return {
            "train": self._generate_examples(data.train_images, data.train_labels),
            "test": self._generate_examples(data.test_images, data.test_labels),
        }

    def _generate_examples(self, images: np.ndarray, labels: np.ndarray):
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            yield i, {"image": image[:, :, None], "label": int(label)}
