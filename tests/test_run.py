"""A run that is stopped at any moment goes on, and ends as if it had never been stopped."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

import shared.run
from shared.data import load
from shared.records import read_log
from shared.run import CHECKPOINT, LOG, WEIGHTS, Run
from shared.weights import load_weights, read_file
from tests.adapters import JAX, TORCH, WITH_GRADIENT, Adapter
from tests.conftest import small, write_folder

ROOT = Path(__file__).parents[1]
EPOCHS = 4
FINISHED = [".lock", LOG, WEIGHTS]


class Killed(BaseException):
    """Stands for the end of a process, which nothing catches."""


def result(out: Path) -> tuple[bytes, list]:
    """Return what a run left behind, without times and the name of the folder."""
    lines = [json.loads(line) for line in (out / LOG).read_text().splitlines()]
    for line in lines:
        line.pop("seconds", None)
        line.get("config", {}).pop("out", None)
    return (out / WEIGHTS).read_bytes(), lines


def names(out: Path) -> list[str]:
    return sorted(path.name for path in out.iterdir())


@pytest.fixture(scope="module")
def flags(tmp_path_factory) -> list[str]:
    folder = write_folder(tmp_path_factory.mktemp("data"), small())
    return ["--epochs", str(EPOCHS), "--hidden-1", "32", "--hidden-2", "16", "--data", str(folder)]


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory) -> dict[str, tuple[bytes, list]]:
    """The result of a run of each framework that was never stopped."""
    results = {}
    for adapter in WITH_GRADIENT:
        out = tmp_path_factory.mktemp(adapter.name)
        adapter.train.main([*flags, "--out", str(out)])
        results[adapter.name] = result(out)
    return results


@pytest.fixture(autouse=True)
def ctrl_c_as_in_a_shell():
    """Handle Ctrl-C as Python does. A process that a shell starts in the background ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture
def command(flags, tmp_path):
    """A function that runs a train command in the folder `run`."""
    return lambda of, *more: of.train.main([*flags, "--out", str(tmp_path / "run"), *more])


@pytest.fixture
def at_epoch(monkeypatch):
    """A function that lets something happen in the middle of an epoch."""

    def arrange(of: Adapter, epoch: int, happen) -> None:
        real = of.train.train_epoch

        def train_epoch(*arguments):
            outcome = real(*arguments)
            if arguments[-1] == epoch:
                monkeypatch.setattr(of.train, "train_epoch", real)
                happen()
            return outcome

        monkeypatch.setattr(of.train, "train_epoch", train_epoch)

    return arrange


def kill() -> None:
    raise Killed


def stopped(command, at_epoch, of: Adapter, *more: str, epoch: int = 3) -> None:
    """Leave the folder of a run that was killed in an epoch."""
    at_epoch(of, epoch, kill)
    with pytest.raises(Killed):
        command(of, *more)


def refusal(capsys, command, of: Adapter, *more: str) -> str:
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        command(of, *more)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    return error


def test_what_a_run_leaves_behind(trainable: Adapter, command, flags, tmp_path, monkeypatch):
    out, seen = tmp_path / "run", []

    class Printed(io.StringIO):
        """What is printed. Each line of an epoch looks whether its checkpoint is there."""

        def write(self, text):
            if re.match(r" +\d", text):
                weights, metadata = read_file(out / "unfinished" / CHECKPOINT)
                seen.append(
                    (len(json.loads(metadata["log"])) - 1, weights["linear_3.bias"].tobytes())
                )
            return super().write(text)

    monkeypatch.setattr(sys, "stdout", Printed())
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command(trainable)
    lines = sys.stdout.getvalue().splitlines()
    assert lines[0] == f"{trainable.name}: {flags[-1]}: 600 + 200 images"
    assert [line.split()[0] for line in lines[1:6]] == ["epoch", "1", "2", "3", "4"]
    assert lines[-1] == f"log and weights: {out / LOG}, {out / WEIGHTS}"
    assert [epoch for epoch, _ in seen] == [1, 2, 3, 4]
    assert len({weights for _, weights in seen}) == 4
    assert names(out) == FINISHED
    (header,), records = read_log(out / LOG)
    assert (header["framework"], header["data"]) == (trainable.name, flags[-1])
    assert header["images"] == "600 + 200"
    assert header["sha256"] == load(flags[-1]).sha256
    assert header["config"]["hidden_1"] == 32
    assert trainable.name in header["versions"]
    assert header["machine"]["OMP_NUM_THREADS"] == "1"
    assert header["machine"]["device"].lower().startswith(("cpu", "tfrt_cpu"))
    assert [record["epoch"] for record in records] == [1, 2, 3, 4]


