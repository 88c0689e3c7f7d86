"""A resumed run ends, byte for byte, where an uninterrupted one does."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from support.forked import kill_at_step, pitstop
from support.training import arguments, assert_same_end, checkpoints, metadata
from support.trials import Trainings

pytestmark = pytest.mark.usefixtures("warm")

EVERY_THREE_STEPS = {"save_strategy": "steps", "save_steps": 3, "eval_steps": 3}
EARLY_STOP = {"epochs": 12, "mode": "max", "early_stopping_patience": 2}


@pytest.mark.by_turns("method")
@pytest.mark.parametrize("method", ["qlora", "lora"])
@pytest.mark.parametrize(("packing", "accumulation", "epochs"), [(True, 1, 2), (True, 4, 8), (False, 4, 3), (False, 1, 1)])
def test_killed_and_terminated_run_ends_where_the_uninterrupted_one_does(
    tiny_model: Path, data: Path, tmp_path: Path, method: str, packing: bool, accumulation: int, epochs: int
) -> None:
    settings = {
        "method": method,
        "gradient_accumulation_steps": accumulation,
        "packing" if packing else "no_packing": True,
        "epochs": epochs,
        "save_strategy": "steps",
        "save_steps": 2,
    }
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert pitstop(*arguments(tiny_model, data, whole, **settings)).code == 0

    assert pitstop(*arguments(tiny_model, data, broken, **settings), prepare=kill_at_step(3)).code == -signal.SIGKILL
    ended = pitstop("resume", "--base-dir", broken, prepare=kill_at_step(5, signal.SIGTERM))
    assert ended.code == 143, ended.output
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 0, ended.output
    assert_same_end(whole / "run_001", broken / "run_001")


@pytest.mark.parametrize("step", [2, 6, 7, 11, 12])
def test_kill_at_any_moment_of_an_epoch_resumes_exactly(
    trainings: Trainings, tiny_model: Path, data: Path, tmp_path: Path, step: int
) -> None:
    settings = {"save_strategy": "steps", "save_steps": 1, "eval_steps": 4, "keep_last_n": 2}
    whole, broken = trainings.reference("a checkpoint at every step", settings).run, tmp_path / "broken"
    assert pitstop(*arguments(tiny_model, data, broken, **settings), prepare=kill_at_step(step)).code == -signal.SIGKILL
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 0, ended.output
    assert_same_end(whole, broken / "run_001")


def test_signal_at_a_due_evaluation_puts_it_off_and_the_resumed_run_makes_up_for_it(
    trainings: Trainings, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    whole, broken = trainings.reference("evaluations every three steps", EVERY_THREE_STEPS).run, tmp_path / "broken"
    ended = pitstop(*arguments(tiny_model, data, broken, **EVERY_THREE_STEPS), prepare=kill_at_step(6, signal.SIGTERM))
    assert ended.code == 143
    assert "checkpoint-6-pending" in checkpoints(broken / "run_001")
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 0, ended.output
    assert_same_end(whole, broken / "run_001")
    assert "checkpoint-6" in checkpoints(broken / "run_001")


def test_eight_bit_optimizer_best_and_patience_survive_interruptions(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    # The loss falls; asked for a large one, the first evaluation stays the best and patience runs out with the third.
    settings = {"optimizer": "adamw_8bit", "epochs": 12, "mode": "max", "early_stopping_patience": 2, "keep_last_n": 2}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    ended = pitstop(*arguments(tiny_model, data, whole, **settings))
    assert ended.code == 0, ended.output
    assert "Stopped early" in ended.output
    assert pitstop(*arguments(tiny_model, data, broken, **settings), prepare=kill_at_step(9)).code == -signal.SIGKILL
    assert pitstop("resume", 1, "--base-dir", broken, prepare=kill_at_step(14, signal.SIGINT)).code == 130
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 0, ended.output
    assert_same_end(whole / "run_001", broken / "run_001")
    best = [(base / "run_001/lora_weights/best").resolve().name for base in (whole, broken)]
    assert best[0] == best[1]


def test_a_moved_base_directory_resumes_exactly(trainings: Trainings, tiny_model: Path, data: Path, tmp_path: Path) -> None:
    whole, broken, moved = trainings.reference("as usual", {}).run, tmp_path / "broken", tmp_path / "elsewhere" / "moved"
    assert pitstop(*arguments(tiny_model, data, broken), prepare=kill_at_step(8)).code == -signal.SIGKILL
    moved.parent.mkdir()
    broken.rename(moved)
    ended = pitstop("resume", moved / "run_001")
    assert ended.code == 0, ended.output
    assert_same_end(whole, moved / "run_001")


def _dies_before_its_last_word() -> None:
    """Kill the process after the last save, before the run is marked as done."""
    from pitstop.trainers.training.trainer import Trainer

    Trainer.conclude = lambda *_: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment]


@pytest.mark.parametrize(("name", "settings"), [("as usual", {}), ("an early stop", EARLY_STOP)])
def test_a_run_that_died_after_its_last_save_is_marked_as_done_by_a_resume(
    trainings: Trainings, tiny_model: Path, data: Path, tmp_path: Path, name: str, settings: dict[str, object]
) -> None:
    whole, broken = trainings.reference(name, settings).run, tmp_path / "broken"
    assert pitstop(*arguments(tiny_model, data, broken, **settings), prepare=_dies_before_its_last_word).code == -signal.SIGKILL
    run = broken / "run_001"
    assert metadata(run)["status"] == "running"
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 0, ended.output
    assert_same_end(whole, run)
    for key in ("status", "status_reason"):
        assert metadata(run)[key] == metadata(whole)[key]
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 2 and "is finished" in ended.output


def test_a_row_made_up_for_by_a_process_that_died_is_not_logged_twice(
    trainings: Trainings, tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    whole, broken = trainings.reference("evaluations every three steps", EVERY_THREE_STEPS).run, tmp_path / "broken"
    terminated = kill_at_step(6, signal.SIGTERM)
    assert pitstop(*arguments(tiny_model, data, broken, **EVERY_THREE_STEPS), prepare=terminated).code == 143

    def die_in_the_save() -> None:
        from pitstop.checkpointing.store.store import CheckpointStore

        CheckpointStore._commit = lambda *arguments: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[method-assign,assignment]

    assert pitstop("resume", 1, "--base-dir", broken, prepare=die_in_the_save).code == -signal.SIGKILL
    ended = pitstop("resume", 1, "--base-dir", broken)
    assert ended.code == 0, ended.output
    assert_same_end(whole, broken / "run_001")


def test_a_put_off_evaluation_can_be_resumed_from_although_it_was_made_up_for(
    tiny_model: Path, data: Path, tmp_path: Path
) -> None:
    settings = {**EVERY_THREE_STEPS, "keep_last_n": None}
    ended = pitstop(*arguments(tiny_model, data, tmp_path, **settings), prepare=kill_at_step(6, signal.SIGTERM))
    assert ended.code == 143
    assert pitstop("resume", 1, "--base-dir", tmp_path).code == 0
    ended = pitstop("resume", "1@checkpoint-6-pending", "--base-dir", tmp_path)
    assert ended.code == 0, ended.output
    assert "checkpoint-6" in checkpoints(tmp_path / "run_001")


def test_a_wish_to_train_on_after_an_early_stop_outlives_a_crash(tiny_model: Path, data: Path, tmp_path: Path) -> None:
    assert pitstop(*arguments(tiny_model, data, tmp_path, **EARLY_STOP)).code == 0
    run = tmp_path / "run_001"
    assert metadata(run)["status"] == "stopped"
    stopped_at = metadata(run)["progress"]["step"]
    wish = ("resume", 1, "--base-dir", tmp_path, "--early-stopping-patience", 3)
    assert pitstop(*wish, prepare=kill_at_step(stopped_at + 1)).code == -signal.SIGKILL
    ended = pitstop("resume", 1, "--base-dir", tmp_path)
    assert ended.code == 0, ended.output
    assert metadata(run)["progress"]["step"] > stopped_at
    # The same wish on a run that died before it could say that it had stopped.
    broken = tmp_path / "broken"
    assert pitstop(*arguments(tiny_model, data, broken, **EARLY_STOP), prepare=_dies_before_its_last_word).code == -signal.SIGKILL
    ended = pitstop("resume", 1, "--base-dir", broken, "--learning-rate", 0.001)
    assert ended.code == 0, ended.output
    assert metadata(broken / "run_001")["progress"]["step"] > stopped_at
