"""Several processes and devices train the same network as one: experiments.parallel.equality."""

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import psutil
import pytest
import torch
import torch.distributed as dist
from jax.sharding import AbstractMesh, AxisType

from experiments.parallel import equality, mistakes
from experiments.parallel.equality import FILES, LAYOUTS, Layout, Run, compare, equal, run
from impls.jax import parallel as jax_parallel
from impls.torch.mlp import MLP
from impls.torch.parallel import distribute
from impls.torch.train import make_optimizer, train_step
from shared import cli, idx, launch
from shared import group as shared_group
from shared.checks import InputError
from shared.cli import train_main
from shared.config import Config, RunConfig
from shared.data import Data, load
from shared.folder import CHECKPOINT, read_checkpoint, write_checkpoint
from shared.group import ALONE, Group, LostProcessError, check_same_settings, deadline, watch
from shared.launch import check_free
from shared.records import TrainResult, Weights, make_header, read_log
from shared.weights import load_weights
from tests.adapters import JAX, TORCH, Adapter
from tests.test_records import MACHINE

ROOT = Path(__file__).parents[1]
# 400 images: parts of 66 and 67 images, and a last step of 1 image, so that some have none.
STEPS = 4  # in an epoch
SETTINGS: dict[str, Any] = {
    "batch_size": 133, "hidden_1": 40, "hidden_2": 24, "lr": 0.1, "dtype": "float64"
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """400 images of the sample, as a folder of four IDX files."""
    sample = load("sample")
    path = tmp_path_factory.mktemp("parallel") / "data"
    data = Data(
        sample.train_images[:400], sample.train_labels[:400],
        sample.test_images[:100], sample.test_labels[:100], name="400",
    )  # fmt: skip
    idx.write_folder(path, data)
    return path


def flags(config: Config) -> list[str]:
    pairs = [
        ("--" + name.replace("_", "-"), str(getattr(config, name)))
        for name in (*SETTINGS, "epochs", "data")
    ]
    return [word for pair in pairs for word in pair]


def train_alone(adapter: Adapter, config: Config, monkeypatch) -> tuple[Run, list[Weights]]:
    """Return what one process leaves behind, and the weights after each epoch."""
    losses, weights = [], []
    real = adapter.train.train_epoch

    def kept(*args):
        results = real(*args)
        losses.append(np.asarray(results[0]))
        return results

    with monkeypatch.context() as patch:
        patch.setattr(adapter.train, "train_epoch", kept)
        result = adapter.train.train(
            config, on_epoch=lambda record, get_weights: weights.append(get_weights())
        )
    return Run([np.concatenate(losses)], result.weights, result.history, FILES), weights


def test_what_one_process_began_two_of_two_devices_finish(folder, tmp_path, monkeypatch):
    config = Config(**SETTINGS, epochs=5, data=str(folder))
    alone, weights = train_alone(JAX, config, monkeypatch)
    (tmp_path / "run").mkdir()
    header = make_header("jax", ("jax",), config, load(config.data), MACHINE)
    checkpoint = TrainResult(alone.history[:2], weights[1])
    write_checkpoint(tmp_path / "run" / CHECKPOINT, checkpoint, header)
    ours = run(Layout("jax", 2, 2), tmp_path, *flags(config), "--resume")
    assert [len(losses) for losses in ours.losses] == 2 * [3 * STEPS]
    difference = compare(ours, alone._replace(losses=[alone.losses[0][2 * STEPS :]]))
    assert equal(difference), difference


RANK = {"torch": "RANK", "jax": "JAX_PROCESS_ID"}  # the variable that holds a process's number


def start(layout: Layout, path: Path, *words: str) -> tuple[subprocess.Popen, list[int]]:
    """Start a run, and return when its log holds two epochs, with the ids of its processes."""
    command = [*layout.command(path / "losses"), *words, "--out", str(path / "run")]
    process = subprocess.Popen(
        command, cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1"},
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    log, ranks = path / "run" / "log.jsonl", {}
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 2):
        if len(ranks) < layout.processes and log.exists():
            for child in psutil.Process(process.pid).children(recursive=True):
                ranks[int(child.environ()[RANK[layout.framework]])] = child.pid
        time.sleep(0.005)
    return process, [ranks[rank] for rank in sorted(ranks)]


@pytest.mark.parametrize("adapter", [TORCH, JAX], ids=lambda adapter: adapter.name)
def test_one_of_two_processes_is_killed_and_one_goes_on(
    adapter: Adapter, folder, tmp_path, monkeypatch
):
    config = Config(**SETTINGS, epochs=60, data=str(folder))
    alone, weights = train_alone(adapter, config, monkeypatch)
    process, ids = start(Layout(adapter.name, 2), tmp_path, *flags(config))
    assert process.returncode is None, process.communicate()
    os.kill(ids[1], signal.SIGKILL)
    killed = time.monotonic()
    output, error = process.communicate(timeout=60)
    assert time.monotonic() - killed < 15
    assert process.returncode == 1
    # Process 0 may be stopped before it has noticed.
    lost = "error: process 0 of 2 has lost another one: connection"
    assert lost in error or "stopped." in error or "killed by SIGKILL, so the others st" in error
    assert "The last checkpoint is that of epoch" in error
    assert "--resume goes on from there" in error
    assert output.count("epoch  train loss") == 1  # only process 0 prints
    assert not any(map(psutil.pid_exists, ids))

    there, _ = read_checkpoint(tmp_path / "run" / CHECKPOINT)
    done = len(there.history)
    assert 2 <= done < config.epochs
    ours = Run(alone.losses, there.weights, there.history, FILES)
    until_then = alone._replace(weights=weights[done - 1], history=alone.history[:done])
    assert equal(compare(ours, until_then)), compare(ours, until_then)

    words = [*flags(config), "--resume", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    adapter.train.main()
    final = load_weights(tmp_path / "run" / "weights.safetensors")
    ours = Run(alone.losses, final, read_log(tmp_path / "run" / "log.jsonl")[1], FILES)
    assert equal(compare(ours, alone)), compare(ours, alone)


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
    for wrap in (lambda model: model, distribute):
        model = MLP(6, 5, 4, 3, 0.2 if keep else p1, 0.5, dtype="float64")
        network = wrap(model)
        optimizer = make_optimizer(network, 0.5)
        generator = torch.Generator().manual_seed(3)
        for _ in range(3):
            train_step(network, optimizer, x, labels, generator=generator, keep=masks)
        weights.append(model.get_weights())
    for name, array in weights[0].items():
        np.testing.assert_array_equal(array, weights[1][name])


def test_rows_are_divided_among_devices_before_and_after_the_network():
    mesh = AbstractMesh((2,), tuple(jax_parallel.ROWS), axis_types=(AxisType.Auto,))
    network = JAX.mlp.MLP(6, 5, 4, 3)
    assert jax_parallel.distribute(network) is network
    with jax.sharding.use_abstract_mesh(mesh):
        network = jax_parallel.distribute(network)
        x = jnp.zeros((4, 6))
        text = str(jax.make_jaxpr(lambda x: network(x, key=jax.random.key(0)))(x))
    assert re.findall(r"(f32\[.*\]) = sharding_constraint", text) == ["f32[4,6]", "f32[4,3]"]
    assert text.count("spec=P('devices',)") == 2


def header(**settings) -> dict:
    return make_header("torch", ("torch",), Config(**settings), load("sample"), MACHINE)


def of_two(rank: int, **others) -> Group:
    """Make a group of two, as one of them sees it. `others` are the settings of process 1."""
    return Group(rank, 2, lambda value: [value, value | others])


def test_other_settings_are_named_by_process_0():
    check_same_settings(ALONE, header())
    check_same_settings(of_two(0), header())
    with pytest.raises(InputError, match=r"process 1 of 2 .*: lr is 0.1 there and 0.5 in proc"):
        check_same_settings(of_two(0, lr=0.1), header())
    with pytest.raises(SystemExit, match="2"):
        check_same_settings(of_two(1, lr=0.1), header())
    sent = []
    for folder in ("here", "there"):  # only process 0 writes
        group = Group(0, 1, lambda value: sent.append(value) or [value])
        check_same_settings(group, header(out=Path(folder)))
    assert sent[0] == sent[1]


def test_a_lost_process_is_told_from_other_errors():
    two = of_two(1)
    message = "Gloo all-reduce failed: [pair.cc:547] Connection closed by peer [127.0.0.1]:1"
    for error in (RuntimeError(message), ValueError(message)):
        with (
            pytest.raises(LostProcessError, match=r"^process 1 of 2 .*: connection closed$"),
            watch(two),
        ):
            raise error
        with pytest.raises(type(error), match="Gloo"), watch(ALONE):
            raise error
    with pytest.raises(RuntimeError, match=r"^mat1"), watch(two):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_process_is_lost_before_the_first_epoch(tmp_path, monkeypatch, capsys):
    def gather(value):
        raise RuntimeError("Connection reset by peer")

    join = contextlib.nullcontext(Group(0, 2, gather))
    words = ["--data", "sample", "--out", str(tmp_path / "run")]
    monkeypatch.setattr(sys, "argv", ["train", *words])
    with pytest.raises(SystemExit, match="1"):
        train_main("torch", TORCH.train.train, lambda device: MACHINE, lambda config: join)
    assert capsys.readouterr().err == (
        "error: process 0 of 2 has lost another one: connection reset. "
        "--resume goes on from the last checkpoint\n"
    )


CHILD = """
import os, signal, sys, time
word = sys.argv[1 + int(os.environ["NUMBER"])]
if word == "wait": time.sleep(60)
if word == "die": os.kill(os.getpid(), signal.SIGKILL)
sys.exit(int(word))
"""


@pytest.mark.parametrize(
    ("children", "status", "message"),
    [
        (["0", "0"], 0, ""),
        (["wait", "3"], 3, ""),
        (["wait", "die"], 1, "error: process 1 of 2 was killed by SIGKILL, so the others stop"),
        (["die", "wait"], 1, "error: process 0 of 2 was killed by SIGKILL, so the others stop"),
    ],
)
def test_processes_that_were_started_end_together(children, status, message, monkeypatch, capsys):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", CHILD, *children])
    monkeypatch.setattr(launch, "GRACE", 0.1)
    before = psutil.Process().children()
    started = time.monotonic()
    assert launch.launch([{"NUMBER": str(number)} for number in range(2)]) == status
    assert time.monotonic() - started < 10
    assert message in capsys.readouterr().err
    assert psutil.Process().children() == before


def test_a_port_in_use():
    with socket.create_server(("", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=f"{address}: .*in use"):
            check_free(address)
    check_free(address)


@pytest.mark.parametrize("address", ["", "host", "host:", ":80", "host:x", "host:0", "host:65536"])
def test_no_address(address):
    with pytest.raises(InputError, match="must be HOST:PORT"):
        launch.check_address(address)
    assert launch.check_address("[::1]:80") == 80


PARENT = """
import subprocess, sys, time
subprocess.Popen([sys.executable, "-c", sys.argv[1]])
time.sleep(60)
"""
ORPHAN = """
import os, time
from shared.launch import end_with_launcher
end_with_launcher()
print(os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("launched", [True, False])
def test_a_process_ends_with_what_launched_it(launched, monkeypatch):
    if launched:
        monkeypatch.setenv(launch.LAUNCHED, "1")
    command = [sys.executable, "-c", PARENT, ORPHAN]
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as parent:
        assert parent.stdout
        orphan = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    _, alive = psutil.wait_procs([orphan], timeout=10 if launched else 2)
    assert bool(alive) is not launched
    for one in alive:
        one.kill()


def test_a_signal_to_the_launcher_is_its_status(monkeypatch, capsys):
    monkeypatch.setattr(sys, "orig_argv", ["python", "-c", CHILD, "wait", "wait"])
    threading.Timer(1, os.kill, (os.getpid(), signal.SIGTERM)).start()
    assert launch.launch([{"NUMBER": str(number)} for number in range(2)]) == 143
    assert capsys.readouterr().err == ""


def test_a_signal_that_becomes_another_error_stops_the_others_too():
    def train(*args, **more):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)
        except BaseException as stopped:
            raise ValueError("while checking equality of metadata") from stopped

    group = Group(1, 2, lambda value: [(None, False), value])
    with pytest.raises(SystemExit, match="143"):
        cli._follow(train, RunConfig(), load("sample"), group)


def test_the_others_learn_that_the_run_is_finished(monkeypatch):
    done = TrainResult([], {})
    group = Group(1, 2, lambda value: [(done, True), value])

    def train(*args, **more):
        raise AssertionError("there is nothing left to train")

    assert cli._follow(train, RunConfig(), load("sample"), group) is done


def test_the_others_do_not_come(monkeypatch, capsys):
    ended = []
    monkeypatch.setattr(shared_group, "JOIN_TIMEOUT", 0.01)
    monkeypatch.setattr(os, "_exit", ended.append)
    with deadline("127.0.0.1:1"):
        time.sleep(0.2)
    assert ended == [2]
    assert capsys.readouterr().err.startswith("error: not all processes connected to 127.0.0")
    monkeypatch.setattr(shared_group, "JOIN_TIMEOUT", 0.2)
    with deadline("127.0.0.1:1"):
        pass
    time.sleep(0.4)
    assert ended == [2]


def test_mistakes(folder, monkeypatch, capsys):
    words = ("--data", folder, "--epochs", 1, "--batch-size", 133, "--draws", 40)
    monkeypatch.setattr(sys, "argv", ["parallel_mistakes", *map(str, words)])
    mistakes.main()
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    found = {(line[0], int(line[1])): line[2:] for line in lines[2:10]}
    for count in (2, 4):
        assert found["right", count] == ["1.00", "1.00", "1.00", "0.0e+00"]
        for way in ("alike", "own", "means"):
            assert float(found[way, count][-1]) > 1e-4
    # The last step has 1 image. One of 2 processes takes its loss, and both divide by 2.
    assert found["means", 2][1:3] == ["0.50", "1.01"]


def test_masks_of_mistakes():
    config = Config(hidden_1=20, hidden_2=30)
    alike, own, right = (mistakes.draw(way, config, 8, 4, 5) for way in ("alike", "own", "right"))
    one = mistakes.draw("right", config, 8, 1, 5)
    for layer in range(2):
        assert len({tuple(map(tuple, part.tolist())) for part in alike[layer].split(2)}) == 1
        for masks in (own, right):
            assert len({tuple(map(tuple, part.tolist())) for part in masks[layer].split(2)}) == 4
        assert torch.equal(right[layer], one[layer])


ONE = Run(
    [np.zeros(3)], {"a": np.zeros(2), "b": np.zeros(2)},
    [{"epoch": 1, "train_loss": 1.0, "train_accuracy": 0.5, "test_loss": 1.0,
      "test_accuracy": 0.5, "seconds": 1.0}], FILES,
)  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "same"),
    [
        ({}, True),
        ({"losses": [np.zeros(3), np.array([0, 9e-13, 0])]}, True),
        ({"losses": [np.zeros(3), np.array([0, -2e-12, 0])]}, False),
        ({"weights": {"a": np.zeros(2), "b": np.array([0, -2e-10])}}, False),
        ({"history": [ONE.history[0] | {"seconds": 9.0}]}, True),
        ({"history": [ONE.history[0] | {"test_loss": 1 - 2e-12}]}, False),
        ({"files": [*FILES, "log-1.jsonl"]}, False),
    ],
)
def test_the_verdict(changes: dict, same: bool, monkeypatch, capsys):
    runs = {Layout("torch", 1): ONE, Layout("torch", 2): ONE._replace(**changes)}
    monkeypatch.setattr(equality, "LAYOUTS", tuple(runs))
    monkeypatch.setattr(equality, "run", lambda layout, *rest: runs[layout])
    monkeypatch.setattr(sys, "argv", ["parallel", "--batch-sizes", "7"])
    status = 0
    try:
        equality.main()
    except SystemExit as stop:
        status = stop.code
    assert status == (0 if same else 1)
    assert ("NOT THE SAME" in capsys.readouterr().out) is not same


def test_the_table_has_one_two_and_four_processes_and_devices():
    assert {(one.framework, one.processes) for one in LAYOUTS} == {
        (framework, n) for framework in ("torch", "jax") for n in (1, 2, 4)
    }
    assert {one.devices for one in LAYOUTS if one.framework == "jax"} == {1, 2, 4}
