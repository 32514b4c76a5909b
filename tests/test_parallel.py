"""Several processes and devices train the same network as one."""

import datetime
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest.mock import MagicMock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import torch.distributed as dist
from jax.sharding import AbstractMesh, AxisType

import impls.jax.evaluate
import impls.jax.mlp
import impls.jax.parallel
import impls.torch.evaluate
import impls.torch.parallel
from experiments.parallel import keep_rows, mistakes, scaling
from experiments.parallel.equality import (
    Difference,
    Layout,
    Result,
    compare,
    free_port,
    result,
    run,
    worker,
)
from impls.torch.mlp import MLP
from impls.torch.train import train_step
from shared.checks import InputError
from shared.config import Config
from shared.run import Run
from shared.weights import load_weights
from tests.adapters import JAX, TORCH, Adapter
from tests.conftest import small, write_folder

ROOT = Path(__file__).parents[1]
# 400 images: parts of 66 and 67 images, and a last step of 1 image, so that one has none.
NETWORK = ["--batch-size", "133", "--hidden-1", "40", "--hidden-2", "24", "--lr", "0.1", "--dtype",
           "float64"]  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    data = small()
    some = small(
        train_images=data.train_images[:400], train_labels=data.train_labels[:400],
        test_images=data.test_images[:100], test_labels=data.test_labels[:100],
    )  # fmt: skip
    return write_folder(tmp_path_factory.mktemp("parallel"), some)


@pytest.mark.parametrize(
    ("of", "several"),
    [(TORCH, Layout("torch", 2)), (JAX, Layout("jax", 1, 2)),
     pytest.param(JAX, Layout("jax", 2, 2), marks=pytest.mark.slow)],
    ids=["torch", "jax", "jax, processes"],
)  # fmt: skip
def test_several_devices_train_as_one_and_go_on_with_what_one_began(
    of: Adapter, several: Layout, folder, tmp_path, monkeypatch
):
    train = of.train
    flags = [*NETWORK, "--data", str(folder), "--epochs", "4"]
    real = train.train_epoch
    monkeypatch.setattr(train, "train_epoch", real)  # `worker` replaces it
    worker(f"impls.{of.name}.train", str(tmp_path / "losses"), "-", *flags, "--out",
           str(tmp_path / "alone"))  # fmt: skip
    alone = result(tmp_path, "alone", 1)
    assert len(alone.losses[0]) == 4 * 4

    def stop(*arguments):
        if arguments[-1] == 2:
            signal.raise_signal(signal.SIGTERM)
        return real(*arguments)

    monkeypatch.setattr(train, "train_epoch", stop)
    with pytest.raises(SystemExit, match="143"):
        train.main([*flags, "--out", str(tmp_path / "run")])
    rest = run(several, tmp_path, *flags, "--resume")
    assert [len(losses) for losses in rest.losses] == several.processes * [2 * 4]
    difference = compare(rest, alone._replace(losses=[alone.losses[0][8:]]))
    assert difference.small, difference


def start(framework: str, path: Path, *words: str) -> list[subprocess.Popen]:
    """Start a long run of two processes, and return when its log holds two epochs."""
    flags = ["--out", str(path / "run"), "--epochs", "10000", "--batch-size", "400", *words]
    processes = Layout(framework, 2).start(path / "losses", flags)
    log = path / "run" / "unfinished" / "log.jsonl"
    while not (log.exists() and log.read_text().count("\n") > 2):
        assert all(process.poll() is None for process in processes), processes[0].communicate()
        time.sleep(0.02)
    return processes


