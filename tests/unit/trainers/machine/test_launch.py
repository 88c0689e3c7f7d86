"""What the process that starts several passes on to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pitstop.trainers.machine import launch

WORKER = """
import pathlib, signal, sys, time
signal.signal(signal.SIGHUP, lambda *_: sys.exit(7))
pathlib.Path("ready").touch()
time.sleep(30)
"""


def _launcher(*, ignored: bool) -> int:
    """Exit code of a worker whose launcher got SIGHUP; 77 where it still ran a while later."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN if ignored else signal.SIG_DFL)
    with launch.forwarding():
        worker = subprocess.Popen([sys.executable, "-c", WORKER])
        while not Path("ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGHUP)
        try:
            return worker.wait(0.5 if ignored else 20)
        except subprocess.TimeoutExpired:
            worker.kill()
            return 77


@pytest.mark.parametrize(("ignored", "code"), [(False, 7), (True, 77)], ids=["a terminal", "nohup"])
def test_a_hangup_is_passed_on_unless_it_is_ignored(ignored: bool, code: int) -> None:
    child = os.fork()
    if child == 0:
        try:
            os._exit(_launcher(ignored=ignored))
        finally:
            os._exit(99)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == code


LAUNCHER = {"RANK": "1", "WORLD_SIZE": "2", "LOCAL_RANK": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> Callable[[dict[str, str]], None]:
    """Sets the variables of a launcher and libraries, and takes all others of them away."""

    def set_to(variables: dict[str, str]) -> None:
        monkeypatch.setattr(os, "environ", {**os.environ, **variables})

    return set_to


def test_a_launcher_is_believed(environment: Callable[[dict[str, str]], None]) -> None:
    environment(LAUNCHER)
    assert launch.prepare_environment() == []
    assert (launch.is_worker(), launch.rank(), launch.world_size(), launch.local_rank()) == (True, 1, 2, 1)
    assert {name: os.environ[name] for name in LAUNCHER} == LAUNCHER


@pytest.mark.parametrize(
    ("variables", "reason"),
    [
        ({"RANK": "3"}, "WORLD_SIZE, LOCAL_RANK, MASTER_ADDR are not set"),
        ({"WORLD_SIZE": ""}, "RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR are not set"),
        ({"WORLD_SIZE": "auto"}, "are not set"),
        ({"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "a"}, "LOCAL_RANK is not set"),
        ({**LAUNCHER, "WORLD_SIZE": "auto"}, "WORLD_SIZE is not a number"),
        ({**LAUNCHER, "RANK": "-1"}, "RANK is not a number"),
        ({**LAUNCHER, "RANK": "²"}, "RANK is not a number"),
        ({**LAUNCHER, "MASTER_PORT": "http"}, "MASTER_PORT is not a number"),
        ({**LAUNCHER, "RANK": "2"}, "RANK is not below WORLD_SIZE"),
        ({**LAUNCHER, "LOCAL_RANK": "7"}, "LOCAL_RANK is not below WORLD_SIZE"),
        ({**LAUNCHER, "WORLD_SIZE": "0"}, "RANK is not below WORLD_SIZE"),
        ({"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}, "are not set"),
        ({"PMI_SIZE": "2"}, "are not set"),
    ],
)
def test_what_is_no_launcher_is_told_once_and_forgotten(
    variables: dict[str, str], reason: str, environment: Callable[[dict[str, str]], None]
) -> None:
    environment(variables)
    assert not launch.is_worker() and launch.rank() == 0
    (line,) = launch.prepare_environment()
    assert reason in line and all(f"{name}={value}" in line for name, value in variables.items() if not name.startswith("MASTER"))
    assert not [name for name in variables if name in os.environ and not name.startswith("MASTER")]
    assert launch.prepare_environment() == []


def test_an_address_alone_claims_nothing(environment: Callable[[dict[str, str]], None]) -> None:
    environment({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    assert launch.prepare_environment() == []


def test_what_accelerate_launch_always_sets_is_not_worth_a_line(environment: Callable[[dict[str, str]], None]) -> None:
    environment({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_CPU": "False"})
    assert launch.prepare_environment() == []
    assert not [name for name in os.environ if name.startswith("ACCELERATE_")]
