"""The same training in Keras 3, written as in its documentation."""

import os

from benchmarks.programs import Run, Setting


def epoch(setting: Setting, backend: str) -> Run:
    """An epoch of `fit`. Keras has no flag for the device and uses a GPU if it sees one."""
    os.environ["KERAS_BACKEND"] = backend  # read when Keras is imported
    import keras
    from keras import layers

    images, labels, *_ = setting.arrays()
    model = keras.Sequential(
        [
            layers.Input((784,)),
            layers.Dense(256, activation="relu"), layers.Dropout(setting.p1),
            layers.Dense(256, activation="relu"), layers.Dropout(setting.p2),
            layers.Dense(10),
        ]
    )  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(setting.lr), loss, metrics=["accuracy"])

    def run(_: int) -> None:
        model.fit(images, labels, batch_size=256, epochs=1, verbose=0)

    return run
