"""A run that is stopped at any moment goes on, and ends as if it had never been stopped."""

import dataclasses
import gc
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.compare import read_run
from experiments.lockstep import masks_of_jax, to_torch
from shared.checks import InputError
from shared.cli import train_and_save
from shared.config import RunConfig
from shared.data import load
from shared.folder import CHECKPOINT, PREVIOUS, RunFolder, read_checkpoint, write_checkpoint
from shared.randomness import epoch_order, initial_weights
from shared.records import TrainResult, epoch_record, make_header, read_log
from tests.reliability import faults
from tests.reliability.kills import result
from tests.test_records import MACHINE

ROOT = Path(__file__).parents[1]
EPOCHS = 8
SMALL = ["--data", "sample", "--epochs", str(EPOCHS), "--hidden-1", "32", "--hidden-2", "32"]


def command(framework: str, out: Path, *flags: str) -> list[str]:
    return [sys.executable, "-m", f"impls.{framework}.train", *SMALL, "--out", str(out), *flags]


def finish(framework: str, out: Path, *flags: str) -> subprocess.CompletedProcess:
    return subprocess.run(command(framework, out, *flags), cwd=ROOT, capture_output=True, text=True)


def start(framework: str, out: Path, epochs: int, *flags: str) -> subprocess.Popen:
    """Start a run, and return when its log holds so many epochs."""
    process = subprocess.Popen(
        command(framework, out, *flags), cwd=ROOT, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    log = out / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > epochs):
        time.sleep(0.005)
    return process


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, tuple[bytes, list]]:
    """The result of a run of each framework that was never stopped."""
    results = {}
    for framework in ("torch", "jax"):
        out = tmp_path_factory.mktemp(framework)
        assert finish(framework, out).returncode == 0
        results[framework] = result(out)
    return results


@pytest.mark.parametrize(
    ("trained_in", "number"),
    [("torch", signal.SIGKILL), ("torch", signal.SIGTERM), ("jax", signal.SIGKILL),
     ("jax", signal.SIGINT)],
)  # fmt: skip
def test_a_run_that_was_stopped_ends_the_same(trained_in, number, undisturbed, tmp_path):
    out = tmp_path / "run"
    process = start(trained_in, out, 3)
    process.send_signal(number)
    _, error = process.communicate(timeout=60)
    if number == signal.SIGKILL:
        assert process.returncode == -number
    else:
        assert process.returncode == 128 + number
        assert "--resume goes on from there" in error
        assert "Traceback" not in error
        assert len(error.strip().splitlines()) == 1
    again = finish(trained_in, out, "--resume")
    assert again.returncode == 0, again.stderr
    assert "going on after epoch" in again.stdout
    assert result(out) == undisturbed[trained_in]
    assert sorted(p.name for p in out.iterdir()) == [".lock", "log.jsonl", "weights.safetensors"]


def test_nobody_reads_any_more(undisturbed, tmp_path):
    out = tmp_path / "run"
    process = start("torch", out, 1)
    assert process.stdout
    process.stdout.close()  # as `| head -1` does
    assert process.wait(timeout=60) == 0
    assert process.stderr
    process.stderr.close()
    assert result(out) == undisturbed["torch"]


def test_two_processes_do_not_share_a_folder(tmp_path):
    out = tmp_path / "run"
    process = start("torch", out, 1, "--epochs", "1000")
    other = finish("jax", out, "--overwrite")
    process.kill()
    process.communicate()
    assert other.returncode == 2
    assert other.stderr == f"error: another process writes to {out}\n"


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    for framework in ("torch", "jax"):
        out = tmp_path / framework
        process = finish(framework, out, "--lr", "1e38")
        assert process.returncode == 1
        assert "in epoch 1" in process.stderr
        assert "Traceback" not in process.stderr
        for line in (out / "log.jsonl").read_text().splitlines():
            json.loads(line, parse_constant=pytest.fail)


# What follows needs no process of its own: `train` is faked.


def fake(config, data, on_epoch, start=None):
    """Train nothing, but leave weights and records that depend on the epoch."""
    history = list(start.history) if start else []
    for epoch in range(len(history) + 1, config.epochs + 1):
        record = epoch_record(
            epoch, np.array([1 / epoch]), np.array([1]), (0.5, 0.5), 1, config.batch_size, 1.0
        )
        history.append(record)
        on_epoch(record, lambda epoch=epoch: weights_of(epoch))
    return TrainResult(history, weights_of(config.epochs))


def weights_of(epoch: int) -> dict[str, np.ndarray]:
    return initial_weights(784, 4, 4, 10, seed=epoch)


@pytest.fixture
def config(tmp_path) -> RunConfig:
    return RunConfig(epochs=4, hidden_1=4, hidden_2=4, out=tmp_path / "run")