def workers(path: Path) -> list[int]:
    """Return the ids of the processes that train into a folder, in the order of their start."""
    found = []
    for one in Path("/proc").glob("[0-9]*"):
        try:
            words = (one / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if str(path / "run").encode() in words and b"torch.distributed.run" not in words:
            found.append(int(one.name))
    return sorted(found)


def ends(processes: list[subprocess.Popen], path: Path) -> str:
    """Wait for the end of a run, which takes seconds, and return what it said on stderr."""
    started = time.monotonic()
    errors = "".join(process.communicate(timeout=60)[1] for process in processes)
    while workers(path):
        assert time.monotonic() - started < 20
        time.sleep(0.05)
    return errors


@pytest.mark.parametrize("one", ["torch", pytest.param("jax", marks=pytest.mark.slow)])
def test_when_a_process_is_killed_the_others_end_and_leave_a_checkpoint(one: str, folder, tmp_path):
    processes = start(one, tmp_path, "--data", str(folder))
    assert len(workers(tmp_path)) == 2
    os.kill(workers(tmp_path)[-1], signal.SIGKILL)
    errors = ends(processes, tmp_path)
    assert all(process.returncode for process in processes)
    assert "error: another process is lost" in errors
    assert "--resume goes on from the last checkpoint" in errors
    load_weights(tmp_path / "run" / "unfinished" / "checkpoint.safetensors")


@pytest.mark.slow
@pytest.mark.parametrize("one", ["torch", "jax"])
def test_a_signal_to_one_process_stops_all_after_the_epoch(one: str, folder, tmp_path):
    processes = start(one, tmp_path, "--data", str(folder))
    os.kill(workers(tmp_path)[-1], signal.SIGTERM)
    errors = ends(processes, tmp_path)
    epoch = int(re.search(r"stopped after epoch (\d+)\. --resume goes on from there", errors)[1])
    assert errors.count("stopped after") == 1  # only process 0 prints
    status = {"torch": 1, "jax": 143}[one]  # torchrun makes it a 1
    assert {process.returncode for process in processes} == {status}
    log = (tmp_path / "run" / "unfinished" / "log.jsonl").read_text().splitlines()
    assert json.loads(log[-1])["epoch"] == epoch


@pytest.mark.slow
def test_workers_end_with_torchrun(folder, tmp_path):
    processes = start("torch", tmp_path, "--data", str(folder), "--checkpoint-every", "100000")
    processes[0].kill()
    ends(processes, tmp_path)
    load_weights(tmp_path / "run" / "unfinished" / "checkpoint.safetensors")  # of a last moment


@pytest.mark.slow  # tests/test_run.py does it without processes
@pytest.mark.parametrize("wrong", ["settings", "data"])
def test_one_process_of_other_settings_or_without_data_ends_all_with_one_line(
    wrong: str, folder, tmp_path
):
    (tmp_path / "timeout-runs").mkdir()  # the name is no sign of a lost process
    words, message = {
        "settings": (["--lr", "0.3"], "lr is 0.3, and 0.5 in process 0"),
        "data": (["--data", str(tmp_path / "timeout-runs")], "no train-images-idx3-ubyte or"),
    }[wrong]
    flags = ["--out", str(tmp_path / "run"), "--data", str(folder)]
    address = f"127.0.0.1:{free_port()}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "impls.jax.parallel", *flags, *(words if rank else [])],
            cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
            env=os.environ | {"JAX_NUM_PROCESSES": "2", "JAX_PROCESS_ID": str(rank),
                              "JAX_COORDINATOR_ADDRESS": address},
        )
        for rank in range(2)
    ]  # fmt: skip
    errors = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [2, 2], errors
    lines = [line for line in "".join(errors).splitlines() if line.startswith("error")]
    assert len(lines) == 1
    assert lines[0].startswith(f"error: process 1: {message}")


def test_what_cannot_be_joined_is_said_in_a_line(capsys, monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(SystemExit) as ended:
        impls.torch.parallel.main(["--data", "sample"])
    assert ended.value.code == 2
    assert "torchrun --nproc-per-node 2 -m impls.torch.parallel" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        impls.jax.parallel.main(["--devices", "65"])
    assert ended.value.code == 2
    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")

    def initialize(**numbers):
        assert numbers == {"num_processes": 2, "process_id": None}
        raise IndexError("list index out of range")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(SystemExit) as ended:
        impls.jax.parallel.main(["--data", "sample"])
    assert ended.value.code == 2
    assert "set JAX_COORDINATOR_ADDRESS=HOST:PORT" in capsys.readouterr().err
    assert not waiting()


def waiting() -> list[threading.Timer]:
    """Return what would give up on the other processes later."""
    timers = [one for one in threading.enumerate() if isinstance(one, threading.Timer)]
    return [one for one in timers if one.is_alive() and not one.finished.is_set()]


class Ended(BaseException):
    """Stands for the end of a process."""


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError(), 1), (SystemExit(143), 143), (SystemExit("no"), 1)]
)
def test_a_process_of_jax_that_fails_ends_at_once_with_a_status(
    error, status: int, monkeypatch, capsys
):
    def end(status):
        raise Ended(status)

    monkeypatch.setenv("JAX_NUM_PROCESSES", "2")
    monkeypatch.setattr(jax.distributed, "initialize", lambda **_: None)
    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    run = Run("jax", [], "parallel", impls.jax.parallel.ParallelConfig)

    def fail() -> None:
        with impls.jax.parallel.join(run):
            assert not waiting()
            raise error

    with pytest.raises(Ended) as ended:
        fail()
    assert ended.value.args == (status,)
    assert ("ZeroDivisionError" in capsys.readouterr().err) == (not isinstance(error, SystemExit))


def test_a_process_of_torch_waits_minutes_for_the_others(monkeypatch):
    def never(timeout):
        assert timeout >= datetime.timedelta(minutes=5)  # loading the data may take that long
        raise RuntimeError("nobody came")

    monkeypatch.setenv("RANK", "0")
    monkeypatch.setattr(dist, "init_process_group", never)
    monkeypatch.setattr(impls.torch.parallel.ctypes, "CDLL", MagicMock())
    with pytest.raises(InputError, match="cannot join the other processes: nobody came"):
        impls.torch.parallel.join(Run("torch", [], "parallel")).__enter__()


# What follows needs no process of its own.