@pytest.mark.parametrize("every", ["1", "2"])
@pytest.mark.parametrize("epoch", [1, 4])
def test_a_killed_run_that_goes_on_ends_the_same(
    trainable: Adapter, command, at_epoch, every, epoch, undisturbed, tmp_path, capsys
):
    flags = ("--checkpoint-every", every)
    stopped(command, at_epoch, trainable, *flags, epoch=epoch)
    assert not (tmp_path / "run" / WEIGHTS).exists()
    command(trainable, *flags, "--resume")
    saved = (epoch - 1) // int(every) * int(every)
    assert (f"going on after epoch {saved}\n" in capsys.readouterr().out) == (saved > 0)
    assert result(tmp_path / "run") == undisturbed[trainable.name]
    assert names(tmp_path / "run") == FINISHED


def test_a_run_may_be_killed_again_and_again(command, at_epoch, undisturbed, tmp_path, capsys):
    for epoch in (2, 3, 4):
        stopped(command, at_epoch, TORCH, "--resume", epoch=epoch)
    command(TORCH, "--resume")
    going_on = re.findall(r"going on after epoch (\d)", capsys.readouterr().out)
    assert going_on == ["1", "2", "3"]
    assert result(tmp_path / "run") == undisturbed["torch"]


def test_the_first_ctrl_c_stops_after_the_epoch(
    trainable: Adapter, command, at_epoch, undisturbed, tmp_path, capsys
):
    at_epoch(trainable, 2, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(SystemExit) as stop:
        command(trainable, "--checkpoint-every", "3")
    assert stop.value.code == 130
    said = capsys.readouterr()
    assert said.err == "\nstopped after epoch 2. --resume goes on from there\n"
    assert said.out.splitlines()[-1].split()[0] == "2"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler  # as before
    command(trainable, "--checkpoint-every", "3", "--resume")
    assert result(tmp_path / "run") == undisturbed[trainable.name]


def test_a_second_ctrl_c_stops_at_once(command, at_epoch, undisturbed, tmp_path, capsys):
    def twice() -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("the second one did nothing")

    at_epoch(TORCH, 2, twice)
    with pytest.raises(SystemExit) as stop:
        command(TORCH)
    said = capsys.readouterr()
    assert (stop.value.code, said.err) == (130, "\nstopped\n")
    assert said.out.splitlines()[-1].split()[0] == "1"
    command(TORCH, "--resume")
    assert result(tmp_path / "run") == undisturbed["torch"]


@pytest.mark.parametrize("moment", [LOG, WEIGHTS, f"unfinished/{LOG}", f"unfinished/{CHECKPOINT}"])
def test_a_run_that_was_killed_when_it_finished_is_finished(
    command, moment, undisturbed, tmp_path, monkeypatch
):
    out = tmp_path / "run"
    real_write, real_unlink = shared.run.write_whole, Path.unlink

    def write(path, content):
        if path == out / moment and "unfinished" not in moment:
            raise Killed
        real_write(path, content)

    def unlink(path, missing_ok=False):
        if path == out / moment:
            raise Killed
        real_unlink(path, missing_ok)

    monkeypatch.setattr(shared.run, "write_whole", write)
    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(Killed):
        command(TORCH)
    monkeypatch.undo()
    monkeypatch.setattr(TORCH.train, "train_epoch", pytest.fail)  # nothing is left to train
    command(TORCH, "--resume")
    assert result(out) == undisturbed["torch"]
    assert names(out) == FINISHED


def test_a_run_is_not_overwritten_unasked_and_the_old_one_stays_until_the_end(
    command, at_epoch, undisturbed, tmp_path, capsys
):
    out = tmp_path / "run"
    command(TORCH)
    assert "holds a finished run. --overwrite replaces it" in refusal(capsys, command, TORCH)
    stopped(command, at_epoch, TORCH, "--overwrite", "--seed", "1")
    assert result(out) == undisturbed["torch"]
    assert "holds a run that was stopped. --resume goes on with it" in refusal(
        capsys, command, TORCH
    )
    assert result(out) == undisturbed["torch"]
    stopped(command, at_epoch, TORCH, "--overwrite", "--seed", "1", epoch=2)
    command(TORCH, "--resume", "--seed", "1")
    assert "going on after epoch 1\n" in capsys.readouterr().out
    weights, (header, *_) = result(out)
    assert header["config"]["seed"] == 1
    assert weights != undisturbed["torch"][0]
    command(TORCH, "--overwrite")
    assert result(out) == undisturbed["torch"]


def test_resume_of_a_finished_run_changes_nothing_and_of_none_begins(
    command, undisturbed, tmp_path, capsys
):
    command(TORCH, "--resume")
    assert result(tmp_path / "run") == undisturbed["torch"]
    files = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    capsys.readouterr()
    for adapter in (TORCH, JAX):
        command(adapter, "--resume")
        said = capsys.readouterr()
        assert said.out == f"the run in {tmp_path / 'run'} is finished already (made with torch)\n"
        assert said.err == ""
    assert {path: path.read_bytes() for path in files} == files


@pytest.mark.parametrize(
    ("changed", "message"),
    [(("--lr", "0.1"), "lr was 0.5 and is now 0.1"),
     (("--epochs", "9", "--p1", "0.4"), "epochs was 4 and is now 9; p1 was 0.2 and is now 0.4"),
     (("--dtype", "float64"), "dtype was float32 and is now float64")],
    ids=str,
)  # fmt: skip
def test_other_settings_are_refused(command, at_epoch, changed, message, tmp_path, capsys):
    stopped(command, at_epoch, TORCH)
    checkpoint = tmp_path / "run" / "unfinished" / CHECKPOINT
    before = checkpoint.read_bytes()
    said = refusal(capsys, command, TORCH, "--resume", *changed)
    assert said == f"error: cannot go on with the run in {tmp_path / 'run'}: {message}\n"
    assert checkpoint.read_bytes() == before


def test_other_data_of_the_same_size_is_refused(at_epoch, flags, tmp_path, capsys):
    folder = write_folder(tmp_path / "data", small())
    words = [*flags[:-1], str(folder), "--out", str(tmp_path / "run")]
    stopped(lambda of, *_: of.train.main(words), at_epoch, TORCH)
    pixels = small().train_images.copy()
    pixels[0, 0, 0] ^= 1
    write_folder(folder, small(train_images=pixels))
    said = refusal(capsys, lambda of, *_: of.train.main([*words, "--resume"]), TORCH)
    assert re.search(r": sha256 was \w{64} and is now \w{64}$", said)


def test_a_run_that_went_on_in_another_framework_says_so(command, at_epoch, tmp_path, capsys):
    stopped(command, at_epoch, TORCH)
    capsys.readouterr()
    command(JAX, "--resume")
    note = capsys.readouterr().err
    assert note.startswith("note: framework was torch and is now jax")
    assert note.count("\n") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / LOG).read_text().splitlines()]
    assert [line.get("framework", line.get("epoch")) for line in lines] == (
        ["torch", 1, 2, "jax", 3, 4]
    )
    _, metadata = read_file(tmp_path / "run" / WEIGHTS)
    assert [line["framework"] for line in json.loads(metadata["log"]) if "framework" in line] == (
        ["torch", "jax"]
    )
    command(TORCH, "--resume")
    assert "is finished already (made with torch and jax)" in capsys.readouterr().out


