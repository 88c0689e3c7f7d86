"""How a training is run in this process or started in several, and who reports its errors."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest
import typer

from pitstop.cli.arguments.processes import speaking_for_all, start_or_join
from pitstop.configs.errors import ResourceError, RunError
from pitstop.trainers.machine import launch
from support.launched import one_of_two


@pytest.fixture
def rank(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes this process one of two."""

    def set_rank(number: int) -> None:
        one_of_two(monkeypatch, number)
        monkeypatch.setattr(launch, "AFTER_THE_CAUSE_S", 0.0)

    return set_rank


def test_one_process_trains_and_prints_its_summary(capsys: pytest.CaptureFixture[str]) -> None:
    result = SimpleNamespace(exit_code=143, summary={"step": 3})
    assert start_or_join(1, lambda display, notices: result, json_output=True, quiet=False) == 143
    captured = capsys.readouterr()
    assert captured.out == '{\n  "step": 3\n}\n' and captured.err == "Loading libraries …\n"


def test_several_processes_are_started_with_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[int, list[str]]] = []
    monkeypatch.setattr(launch, "launch", lambda count, arguments: started.append((count, list(arguments))) or 5)
    monkeypatch.setattr(sys, "argv", ["pitstop", "train", "--epochs", "1"])
    training: Any = pytest.fail
    assert start_or_join(2, training, json_output=False, quiet=True) == 5
    assert start_or_join(3, training, json_output=False, quiet=True, arguments=["resume", "1"]) == 5
    assert started == [(2, ["train", "--epochs", "1"]), (3, ["resume", "1"])]


def test_a_process_that_was_started_joins(rank: Any, capsys: pytest.CaptureFixture[str]) -> None:
    rank(1)
    result = SimpleNamespace(exit_code=0, summary={})
    assert start_or_join(2, lambda display, notices: result, json_output=False, quiet=False) == 0
    assert capsys.readouterr().out == ""


def test_the_first_process_reports_and_the_others_end_with_the_same_code(rank: Any) -> None:
    rank(0)
    with pytest.raises(RunError, match="no such run"), speaking_for_all():
        raise RunError("no such run")
    rank(1)
    with pytest.raises(typer.Exit) as ended, speaking_for_all():
        raise RunError("no such run")
    assert ended.value.exit_code == RunError.exit_code


def test_a_bug_is_reported_by_every_process(rank: Any) -> None:
    rank(1)
    with pytest.raises(ValueError, match="a bug"), speaking_for_all():
        raise ValueError("a bug")


def test_a_lost_process_is_named_as_the_cause(rank: Any) -> None:
    rank(0)
    with pytest.raises(ResourceError, match="another process of this training died") as raised, speaking_for_all():
        raise RuntimeError("Connection closed by peer")
    assert isinstance(raised.value.__cause__, RuntimeError)
    rank(1)
    with pytest.raises(typer.Exit) as ended, speaking_for_all():
        raise RuntimeError("Connection closed by peer")
    assert ended.value.exit_code == ResourceError.exit_code
