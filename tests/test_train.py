"""train(): every example once, the same bytes for the same seed, and equality of the frameworks."""

import dataclasses
import os
import subprocess
import sys

import jax
import numpy as np
import psutil
import pytest
import torch

from experiments.lockstep import masks_of_jax, masks_of_torch, to_torch
from shared.checks import InputError
from shared.config import Config
from shared.data import to_inputs
from shared.randomness import epoch_order, step_seed
from shared.records import slow_epochs_note, write_line
from tests.adapters import JAX, TORCH, Adapter

pytestmark = pytest.mark.usefixtures("quick_compilation")
QUICK = Config(epochs=2, hidden_1=32, hidden_2=16)


def without_seconds(history):
    return [{k: v for k, v in record.items() if k != "seconds"} for record in history]


def test_every_example_exactly_once_the_short_last_batch_included(trainable: Adapter, small_data):
    # With lr 0 and no dropout, the mean loss and accuracy of an epoch are those of the whole
    # training set. A batch that is left out, repeated or wrongly weighted would change them.
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


def test_each_epoch_has_another_order_and_each_step_another_seed():
    orders = [epoch_order(600, seed=s, epoch=e) for s, e in ((0, 1), (0, 2), (1, 1))]
    for order in orders:
        np.testing.assert_array_equal(np.sort(order), np.arange(600))
    assert len({order.tobytes() for order in orders}) == 3
    assert len({step_seed(seed, step) for seed in range(10) for step in range(100)}) == 1000


def test_history_and_weights(trainable: Adapter, small_data, capfd):
    seen = []
    result = trainable.train.train(QUICK, small_data, lambda record, _: seen.append(record))
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
    # With lr 0 and 600 copies of one image, two epochs differ in nothing but the masks.
    same = dataclasses.replace(
        small_data,
        train_images=np.repeat(small_data.train_images[:1], 600, axis=0),
        train_labels=np.repeat(small_data.train_labels[:1], 600),
    )
    config = dataclasses.replace(QUICK, lr=0.0, batch_size=600)
    first, second = trainable.train.train(config, same).history
    assert first["train_loss"] != pytest.approx(second["train_loss"], rel=1e-6)
    assert first["test_loss"] == second["test_loss"]


def test_training_uses_the_masks_of_seed_and_step_that_the_documentation_names(
    trainable: Adapter, small_data
):
    # The same training, step by step, on masks drawn outside. Another seed, another step, swapped
    # rates or another place for the short last batch would give another network.
    config = dataclasses.replace(QUICK, p1=0.2, p2=0.5, seed=2**32 - 5, dtype="float64")
    masks = {"torch": masks_of_torch, "jax": masks_of_jax}[trainable.name]
    sizes = (784, config.hidden_1, config.hidden_2, 10)
    model = TORCH.mlp.MLP(*sizes, config.p1, config.p2, seed=config.seed, dtype=config.dtype)
    optimizer = TORCH.train.make_optimizer(model, config.lr)
    images = torch.as_tensor(to_inputs(small_data.train_images, config.dtype))
    labels = torch.as_tensor(small_data.train_labels)
    step = 0
    for epoch in range(1, config.epochs + 1):
        order = epoch_order(len(images), seed=config.seed, epoch=epoch)
        for batch in torch.as_tensor(order).split(config.batch_size):
            keep = to_torch(masks(config, [(len(batch), width) for width in sizes[1:3]], step))
            TORCH.train.train_step(model, optimizer, images[batch], labels[batch], keep=keep)
            step += 1
    assert step == 6
    trained = trainable.train.train(config, small_data).weights
    for name, weight in model.get_weights().items():
        np.testing.assert_allclose(trained[name], weight, rtol=0, atol=1e-11)


def test_without_dropout_the_two_frameworks_agree(small_data):
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


@pytest.fixture
def compilations():
    """A list to which JAX adds an entry for each compilation."""
    compiled: list[str] = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda event, *_, **__: compiled.append(event) if "backend_compile" in event else None
    )
    yield compiled
    jax.monitoring.clear_event_listeners()


def test_another_learning_rate_or_seed_compiles_nothing(small_data, compilations):
    JAX.train.train(dataclasses.replace(QUICK, lr=0.25), small_data)
    compilations.clear()
    weights = [
        JAX.train.train(dataclasses.replace(QUICK, lr=lr, seed=seed), small_data).weights
        for lr, seed in ((0.1, 0), (0.2, 0), (0.3, 2**32 - 1))
    ]
    assert compilations == []
    assert len({w["linear_3.bias"].tobytes() for w in weights}) == 3, "the rate has no effect"
    JAX.train.train(dataclasses.replace(QUICK, hidden_1=33), small_data)
    assert compilations, "a compilation is not counted"


def test_the_learning_rate_of_jax_is_exact_in_float64(small_data):
    config = dataclasses.replace(QUICK, lr=0.1, epochs=1, dtype="float64", p1=0.0, p2=0.0)
    a, b = (adapter.train.train(config, small_data).weights for adapter in (TORCH, JAX))
    np.testing.assert_allclose(a["linear_1.weight"], b["linear_1.weight"], rtol=0, atol=1e-14)


