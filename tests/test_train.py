"""train(): every example once, the same seed the same bytes, and the two frameworks together."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
import torch

import impls.jax.train
import impls.torch.mlp
import impls.torch.train
from shared.config import Config
from shared.data import to_inputs
from shared.randomness import epoch_order, step_seed
from tests.adapters import JAX, TORCH, Adapter

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = Config(epochs=2, hidden1=32, hidden2=16)


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def test_every_example_exactly_once_the_short_last_batch_included(trainable: Adapter, small_data):
    # With lr 0 and no dropout nothing changes, and the epoch's mean loss and accuracy are those
    # of the whole training set: a batch missed, repeated or weighted wrongly would show.
    config = dataclasses.replace(QUICK, lr=0.0, p1=0.0, p2=0.0, dtype="float64")
    result = trainable.train.train(config, small_data)
    images, labels = to_inputs(small_data.train_images), small_data.train_labels
    loss, accuracy = trainable.evaluate.evaluate_weights(result.weights, images, labels)
    for record in result.history:
        assert record["train_loss"] == pytest.approx(loss, rel=1e-12)
        assert record["train_accuracy"] == accuracy


@pytest.mark.parametrize("batch_size", [600, 1000, 1])
def test_batches_of_other_sizes(trainable: Adapter, small_data, batch_size: int):
    config = dataclasses.replace(QUICK, epochs=1, batch_size=batch_size, lr=0.01)
    result = trainable.train.train(config, small_data)
    assert np.isfinite(result.history[0]["train_loss"])


def test_epoch_order_is_a_permutation_of_its_own():
    orders = [epoch_order(600, seed=s, epoch=e) for s, e in ((0, 1), (0, 2), (1, 1))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(600))
    assert len({order.tobytes() for order in orders}) == 3
    assert len({step_seed(seed, step) for seed in range(10) for step in range(100)}) == 1000


def test_history_and_weights(trainable: Adapter, small_data, capfd):
    seen = []
    result = trainable.train.train(QUICK, small_data, seen.append)
    assert seen == result.history
    assert [record["epoch"] for record in seen] == [1, 2]
    for record in seen:
        assert list(record) == [
            "epoch",
            "train_loss",
            "train_accuracy",
            "test_loss",
            "test_accuracy",
            "seconds",
        ]
    images, labels = to_inputs(small_data.test_images), small_data.test_labels
    loss, accuracy = trainable.evaluate.evaluate_weights(result.weights, images, labels)
    assert seen[-1]["test_accuracy"] == accuracy
    assert seen[-1]["test_loss"] == pytest.approx(loss, rel=1e-5)
    assert capfd.readouterr() == ("", ""), "train prints nothing"


def test_same_seed_same_bytes_another_seed_another_run(trainable: Adapter, small_data):
    first, second = (trainable.train.train(QUICK, small_data) for _ in range(2))
    other = trainable.train.train(dataclasses.replace(QUICK, seed=1), small_data)
    assert without_seconds(first.history) == without_seconds(second.history)
    for name, array in first.weights.items():
        assert array.tobytes() == second.weights[name].tobytes()
        assert array.tobytes() != other.weights[name].tobytes()


def test_dropout_is_on_in_training_and_masks_change_from_step_to_step(
    trainable: Adapter, small_data
):
    # lr 0, and one image 600 times over: nothing differs between two epochs but the masks.
    same = dataclasses.replace(
        small_data,
        train_images=np.repeat(small_data.train_images[:1], 600, axis=0),
        train_labels=np.repeat(small_data.train_labels[:1], 600),
    )
    config = dataclasses.replace(QUICK, lr=0.0, batch_size=600)
    first, second = trainable.train.train(config, same).history
    assert first["train_loss"] != pytest.approx(second["train_loss"], rel=1e-6)
    assert first["test_loss"] == second["test_loss"]


def test_without_dropout_the_two_frameworks_are_one(small_data):
    config = dataclasses.replace(QUICK, epochs=3, p1=0.0, p2=0.0, dtype="float64")
    a, b = (adapter.train.train(config, small_data) for adapter in (TORCH, JAX))
    for x, y in zip(without_seconds(a.history), without_seconds(b.history), strict=True):
        assert x == pytest.approx(y, abs=1e-10)
    for name, weight in a.weights.items():
        np.testing.assert_allclose(weight, b.weights[name], rtol=0, atol=1e-10)


def test_no_global_state_changes(trainable: Adapter, small_data):
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_default_dtype()
    trainable.train.train(dataclasses.replace(QUICK, epochs=1, dtype="float64"), small_data)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (np.random.get_state()[1] == before[1]).all()
    assert torch.get_default_dtype() == before[2]
    assert not jax.config.jax_enable_x64


def test_training_again_compiles_nothing(small_data):
    compiled = []
    config = dataclasses.replace(QUICK, lr=0.25)
    JAX.train.train(config, small_data)
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    try:
        JAX.train.train(dataclasses.replace(config, seed=5), small_data)
        assert compiled == []
        JAX.train.train(dataclasses.replace(config, hidden1=33), small_data)
        assert compiled, "the listener does hear a compilation"
    finally:
        jax.monitoring.clear_event_listeners()


def test_it_learns(trainable: Adapter):
    # 250 divides 10,000: a last batch of 16 would make its step, and the result, a lottery.
    history = trainable.train.train(Config(epochs=5, batch_size=250, data="sample")).history
    assert history[-1]["test_accuracy"] > 0.7
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_resized_images(trainable: Adapter, small_folder):
    config = dataclasses.replace(QUICK, data=str(small_folder), resize=14)
    assert trainable.train.train(config).weights["linear_1.weight"].shape == (32, 196)


def test_gradient_descent_is_pytorchs_own():
    ours, theirs = (impls.torch.mlp.MLP(20, 16, 12, 10, seed=3) for _ in range(2))
    optimizers = (
        impls.torch.train.SGD(ours.parameters(), 0.3),
        torch.optim.SGD(theirs.parameters(), 0.3),
    )
    images, labels = torch.rand(8, 20), torch.arange(8)
    for step in range(3):
        for model, optimizer in zip((ours, theirs), optimizers, strict=True):
            generator = torch.Generator().manual_seed(step)
            impls.torch.train.train_step(model, optimizer, images, labels, generator=generator)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


def test_training_in_pytorch_does_not_import_its_compiler(small_folder):
    code = (
        "import sys; from impls.torch.train import train; from shared.config import Config;"
        f"train(Config(epochs=1, data={str(small_folder)!r}));"
        "assert 'torch._dynamo' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_precision_is_the_frameworks_own_and_is_put_back(monkeypatch, small_data):
    seen = []
    step = impls.torch.train.train_step

    def spy(*args, **kwargs):
        seen.append(torch.get_float32_matmul_precision())
        return step(*args, **kwargs)

    monkeypatch.setattr(impls.torch.train, "train_step", spy)
    config = dataclasses.replace(QUICK, precision="medium")
    TORCH.train.train(config, small_data)
    assert set(seen) == {"medium"}
    assert torch.get_float32_matmul_precision() == "highest"
    seen.clear()

    def jax_spy(*args, **kwargs):
        seen.append(jax.config.jax_default_matmul_precision)
        return jax_step(*args, **kwargs)

    jax_step = impls.jax.train.train_step
    monkeypatch.setattr(impls.jax.train, "train_step", jax_spy)
    for precision in ("medium", "high", "highest"):
        # Other sizes each time, so that nothing is found compiled.
        hidden1 = 20 + len(precision)
        JAX.train.train(
            dataclasses.replace(config, precision=precision, hidden1=hidden1), small_data
        )
    assert list(dict.fromkeys(seen)) == ["default", "high", "highest"]


def test_a_second_start_of_jax_finds_what_was_compiled(small_folder, tmp_path):
    environment = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    environment.pop("JAX_COMPILATION_CACHE_DIR")
    command = [sys.executable, "-m", "impls.jax.train", "--epochs", "1", "--data", small_folder]
    subprocess.run([*command, "--out", tmp_path / "run"], env=environment, check=True)
    kept = list((tmp_path / "dropout-three-ways" / "jax").iterdir())
    assert any("train_epoch" in path.name for path in kept)