def stopped_after(epochs: int, config: RunConfig, data) -> None:
    """Leave the folder of a run that was killed."""
    header = make_header("torch", ("torch",), config, data, MACHINE)
    with RunFolder(config, header) as folder:
        whole = dataclasses.replace(config, epochs=epochs)
        fake(whole, data, lambda record, get_weights: folder.add(record, get_weights()))


def test_a_run_is_not_overwritten_unasked(config, small_data, capsys):
    train_and_save("torch", fake, config, small_data, MACHINE)
    before = result(config.out)
    with pytest.raises(InputError, match="holds a finished run"):
        train_and_save("torch", fake, config, small_data, MACHINE)
    assert result(config.out) == before
    other = dataclasses.replace(config, seed=1, overwrite=True)
    train_and_save("torch", fake, other, small_data, MACHINE)
    assert read_log(config.out / "log.jsonl")[0]["config"]["seed"] == 1


def test_a_finished_run_is_not_made_again(config, small_data, capsys):
    first = train_and_save("torch", fake, config, small_data, MACHINE)
    again = train_and_save(
        "torch", pytest.fail, dataclasses.replace(config, resume=True), small_data, MACHINE
    )
    assert "finished already" in capsys.readouterr().out
    assert again.history == first.history


@pytest.mark.parametrize(
    ("change", "message"),
    [({"lr": 0.1}, "lr was 0.5 and is now 0.1"), ({"seed": 3}, "seed was 0 and is now 3"),
     ({"epochs": 9, "p1": 0.4}, "epochs was 4 and is now 9; p1 was 0.2 and is now 0.4")],
    ids=str,
)  # fmt: skip
def test_other_settings_are_refused(config, change, message, small_data):
    stopped_after(2, config, small_data)
    with pytest.raises(InputError, match=message):
        train_and_save(
            "torch", fake, dataclasses.replace(config, resume=True, **change), small_data, MACHINE
        )
    assert read_checkpoint(config.out / CHECKPOINT)  # still there


def test_resume_starts_at_the_beginning_where_nothing_is(config, small_data):
    again = dataclasses.replace(config, resume=True)
    run = train_and_save("torch", fake, again, small_data, MACHINE)
    assert len(run.history) == 4