def test_training_ends_where_on_epoch_returns_true(trainable: Adapter, small_data):
    config = dataclasses.replace(QUICK, epochs=5)
    result = trainable.train.train(config, small_data, lambda record, _: record["epoch"] == 2)
    assert [record["epoch"] for record in result.history] == [1, 2]
    full = trainable.train.train(dataclasses.replace(config, epochs=2), small_data)
    assert full.weights["linear_2.weight"].tobytes() == result.weights["linear_2.weight"].tobytes()


def test_it_learns(trainable: Adapter):
    history = trainable.train.train(Config(epochs=5, hidden_1=64, data="sample")).history
    assert history[-1]["test_accuracy"] > 0.7
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_resized_images(trainable: Adapter, small_folder):
    config = dataclasses.replace(QUICK, data=str(small_folder), resize=14)
    assert trainable.train.train(config).weights["linear_1.weight"].shape == (32, 196)


@pytest.mark.parametrize("precision", ["medium", "high", "highest"])
def test_the_precision_is_set_during_the_run_and_put_back(trainable: Adapter, precision: str):
    def current() -> str | None:
        if trainable is TORCH:
            return torch.get_float32_matmul_precision()
        return jax.config.jax_default_matmul_precision

    before = current()
    with trainable.runtime.runtime(Config(precision=precision)):
        assert current() == ("default" if (trainable, precision) == (JAX, "medium") else precision)
    assert current() == before
    with pytest.raises(ZeroDivisionError), trainable.runtime.runtime(Config(precision=precision)):
        raise ZeroDivisionError
    assert current() == before


def test_train_computes_in_the_runtime(trainable: Adapter, small_data, monkeypatch):
    entered = []
    real = trainable.train.runtime
    monkeypatch.setattr(trainable.train, "runtime", lambda c: entered.append(c) or real(c))
    config = dataclasses.replace(QUICK, epochs=1)
    trainable.train.train(config, small_data)
    assert entered == [config]


def test_a_bad_device_is_refused(trainable: Adapter):
    with pytest.raises(InputError, match="no device 'nonsense'"):
        trainable.train.train(Config(device="nonsense", data="sample"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_pytorch_knows_but_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no device 'cuda'"):
        TORCH.runtime.choose_device("cuda")


def test_a_line_of_the_log_is_in_the_file_at_once(tmp_path):
    with (tmp_path / "log.jsonl").open("w") as log:
        write_line(log, {"epoch": 1})
        assert (tmp_path / "log.jsonl").read_text() == '{"epoch": 1}\n'


def test_compiled_code_is_kept_and_the_settings_are_put_back(monkeypatch, tmp_path):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    with JAX.runtime.compiled_code_on_disk():
        assert jax.config.jax_compilation_cache_dir == str(tmp_path / "dropout-three-ways" / "jax")
    assert jax.config.jax_compilation_cache_dir == before


def test_a_second_start_of_jax_finds_what_was_compiled(small_folder, tmp_path):
    environment = {name: v for name, v in os.environ.items() if not name.startswith("JAX_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", "impls.jax.train", "--epochs", "1", "--batch-size", "200"]
    words = ["--hidden-1", "64", "--data", small_folder, "--out", tmp_path / "run"]
    subprocess.run([*command, *words], env=environment, check=True)
    kept = list((tmp_path / "dropout-three-ways" / "jax").iterdir())
    assert any("train_epoch" in path.name for path in kept)


def epochs_of(*seconds: float):
    return [{"epoch": i, "seconds": s} for i, s in enumerate(seconds, 1)]


def test_a_run_slower_than_its_own_quickest_epochs_says_so(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    note = slow_epochs_note(epochs_of(9.0, 1.0, 3.0, 2.5), "torch")
    assert note is not None
    assert "the quickest epoch took 1.00 s, the mean 2.17 s" in note
    assert "OMP_NUM_THREADS=1" in note
    assert "OMP" not in slow_epochs_note(epochs_of(9.0, 1.0, 3.0, 2.5), "jax")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert "OMP" not in slow_epochs_note(epochs_of(9.0, 1.0, 3.0, 2.5), "torch")
    assert slow_epochs_note(epochs_of(9.0, 1.0, 1.5, 1.2), "torch") is None  # the first may compile
    assert slow_epochs_note(epochs_of(9.0, 1.0), "torch") is None


def test_jax_forgets_compiled_code_before_memory_maps_run_out(small_data, monkeypatch):
    monkeypatch.setattr(JAX.runtime, "MOST_NETWORKS", 1)
    monkeypatch.setattr(JAX.runtime, "_networks", set())
    maps = []
    for seed in range(3):
        config = Config(epochs=1, hidden_1=8 + seed, hidden_2=8, seed=seed)
        JAX.train.train(config, small_data)
        maps.append(len(psutil.Process().memory_maps(grouped=False)))
    # A network takes hundreds of maps, and then those of the one before are given back.
    assert max(maps[1:]) <= maps[0] + 100, maps
