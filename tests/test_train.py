"""train(): every example once, the same bytes for the same seed, and equality of the frameworks."""

import dataclasses
import itertools
import time

import jax
import numpy as np
import pytest
import torch

from shared.config import Config
from shared.data import to_inputs
from shared.randomness import epoch_order, step_seed
from shared.records import DivergedError
from tests.adapters import JAX, NUMPY, TORCH, Adapter

QUICK = Config(epochs=2, hidden_1=32, hidden_2=16)
QUICK64 = dataclasses.replace(QUICK, dtype="float64")


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def in_numpy(weights, images: np.ndarray, labels: np.ndarray) -> tuple[float, float]:
    """Score weights in NumPy."""
    model = NUMPY.mlp.MLP(784, 32, 16)
    model.set_weights(weights)
    dtype = weights["linear_1.weight"].dtype.name
    return NUMPY.evaluate.evaluate(model, to_inputs(images, dtype), labels)


def test_every_example_exactly_once_the_short_last_batch_included(trainable: Adapter, small_data):
    # With lr 0 and no dropout, the mean loss and accuracy of an epoch are those of the whole
    # training set. A batch that is left out, repeated or wrongly weighted would change them.
    config = dataclasses.replace(QUICK64, lr=0.0, p1=0.0, p2=0.0)
    history, weights = trainable.run(config, small_data)
    loss, accuracy = in_numpy(weights, small_data.train_images, small_data.train_labels)
    for record in history:
        assert record["train_loss"] == pytest.approx(loss, rel=1e-12)
        assert record["train_accuracy"] == accuracy


@pytest.mark.parametrize("batch_size", [600, 1000, 75])
def test_batches_of_other_sizes(trainable: Adapter, small_data, batch_size: int):
    config = dataclasses.replace(QUICK64, epochs=1, batch_size=batch_size, lr=0.0, p1=0.0, p2=0.0)
    (record,), weights = trainable.run(config, small_data)
    loss, _ = in_numpy(weights, small_data.train_images, small_data.train_labels)
    assert record["train_loss"] == pytest.approx(loss, rel=1e-12)