@pytest.mark.parametrize("damage", ["cut", "changed", "missing"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(damage, config, small_data, capsys):
    stopped_after(3, config, small_data)
    path = config.out / CHECKPOINT
    content = bytearray(path.read_bytes())
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[-1] ^= 1
        path.write_bytes(content)
    again = dataclasses.replace(config, resume=True)
    run = train_and_save("torch", fake, again, small_data, MACHINE)
    printed = capsys.readouterr()
    assert "going on after epoch 2" in printed.out
    assert f"Going on from {PREVIOUS} instead" in printed.err
    assert len(run.history) == 4


def test_the_log_names_the_machine_and_a_change_of_it_is_told(config, small_data, capsys):
    stopped_after(2, config, small_data)
    again = dataclasses.replace(config, resume=True)
    train_and_save("jax", fake, again, small_data, MACHINE | {"threads": 64})
    assert capsys.readouterr().err == (
        "note: framework was torch and is now jax; "
        f"threads was {MACHINE['threads']} and is now 64. "
        "Sums may be rounded differently than in the first part of the run\n"
    )
    assert read_log(config.out / "log.jsonl")[0]["machine"]["threads"] == 64


def test_a_signal_that_becomes_another_error_stops_the_run(config, small_data, capsys):
    def train(*args, **more):
        fake(*args, **more)
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except BaseException as stopped:
            raise ValueError("while checking equality of metadata") from stopped

    with pytest.raises(SystemExit, match="143"):
        train_and_save("jax", train, config, small_data, MACHINE)
    assert capsys.readouterr().err.startswith("\nstopped. The last checkpoint is that of epoch 4")


def test_every_so_many_epochs(config, small_data):
    stopped_after(3, dataclasses.replace(config, checkpoint_every=2), small_data)
    run, _ = read_checkpoint(config.out / CHECKPOINT)
    assert len(run.history) == 2


def test_a_full_disk_leaves_the_checkpoint_before(config, small_data, monkeypatch):
    import shared.folder

    stopped_after(2, config, small_data)

    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shared.folder, "write_whole", full)
    run = TrainResult([{"epoch": 3}], weights_of(3))
    with pytest.raises(OSError, match="No space"):
        write_checkpoint(config.out / CHECKPOINT, run, {})
    assert len(read_checkpoint(config.out / CHECKPOINT)[0].history) == 2


def test_weights_and_log_of_two_runs_are_told_apart(config, small_data, small_folder):
    config = dataclasses.replace(config, data=str(small_folder))
    data = load(str(small_folder))
    train_and_save("torch", fake, config, data, MACHINE)
    other = dataclasses.replace(config, seed=1, out=config.out.with_name("other"))
    train_and_save("torch", fake, other, data, MACHINE)
    (config.out / "weights.safetensors").replace(other.out / "weights.safetensors")
    with pytest.raises(InputError, match="do not belong together"):
        read_run(other.out)


def test_start_in_one_framework_and_go_on_in_the_other(tmp_path):
    """Ten epochs in PyTorch, or five there and five in JAX, with the same masks in float64."""
    import jax
    import torch
    from flax import nnx

    import impls.jax.mlp
    import impls.jax.train
    import impls.torch.mlp
    import impls.torch.train
    from shared.config import Config
    from shared.data import to_inputs

    config = Config(epochs=10, hidden_1=16, hidden_2=16, dtype="float64", data="sample")
    data = load("sample")
    images, labels = to_inputs(data.train_images[:512], "float64"), data.train_labels[:512]
    sizes = (784, 16, 16, 10, config.p1, config.p2)

    def epochs(model, first, last):
        in_torch = isinstance(model, torch.nn.Module)
        framework = impls.torch.train if in_torch else impls.jax.train
        optimizer = framework.make_optimizer(model, config.lr)
        step_of = framework.train_step if in_torch else nnx.jit(framework.train_step)
        for epoch in range(first, last + 1):
            order = epoch_order(512, seed=0, epoch=epoch)
            for i, batch in enumerate(order.reshape(2, 256)):
                keep = masks_of_jax(config, [(256, 16)] * 2, 2 * (epoch - 1) + i)
                x, y = images[batch], labels[batch]
                if in_torch:
                    x, y, keep = torch.from_numpy(x), torch.from_numpy(y), to_torch(keep)
                step_of(model, optimizer, x, y, keep=keep)
        return model.get_weights()

    def network():
        return impls.torch.mlp.MLP(*sizes, seed=0, dtype="float64")

    with jax.enable_x64(True):
        whole = epochs(network(), 1, 10)
        header = make_header("torch", ("torch",), config, data, MACHINE)
        write_checkpoint(tmp_path / CHECKPOINT, TrainResult([], epochs(network(), 1, 5)), header)
        (_, half), _ = read_checkpoint(tmp_path / CHECKPOINT)
        other = impls.jax.mlp.MLP(*sizes, seed=1, dtype="float64")
        other.set_weights(half)
        both = epochs(other, 6, 10)
    for name, array in whole.items():
        np.testing.assert_allclose(both[name], array, rtol=0, atol=1e-12)
    assert not np.array_equal(both["linear_1.weight"], half["linear_1.weight"])


def test_a_signal_whose_error_is_forgotten_stops_after_the_epoch(config, small_data, capsys):
    def stop_in_a_callback(phase, info):
        gc.callbacks.remove(stop_in_a_callback)
        signal.raise_signal(signal.SIGTERM)

    def train(config, data, on_epoch, start=None):
        gc.callbacks.append(stop_in_a_callback)
        gc.collect()
        return fake(config, data, on_epoch, start)

    with pytest.raises(SystemExit) as stopped:
        train_and_save("torch", train, config, small_data, MACHINE)
    assert stopped.value.code == 128 + signal.SIGTERM
    told = capsys.readouterr().err
    assert "that of epoch 1:" in told
    assert "ignored" not in told


def test_what_a_killed_process_left_is_swept(config, small_data):
    config.out.mkdir()
    (config.out / ".weights.safetensors.abc.unfinished").write_bytes(b"half")
    train_and_save("torch", fake, config, small_data, MACHINE)
    assert not [p for p in os.listdir(config.out) if "unfinished" in p]


@pytest.fixture
def strace():
    if not shutil.which("strace"):
        if os.environ.get("REQUIRE_FULL_DATA"):
            pytest.fail("no strace: apt-get install strace")
        pytest.skip("no strace on this machine")


@pytest.mark.usefixtures("strace")
def test_a_save_survives_a_kill_and_a_full_disk_at_each_kind_of_system_call(tmp_path):
    # The first call of each kind. `python -m tests.reliability` tries every one.
    outcomes = faults.system_calls(tmp_path, most=1)
    assert set(outcomes) == {"signal=SIGKILL", "error=ENOSPC", "error=EIO"}
    assert min(outcomes.values()) >= 5


@pytest.mark.usefixtures("strace")
def test_a_save_survives_a_loss_of_power(tmp_path):
    assert set(faults.power_losses(tmp_path)) == {"a whole checkpoint"}
    # Where nothing is synced, the simulation must lose something.
    (tmp_path / "before" / CHECKPOINT).unlink()
    lost = faults.power_losses(tmp_path, synced=False)
    assert lost["FAILED: no checkpoint"]
    assert lost["FAILED: a save had ended, and was lost"]


@pytest.mark.filterwarnings("ignore:os.fork")  # by JAX. The child calls nothing of it
def test_a_short_write_leaves_the_checkpoint_before(tmp_path):
    assert set(faults.short_writes(tmp_path, step=2000)) == {"refused"}
