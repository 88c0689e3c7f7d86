"""Several processes: what is passed on to them, how many there are, which failed first, and what their exit codes become."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pitstop.configs.errors import ResourceError, SettingsError
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
    (notice,) = launch.prepare_environment()
    line = str(notice)
    assert (
        notice.loss
        and reason in line
        and all(f"{name}={value}" in line for name, value in variables.items() if not name.startswith("MASTER"))
    )
    assert not [name for name in variables if name in os.environ and not name.startswith("MASTER")]
    assert launch.prepare_environment() == []


def test_processes_that_are_started_hear_what_the_one_that_starts_them_noticed(
    environment: Callable[[dict[str, str]], None],
) -> None:
    environment({"PMI_SIZE": "2"})
    notices = launch.prepare_environment()
    launch.hand_down(notices)
    environment({**LAUNCHER, "RANK": "0"})
    assert len(notices) == 1 and launch.prepare_environment() == notices
    assert launch.prepare_environment() == []
    launch.hand_down(notices)
    environment(LAUNCHER)
    assert launch.prepare_environment() == []


def test_an_address_alone_claims_nothing(environment: Callable[[dict[str, str]], None]) -> None:
    environment({"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"})
    assert launch.prepare_environment() == []


def test_what_accelerate_launch_always_sets_is_not_worth_a_line(environment: Callable[[dict[str, str]], None]) -> None:
    environment({"ACCELERATE_MIXED_PRECISION": "no", "ACCELERATE_DYNAMO_BACKEND": "NO", "ACCELERATE_USE_CPU": "False"})
    assert launch.prepare_environment() == []
    assert not [name for name in os.environ if name.startswith("ACCELERATE_")]


Launched = Callable[[dict[int, int]], int]


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> Launched:
    """Launches three processes that end with these exit codes by rank, those of 0 left out; returns what ``launch`` does."""
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher import api

    monkeypatch.setattr(os, "environ", dict(os.environ))

    def run(codes: dict[int, int]) -> int:
        def elastic_launch(config: Any, executable: str) -> Callable[..., None]:
            assert (config.min_nodes, config.nproc_per_node, config.max_restarts) == (1, 3, 0)
            assert config.rdzv_backend == "static", "c10d unpickles what anybody on the network may write into its store"
            assert config.rdzv_endpoint.startswith("127.0.0.1:")

            def entry(*arguments: str) -> None:
                assert arguments == ("-P", "-m", "pitstop.cli", "train", "--epochs", "2")
                if codes:
                    failures: Any = {rank: SimpleNamespace(exitcode=code, timestamp=rank) for rank, code in codes.items()}
                    error = ChildFailedError.__new__(ChildFailedError)
                    error.failures = failures
                    raise error

            return entry

        monkeypatch.setattr(api, "elastic_launch", elastic_launch)
        return launch.launch(3, ["train", "--epochs", "2"])

    return run


@pytest.mark.parametrize(
    ("codes", "code"),
    [
        ({}, 0),
        ({0: 3, 1: 3}, 3),
        ({1: 4, 0: -signal.SIGTERM}, 4),  # elastic ended the first, because the second had ended badly
        ({0: 143, 1: 143, 2: 143}, 143),
        ({2: -signal.SIGKILL, 0: -signal.SIGTERM}, 137),
        ({0: -signal.SIGKILL, 1: 1}, 1),
    ],
)
def test_the_exit_code_is_that_of_the_cause(launched: Launched, codes: dict[int, int], code: int) -> None:
    assert launched(codes) == code


def test_of_a_process_that_was_killed_somebody_else_has_to_tell(launched: Launched, capsys: pytest.CaptureFixture[str]) -> None:
    launched({2: -signal.SIGKILL, 0: -signal.SIGTERM})
    text = capsys.readouterr().err
    assert "process 2 of 3 (counted from 0) was ended by SIGKILL" in text
    assert "process 0" not in text and "memory ran out" in text


def test_a_port_that_another_program_took_in_that_moment_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "environ", dict(os.environ))
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        monkeypatch.setattr(launch, "_free_port", lambda: port)
        with pytest.raises(ResourceError, match=f"cannot meet: .*{port}") as refused:
            launch.launch(2, ["--version"])
    assert "start again" in str(refused.value.hint)


def test_more_processes_than_devices_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(SettingsError, match="NUM_PROCESSES = 3: this machine has 2 CUDA devices") as refused:
        launch.launch(3, [])
    assert refused.value.hint == "Give --num-processes 2 or fewer."


def test_what_the_user_set_before_torch_is_imported_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", "7")
    monkeypatch.delenv("TOKENIZERS_PARALLELISM", raising=False)
    launch.prepare_environment()
    assert os.environ["GOMP_SPINCOUNT"] == "7" and os.environ["TOKENIZERS_PARALLELISM"] == "false"