def test_two_runs_do_not_share_a_folder(command, at_epoch, undisturbed, tmp_path, capsys):
    seen = []
    at_epoch(TORCH, 2, lambda: seen.append(refusal(capsys, command, JAX, "--overwrite")))
    command(TORCH)
    assert seen == [f"error: another process writes to {tmp_path / 'run'}\n"]
    assert result(tmp_path / "run") == undisturbed["torch"]
    with FileLock(tmp_path / "run" / ".lock"):
        assert "another process" in refusal(capsys, command, TORCH, "--resume")


def test_a_loss_that_is_no_number_is_one_line_and_status_1(
    trainable: Adapter, command, tmp_path, capsys
):
    with pytest.raises(SystemExit) as stop:
        command(trainable, "--lr", "1e38")
    assert stop.value.code == 1
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: the loss is (nan|inf) at step \d, in epoch 1\. .*\n", said)
    assert not (tmp_path / "run" / WEIGHTS).exists()


# Several processes, each with the others played by `gather`.


def group(flags, out: Path, others, rank: int = 0) -> Run:
    """Return the run of one process. `others(value)` is what the other one passes to `gather`."""
    run = Run("torch", [*flags, "--out", str(out)])
    run.writes = rank == 0
    run.gather = lambda value: [value, others(value)] if run.writes else [others(value), value]
    return run


