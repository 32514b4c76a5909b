"""A part of `python -m tests.crash`, and whether it sees what is broken on purpose."""

import json
import os
import re
import shutil
import signal

import pytest

from shared.cli import one_line_errors
from tests.crash import kills, power
from tests.crash.__main__ import JSON, PAGE, rendered

needs_strace = pytest.mark.skipif(not shutil.which("strace"), reason="strace is missing")


@pytest.mark.slow
def test_runs_that_are_stopped_end_the_same(tmp_path, monkeypatch):
    for counts in kills.measure(("torch", "jax"), 1, tmp_path).values():
        assert not {*counts} & {*kills.FAILURES}, counts
        assert counts[kills.SAME] + counts[kills.MIXED] == 1


def test_ctrl_c_is_silent_before_and_after_a_command():
    before = signal.signal(signal.SIGINT, signal.SIG_DFL)  # as shared/__init__.py leaves it
    try:
        with one_line_errors():
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


@needs_strace
def test_nothing_is_lost_with_the_power(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda _: None)  # in the runs that go on: this saves seconds
    problems = [problem for _, problem in power.power_losses(tmp_path)]
    assert len(problems) > 50
    assert not any(problems), problems


@needs_strace
@pytest.mark.parametrize(
    "broken",
    ["shared.run.os.fsync = lambda _: None",
     "shared.run.write_whole = lambda path, content: path.write_bytes(content)"],
    ids=["no fsync", "no rename"],
)  # fmt: skip
def test_the_simulated_disk_sees_what_is_broken(broken, tmp_path):
    assert any(problem for _, problem in power.power_losses(tmp_path, broken))


@needs_strace
@pytest.mark.slow
def test_nothing_is_lost_when_a_system_call_fails(tmp_path):
    problems = [problem for _, problem in power.system_calls(tmp_path, every=7)]
    assert len(problems) > 20
    assert not any(problems), problems


def test_the_figures_of_the_page():
    page, results = PAGE.read_text(), json.loads(JSON.read_text())
    assert rendered(page, results) == page
    prose = re.sub(r"^\|.*", "", page, flags=re.M)
    assert re.findall(r"\d+", prose) == ["130", "143", str(kills.EPOCHS), str(power.EPOCHS)]
    for name in ("torch", "jax"):
        assert not {*results["kills"][name]} & {*kills.FAILURES}
    assert not any(of["lost"] for of in results["power"].values())
