"""Signals while the Hub is slow: the training ends as it should, says what is left, and leaves no uploader behind."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from support.forked import Child
from support.hub import Hub
from support.hub.machine import Machine, uploaders
from support.hub.pushed import SETTINGS

pytestmark = [pytest.mark.timeout(300), pytest.mark.usefixtures("warm")]

MANY = {**SETTINGS, "max_steps": 400, "epochs": 50, "save_steps": 2}
FEW = {**SETTINGS, "max_steps": 2, "push_timeout": 600}


@pytest.fixture
def machine(hub: Hub, tiny_model: Path, tmp_path: Path) -> Machine:
    return Machine(tmp_path / "machine", hub).furnish(tiny_model)


def in_a_hurry() -> None:
    """In a forked child: after a signal the Hub has a second."""
    from pitstop.trainers.training import pushing

    pushing.AFTER_SIGNAL_S = 1.0


def assert_no_uploader_is_left(hub: Hub) -> None:
    deadline = time.monotonic() + 10
    while uploaders(hub):
        assert time.monotonic() < deadline, "the uploader outlives its training"
        time.sleep(0.05)


def wait_for_a_commit_under_way(hub: Hub, child: Child) -> None:
    deadline = time.monotonic() + 60
    while not hub.requests("POST", "/commit/"):
        assert time.monotonic() < deadline, child.output()
        time.sleep(0.02)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_during_training_waits_for_a_slow_hub_only_shortly(
    number: signal.Signals, code: int, machine: Machine, hub: Hub
) -> None:
    hub.fault(path="/commit/", times=-1, delay=60.0)
    child = machine.start_training({**MANY, "push_timeout": 600}, prepare=in_a_hurry)
    wait_for_a_commit_under_way(hub, child)
    assert len(uploaders(hub)) == 1
    sent = time.monotonic()
    child.send(number)
    ended = child.wait(60)
    assert ended.code == code, ended.output
    assert time.monotonic() - sent < 20
    assert "not on the Hub yet; `pitstop push 1` sends what is left" in ended.output
    assert "Traceback" not in ended.output
    assert_no_uploader_is_left(hub)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_end_waits_for_the_hub_ends_the_waiting(number: signal.Signals, machine: Machine, hub: Hub) -> None:
    hub.fault(path="/commit/", times=-1, delay=60.0)
    child = machine.start_training(FEW)
    child.wait_for("Done after step 2")
    wait_for_a_commit_under_way(hub, child)
    child.wait_for("Waiting for the Hub, 10 m")
    sent = time.monotonic()
    child.send(number)
    ended = child.wait(60)
    assert ended.code == 0, ended.output
    assert time.monotonic() - sent < 5
    assert "No longer waiting for the Hub." in ended.output
    assert "2 checkpoints are not on the Hub yet; `pitstop push 1` sends what is left" in ended.output
    assert "Traceback" not in ended.output
    assert_no_uploader_is_left(hub)
    hub.faults.clear()
    pushed = machine.pitstop("push", 1)
    assert pushed.code == 0, pushed.output
    ((_, repo),) = hub.store.repositories
    assert {"checkpoint-1", "checkpoint-2"} <= {path.split("/")[0] for path in hub.tree(repo)}