@pytest.mark.parametrize("rank", [0, 1])
def test_a_problem_in_one_process_ends_all_with_one_message(rank, flags, tmp_path, capsys):
    run = group(flags, tmp_path, lambda _: ("no such folder", None, None), rank)
    with pytest.raises(SystemExit) as stop, run:
        pytest.fail("it began")
    assert stop.value.code == 2
    assert capsys.readouterr().err == ("" if rank else "error: process 1: no such folder\n")


def test_other_settings_in_one_process_are_named(flags, tmp_path, capsys):
    def other(value):
        problem, header, state = value
        machine = {**header["machine"], "processor": "of a test", "cores": 7}  # these may differ
        return problem, {**header, "machine": machine, **changes}, state

    changes = {}
    with group(flags, tmp_path, other):
        pass
    changes["sha256"] = "0"
    with pytest.raises(SystemExit) as stop, group(flags, tmp_path, other):
        pytest.fail("it began")
    assert stop.value.code == 2
    said = capsys.readouterr().err
    assert re.fullmatch(r"error: process 1: sha256 is 0, and \w{64} in process 0\n", said)


def test_a_signal_to_one_process_stops_all(flags, tmp_path, capsys):
    signals = iter([0, signal.SIGTERM])
    run = group(flags, tmp_path, lambda v: v if isinstance(v, tuple) else next(signals))
    model, optimizer, arrays = TORCH.network(run.config, small())

    def train() -> None:
        with run:
            run.restore(model, "cpu")
            for record in TORCH.train.train(model, optimizer, arrays, run.config):
                run.save(record, model)

    with pytest.raises(SystemExit) as stop:
        train()
    assert stop.value.code == 143
    assert "stopped after epoch 2. --resume" in capsys.readouterr().err
    assert (tmp_path / "unfinished" / CHECKPOINT).exists()


# Real processes.


@pytest.fixture
def start(flags):
    """A function that starts a train command as a process. None survives the test."""
    started = []

    def process(of: Adapter, out: Path, *more: str, **env: str) -> subprocess.Popen:
        words = ["-m", f"impls.{of.name}.train", *flags, "--out", str(out), *more]
        env = {**os.environ, **env}
        pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        started.append(subprocess.Popen([sys.executable, *words], cwd=ROOT, env=env, **pipes))
        return started[-1]

    yield process
    for one in started:
        one.kill()
        one.communicate()


def test_the_environment_does_not_change_the_weights_of_jax(start, undisturbed, tmp_path):
    env = {"JAX_DEFAULT_PRNG_IMPL": "rbg", "JAX_THREEFRY_PARTITIONABLE": "0",
           "JAX_RANDOM_SEED_OFFSET": "7", "OMP_NUM_THREADS": "1"}  # fmt: skip
    process = start(JAX, tmp_path, **env)
    _, error = process.communicate(timeout=100)
    assert (process.returncode, error) == (0, "")
    (tmp_path / "undisturbed").write_bytes(undisturbed["jax"][0])
    expected = load_weights(tmp_path / "undisturbed")
    for name, array in load_weights(tmp_path / WEIGHTS).items():
        np.testing.assert_array_equal(array, expected[name])


@pytest.mark.slow
def test_sigterm_stops_a_process_after_the_epoch(start, tmp_path):
    process = start(TORCH, tmp_path, "--epochs", "100000")
    while process.poll() is None and not (tmp_path / "unfinished" / CHECKPOINT).exists():
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 143
    assert re.fullmatch(r"\nstopped after epoch \d+\. --resume goes on from there\n", error)


@pytest.mark.parametrize("seconds", [0, 0.3, 1.2])
def test_ctrl_c_while_a_command_is_imported_ends_it_without_a_traceback(
    trainable: Adapter, start, tmp_path, seconds: float
):
    # Python says which import it has finished. Before ours begin, nothing can be done.
    process = start(trainable, tmp_path, "--epochs", "1000", PYTHONPROFILEIMPORTTIME="1")
    while not process.stderr.readline().endswith(" shared\n"):
        assert process.poll() is None
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    error = process.stderr.read()
    assert process.wait(60) in (130, -signal.SIGINT)
    assert "Traceback" not in error