def test_records_and_weights(trainable: Adapter, small_data, capfd):
    history, weights = trainable.run(QUICK, small_data)
    assert [record["epoch"] for record in history] == [1, 2]
    loss, accuracy = in_numpy(weights, small_data.test_images, small_data.test_labels)
    assert history[-1]["test_accuracy"] == accuracy
    assert history[-1]["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert loss < history[0]["test_loss"], "it learns"
    assert capfd.readouterr() == ("", ""), "train prints nothing"


def test_seconds_are_those_of_the_training_pass_with_the_device_waited_for(
    trainable: Adapter, small_data, monkeypatch
):
    # A clock that shows what was done so far: each look at it, each result that was read, and each
    # evaluation makes it later.
    done = {"reads": 0, "evaluations": 0}
    real_epoch, real_evaluate = trainable.train.train_epoch, trainable.train.evaluate

    class Result:
        """A result on a device: reading it waits."""

        def __init__(self, values):
            self.values = np.asarray(values)

        def cpu(self):
            done["reads"] += 1
            return torch.from_numpy(self.values.copy())

        def __array__(self, dtype=None, copy=None):
            done["reads"] += 1
            return self.values

    def evaluate(*arguments):
        done["evaluations"] += 1
        return real_evaluate(*arguments)

    monkeypatch.setattr(
        trainable.train, "train_epoch", lambda *a: tuple(map(Result, real_epoch(*a)))
    )
    monkeypatch.setattr(trainable.train, "evaluate", evaluate)
    monkeypatch.setattr(time, "perf_counter", lambda: done["reads"] + 100 * done["evaluations"])
    history, _ = trainable.run(QUICK, small_data)
    assert [record["seconds"] for record in history] == [2, 2]  # losses and correct were read
    assert done["evaluations"] == 2


def test_same_seed_same_bytes_another_seed_another_run(trainable: Adapter, small_data):
    (first, weights), (second, same) = (trainable.run(QUICK, small_data) for _ in range(2))
    _, other = trainable.run(dataclasses.replace(QUICK, seed=1), small_data)
    assert without_seconds(first) == without_seconds(second)
    for name, array in weights.items():
        assert array.tobytes() == same[name].tobytes()
        assert array.tobytes() != other[name].tobytes()


@pytest.mark.parametrize("stops", [[1], [2], [1, 2]], ids=str)
@pytest.mark.parametrize("other", [False, True], ids=["there", "in the other framework"])
def test_leaving_the_loop_and_going_on_gives_the_same(
    trainable: Adapter, small_data, stops: list[int], other: bool
):
    # In the other framework, masks differ, so without dropout.
    rates = {"p1": 0.0, "p2": 0.0} if other else {}
    config = dataclasses.replace(QUICK64, epochs=3, **rates)
    whole, expected = trainable.run(config, small_data)
    history, weights = [], None
    frameworks = itertools.cycle([trainable, TORCH if trainable is JAX else JAX][: 1 + other])
    for framework, stop in zip(frameworks, [*stops, 3], strict=False):
        model, optimizer, arrays = framework.network(config, small_data)
        if weights:
            model.set_weights(weights)
        first_epoch = len(history) + 1
        for record in framework.train.train(model, optimizer, arrays, config, first_epoch):
            history.append(record)
            if record["epoch"] == stop:
                break
        weights = model.get_weights()
    if not other:
        assert without_seconds(history) == without_seconds(whole)
        assert all(weights[name].tobytes() == expected[name].tobytes() for name in weights)
    for a, b in zip(without_seconds(history), without_seconds(whole), strict=True):
        assert a == pytest.approx(b, abs=1e-10)
    for name, array in expected.items():
        np.testing.assert_allclose(weights[name], array, rtol=0, atol=1e-10)


def test_dropout_is_on_in_training_and_masks_change_from_step_to_step(
    trainable: Adapter, small_data
):
    # With lr 0 and 600 copies of one image, two epochs differ in nothing but the masks.
    images = np.repeat(small_data.train_images[:1], 600, axis=0)
    labels = np.repeat(small_data.train_labels[:1], 600)
    same = dataclasses.replace(small_data, train_images=images, train_labels=labels)
    first, second = trainable.run(dataclasses.replace(QUICK, lr=0.0, batch_size=600), same)[0]
    assert first["train_loss"] != pytest.approx(second["train_loss"], rel=1e-6)
    assert first["test_loss"] == second["test_loss"]


def masks_of_step(of: Adapter, config: Config, rows: int, step: int) -> tuple[torch.Tensor, ...]:
    """Draw both masks of a step of a run, as docs/reference.md says, for PyTorch."""
    if of is TORCH:
        sources = [{"generator": torch.Generator().manual_seed(step_seed(config.seed, step))}] * 2
    else:
        key = jax.random.fold_in(jax.random.key(config.seed), np.uint32(step))
        sources = [{"key": key} for key in jax.random.split(key)]
    rates_and_widths = ((config.p1, config.hidden_1), (config.p2, config.hidden_2))
    return tuple(
        torch.tensor(of.numpy(of.dropout.sample_keep((rows, width), p, **source)))
        for (p, width), source in zip(rates_and_widths, sources, strict=True)
    )


def test_training_uses_the_masks_of_seed_and_step_that_the_documentation_names(
    trainable: Adapter, small_data
):
    # The same training, step by step, on masks drawn outside. Another seed, another step, swapped
    # rates or another place for the short last batch would give another network.
    config = dataclasses.replace(QUICK64, seed=2**32 - 5)
    model, optimizer, (images, labels, *_) = TORCH.network(config, small_data)
    step = 0
    for epoch in range(1, config.epochs + 1):
        order = epoch_order(len(images), seed=config.seed, epoch=epoch)
        for batch in torch.as_tensor(order).split(config.batch_size):
            keep = masks_of_step(trainable, config, len(batch), step)
            TORCH.train.train_step(model, optimizer, images[batch], labels[batch], keep=keep)
            step += 1
    assert step == 6
    _, trained = trainable.run(config, small_data)
    for name, weight in model.get_weights().items():
        np.testing.assert_allclose(trained[name], weight, rtol=0, atol=1e-11)


def test_no_global_random_state_changes(trainable: Adapter, small_data):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_default_dtype()
    trainable.run(dataclasses.replace(QUICK, epochs=1), small_data)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.get_default_dtype() == before[2]


@pytest.fixture
def compilations():
    """A list to which JAX adds an entry for each compilation."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    yield compiled
    jax.monitoring.clear_event_listeners()


def test_another_seed_or_epoch_compiles_nothing(small_data, compilations):
    JAX.run(QUICK, small_data)
    compilations.clear()
    JAX.run(dataclasses.replace(QUICK, seed=2**32 - 1, epochs=3), small_data)
    assert compilations == []
    JAX.run(dataclasses.replace(QUICK, hidden_1=33), small_data)
    assert compilations, "a compilation is not counted"


def test_a_loss_that_is_no_number_ends_the_training(trainable: Adapter, small_data):
    config = dataclasses.replace(QUICK, lr=1e38)
    model, optimizer, arrays = trainable.network(config, small_data)
    with pytest.raises(DivergedError, match=r"the loss is (nan|inf) at step [12], in epoch 1"):
        next(trainable.train.train(model, optimizer, arrays, config))
