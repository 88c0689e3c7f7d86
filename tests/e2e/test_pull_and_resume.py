"""A run that went to the Hub and came back to an empty machine ends, byte for byte, where an uninterrupted one does."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.forked import kill_at_step, pitstop
from support.repositories import REPO, FakeHub, Files, push
from support.training import arguments, assert_same_end, checkpoints, metadata

pytestmark = pytest.mark.usefixtures("warm")

BY_STEPS = {"save_strategy": "steps", "save_steps": 3, "eval_steps": 6, "keep_last_n": None, "sync_save": True}


def online(files: Files) -> Callable[[], None]:
    """Makes a child see a Hub with this repository."""

    def prepare() -> None:
        from pitstop.checkpointing.hub import client

        client.HubClient = lambda token=None: FakeHub(files)  # type: ignore[assignment,misc]

    return prepare


@pytest.mark.parametrize(("settings", "base"), [(BY_STEPS, True), ({"sync_save": True}, False)], ids=["base", "epochs"])
def test_a_pulled_run_ends_where_the_uninterrupted_one_does(
    settings: dict[str, object], base: bool, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    whole, lost, here = tmp_path / "whole", tmp_path / "lost", tmp_path / "here"
    assert pitstop(*arguments(tiny_model, data, whole, **settings)).code == 0
    killed = pitstop(*arguments(tiny_model, data, lost, **settings), prepare=kill_at_step(10))
    assert killed.code == -signal.SIGKILL, killed.output
    files = push(RunDirectory(lost / "run_001"), base=base)
    lost.rename(tmp_path / "gone")

    ended = pitstop("resume", "--from-hub", REPO, "--base-dir", here, prepare=online(files))
    assert ended.code == 0, ended.output
    assert ("saving the" in ended.output.lower() or "saved base model" in ended.output) != base
    assert_same_end(whole / "run_001", here / "run_001")
    assert metadata(here / "run_001")["status"] == "completed"
    assert metadata(here / "run_001")["resumes"][-1]["checkpoint"] == (
        "checkpoint-9" if "save_steps" in settings else "epoch_001"
    )
    assert pitstop("verify", "--base-dir", here).code == 0


def test_an_older_checkpoint_is_pulled_and_then_resumed_by_number(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    whole, here = tmp_path / "whole", tmp_path / "here"
    assert pitstop(*arguments(tiny_model, data, whole, **BY_STEPS)).code == 0
    files = push(RunDirectory(whole / "run_001"))
    ended = pitstop("pull", f"{REPO}@checkpoint-9", "--run-number", 4, "--base-dir", here, prepare=online(files))
    assert ended.code == 0 and "Go on with: pitstop resume 4" in ended.output, ended.output
    assert checkpoints(here / "run_004") == ["checkpoint-9"]
    ended = pitstop("resume", 4, "--base-dir", here)
    assert ended.code == 0, ended.output
    assert_same_end(whole / "run_001", here / "run_004")


def test_a_finished_run_that_is_pulled_trains_on_with_more_epochs(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    whole, here = tmp_path / "whole", tmp_path / "here"
    assert pitstop(*arguments(tiny_model, data, whole)).code == 0
    files = push(RunDirectory(whole / "run_001"))
    ended = pitstop("resume", "--from-hub", REPO, "--base-dir", here, prepare=online(files))
    assert ended.code == 0 and metadata(here / "run_001")["status"] == "completed", ended.output
    assert_same_end(whole / "run_001", here / "run_001")
    ended = pitstop("resume", 1, "--base-dir", here)
    assert ended.code == 2 and "is finished" in ended.output, ended.output
    ended = pitstop("resume", 1, "--epochs", 3, "--base-dir", here)
    assert ended.code == 0, ended.output
    assert checkpoints(here / "run_001") == ["epoch_002", "epoch_003"]
