"""The two ways into a training: what is prepared, when a new run takes a resumed one's place, and who speaks."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import pytest

from pitstop.configs.errors import CheckpointError, RunError
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training import worker
from pitstop.trainers.training.request import ResumeRequest
from pitstop.trainers.training.trainer import Result
from support.displays import Lines
from support.launched import one_of_two

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Steps:
    """Stands for the preparation and the trainer, and notes what is done with them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.log: list[Any] = []
        self.refusal: Exception | None = None
        self.while_preparing: Callable[[], None] = lambda: None
        monkeypatch.setattr(worker, "prepare_new", self.new)
        monkeypatch.setattr(worker, "prepare_resumed", self.resumed)
        monkeypatch.setattr(worker, "start_again", lambda request: "the settings of its start")
        monkeypatch.setattr(worker, "Trainer", lambda preparation: SimpleNamespace(run=lambda: self.train(preparation)))

    def new(
        self, loaded: Any, now: datetime, device: Any, reporter: Reporter, stack: contextlib.ExitStack, metadata: Any = None
    ) -> str:
        self.while_preparing()
        self.log.append(("new", loaded, metadata))
        reporter.line("prepared")
        stack.callback(self.log.append, "closed")
        return "a new run"

    def resumed(self, request: ResumeRequest, device: Any, reporter: Reporter, stack: contextlib.ExitStack) -> str:
        stack.callback(self.log.append, "closed")
        if self.refusal is not None:
            raise self.refusal
        return "a resumed run"

    def train(self, preparation: str) -> Result:
        self.log.append(("train", preparation))
        return Result(0, {"status": "completed"})


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    return Steps(monkeypatch)


def test_a_new_run_is_prepared_trained_and_left(steps: Steps) -> None:
    display, loaded = Lines(), SimpleNamespace()
    result = worker.train(loaded, now=NOW, display=display)  # type: ignore[arg-type]
    assert result == Result(0, {"status": "completed"})
    assert steps.log == [("new", loaded, None), ("train", "a new run"), "closed"]
    assert display.lines == ["prepared"]


def test_a_resumed_run_is_trained_before_its_lock_is_left(steps: Steps) -> None:
    worker.resume(ResumeRequest("runs", "3"), now=NOW, display=Lines())
    assert steps.log == [("train", "a resumed run"), "closed"]


def test_without_a_checkpoint_the_error_is_the_end(steps: Steps) -> None:
    steps.refusal = CheckpointError("there is no checkpoint")
    with pytest.raises(CheckpointError):
        worker.resume(ResumeRequest("runs", "3"), now=NOW, display=Lines())
    assert steps.log == ["closed"]


def test_fallback_new_starts_a_new_run_once_the_old_one_is_left(steps: Steps) -> None:
    steps.refusal = CheckpointError("there is no checkpoint")
    display = Lines()
    worker.resume(ResumeRequest("runs", "3", fallback_new=True), now=NOW, display=display)
    new = ("new", "the settings of its start", {"instead_of": "3"})
    assert steps.log == ["closed", new, ("train", "a new run"), "closed"]
    (warning,) = display.warnings
    assert "there is no checkpoint" in warning and "as --fallback new says" in warning


def test_fallback_new_is_no_answer_to_another_error(steps: Steps) -> None:
    steps.refusal = RunError("run_003 is in use")
    with pytest.raises(RunError):
        worker.resume(ResumeRequest("runs", "3", fallback_new=True), now=NOW, display=Lines())


def test_only_the_first_process_speaks(steps: Steps, monkeypatch: pytest.MonkeyPatch) -> None:
    one_of_two(monkeypatch, 1)
    display = Lines()
    worker.train(SimpleNamespace(), now=NOW, display=display)  # type: ignore[arg-type]
    assert display.lines == []


def test_sigterm_before_training_ends_the_process_at_once(steps: Steps) -> None:
    steps.while_preparing = lambda: os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        worker.train(SimpleNamespace(), now=NOW, display=Lines())  # type: ignore[arg-type]
    assert ended.value.code == 143 and steps.log == []