@pytest.fixture
def group_of_one():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize("p1", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("keep", [False, True])
def test_masks_are_those_of_a_network_that_nobody_shares(group_of_one, p1: float, keep: bool):
    x, labels = torch.rand(7, 6, dtype=torch.float64), torch.arange(7) % 3
    masks = (torch.rand(7, 5) > 0.3, torch.rand(7, 4) > 0.3) if keep else None
    weights = []
    for wrap in (lambda model: model, impls.torch.parallel.ParallelMLP):
        model = MLP(6, 5, 4, 3, 0.2 if keep else p1, 0.5, dtype="float64")
        network = wrap(model)
        optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
        generator = torch.Generator().manual_seed(3)
        for _ in range(3):
            train_step(network, optimizer, x, labels, generator=generator, keep=masks)
        weights.append(model.get_weights())
        network = None  # before the group ends
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_a_wrapped_network_is_scored_as_the_network_itself(group_of_one):
    rng = np.random.default_rng(0)
    images, labels = rng.random((50, 6), np.float32), rng.integers(0, 3, 50)
    model = MLP(6, 5, 4, 3)
    wrapped = impls.torch.parallel.ParallelMLP(model)
    of = [impls.torch.evaluate.evaluate(m, torch.tensor(images), torch.tensor(labels))
          for m in (model, wrapped)]  # fmt: skip
    assert of[0] == of[1]
    assert wrapped.training
    wrapped = None
    model = impls.jax.mlp.MLP(6, 5, 4, 3)
    wrapped = impls.jax.parallel.ParallelMLP(model)
    mesh = jax.make_mesh((1,), ("devices",), axis_types=(AxisType.Auto,))
    with jax.set_mesh(mesh):
        of = [impls.jax.evaluate.evaluate(m, jnp.asarray(images), jnp.asarray(labels))
              for m in (model, wrapped)]  # fmt: skip
    assert of[0] == of[1]


def test_rows_are_divided_among_devices_before_and_after_the_network():
    rows = impls.jax.parallel.ROWS
    mesh = AbstractMesh((2,), tuple(rows), axis_types=(AxisType.Auto,))
    with jax.sharding.use_abstract_mesh(mesh):
        network = impls.jax.parallel.ParallelMLP(impls.jax.mlp.MLP(6, 5, 4, 3))
        x = jnp.zeros((4, 6))
        text = str(jax.make_jaxpr(lambda x: network(x, key=jax.random.key(0)))(x))
    assert re.findall(r"(f32\[.*\]) = sharding_constraint", text) == ["f32[4,6]", "f32[4,3]"]
    assert text.count("spec=P('devices',)") == 2


def test_a_difference_in_any_number_is_not_small():
    record = {"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0,
              "test_accuracy": 0.5, "seconds": 1.0}  # fmt: skip
    alone = Result([np.zeros(3)], {"a": np.zeros(2)}, [record])
    assert compare(alone, alone._replace(history=[{**record, "seconds": 2.0}])).small
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        other = alone._replace(history=[{**record, name: record[name] + 1e-11}])
        assert not compare(other, alone).small
    assert not compare(alone._replace(losses=[np.zeros(3), np.array([0, 0, 1e-11])]), alone).small
    assert not compare(alone._replace(weights={"a": np.array([0, 1e-9])}), alone).small
    assert Difference(1e-13, 1e-11, 1e-13).small


def test_mistakes_are_told_from_what_is_right(folder):
    arrays = small()
    images = torch.tensor(arrays.train_images[:95].reshape(95, -1) / 255)
    labels = torch.tensor(arrays.train_labels[:95])
    config = Config(batch_size=31, hidden_1=48, hidden_2=48, epochs=2, lr=0.1, dtype="float64")
    rows = mistakes.table(config, (images, labels), draws=150)
    cells = {tuple(row.split(" | ")[:2]): row.strip("| ").split(" | ")[2:] for row in rows}
    assert cells["| `right`", "4"] == ["1.00", "1.00 – 1.00", "0"]
    assert float(cells["| `alike`", "4"][0]) > 1.2
    assert float(cells["| `own`", "4"][2]) > 0.001
    # Of 31 images, four processes get 7, 8, 8 and 8; of the last 2 images, only two get one.
    assert cells["| `means`", "2"][1] == "0.97 – 1.03"


def test_scaling_counts_the_second_core(monkeypatch, tmp_path):
    times = {(1, 1, 1): 4.0, (2, 2, 1): 4.0, (1, 2, 2): 2.0}  # processes, cores, threads

    def seconds(layout, cores, threads, width, flags):
        return times[layout.processes, cores, threads]

    monkeypatch.setattr(scaling, "seconds", seconds)
    row = scaling.row("torch", 64, scaling.ScalingConfig())
    assert row == "| PyTorch | 64 | 4.00 | 4.00 (50%) | 2.00 (100%) |"
    keep_rows("scaling", [row], tmp_path / "a.json")
    keep_rows("equality", ["| x |"], tmp_path / "a.json")
    assert json.loads((tmp_path / "a.json").read_text()) == {
        "scaling": [row],
        "equality": ["| x |"],
    }
