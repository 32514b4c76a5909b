"""The same training in Keras 3, written as in its documentation.

Keras computes with the framework that the environment variable KERAS_BACKEND names.
"""

import keras
from keras import layers

from benchmarks.programs import LR, RATES, Run, Setting, load_examples


def epoch(setting: Setting) -> Run:
    """An epoch of `fit`. Keras has no flag for the device and uses a GPU if it sees one."""
    images, labels, _ = load_examples(setting)
    model = keras.Sequential(
        [
            layers.Input((784,)),
            layers.Dense(256, activation="relu"), layers.Dropout(RATES[0]),
            layers.Dense(256, activation="relu"), layers.Dropout(RATES[1]),
            layers.Dense(10),
        ]
    )  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(LR), loss, metrics=["accuracy"])
    return lambda _: model.fit(images, labels, batch_size=256, epochs=1, verbose=0)
