"""Keras 3 as its documentation shows it, on the framework that KERAS_BACKEND names."""

import keras
from keras import layers

from benchmarks.programs import LR, RATES, Run
from shared.data import load, to_inputs


def epoch(data: str = "auto", device: str = "cpu") -> Run:
    """Sequential, compile, fit; Keras takes the device that the process sees."""
    held = load(data)
    images, labels = to_inputs(held.train_images), held.train_labels
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
