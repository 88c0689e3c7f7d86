from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk import inspection, layout
from pitstop.checkpointing.hub.contents import entry_of
from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.housekeeping import prunable
from pitstop.checkpointing.runs.retention import best_entry, expendable, superseded
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.fake_hub import FakeHub, add, new_run, push_all, send_to, uploader
from support.housekeeping import config, make_run
from support.stores import FILES, ForgetfulStorage, save


def reopened(run: RunDirectory) -> RunDirectory:
    return RunDirectory(run.path, ForgetfulStorage())


def test_best_last_and_the_newest_start_of_a_resume_are_pinned(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.record_resume(run.store.resolve("checkpoint-1"), {})
    run.record_resume(run.store.resolve("checkpoint-3"), {})
    assert retention.pins(run) == {"checkpoint-2": ("best",), "checkpoint-3": ("resumed from",), "checkpoint-5": ("last",)}


def test_one_checkpoint_may_be_pinned_for_several_reasons(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=(2,), resumed_from=2)
    assert retention.pins(run) == {"checkpoint-2": ("best", "last", "resumed from")}
    assert retention.pins(make_run(tmp_path, "empty", steps=())) == {}


def test_what_a_wrong_pointer_leads_to_is_pinned_as_retention_keeps_it(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    run.store.set_pointer("best", "checkpoint-4")
    assert retention.pins(run)["checkpoint-4"] == ("best pointer",)
    assert prunable(run, 1).checkpoints == ["checkpoint-1", "checkpoint-3"]


def test_pins_hash_nothing_and_survive_lost_metadata(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path, resumed_from=3)
    monkeypatch.setattr(inspection, "file_sha256", lambda path: pytest.fail(f"{path} was hashed"))
    assert retention.pins(run)["checkpoint-3"] == ("resumed from",)
    (run.path / "metadata.json").unlink()
    assert set(retention.pins(run)) == {"checkpoint-2", "checkpoint-5"}


def with_settings(run: RunDirectory, step: int, **checkpoint: Any) -> None:
    content = json.dumps({"settings": config(**checkpoint)}).encode()
    files = {**FILES, layout.TRAINER_STATE: [content]}  # in a list: as it is, without the step that `save` adds
    save(run.store, step, metrics={"val_loss": 1.0, "accuracy": step}, files=files)


def test_the_best_is_judged_by_the_settings_in_force_and_not_those_of_the_start(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=(2,))
    with_settings(run, 6, monitor="accuracy", mode="max", keep_last_n=7)
    with_settings(run, 7, monitor="accuracy", mode="max", keep_last_n=7)
    again = reopened(run)
    assert (again.store.monitor, again.store.mode, retention.keep_last_n(again)) == ("accuracy", "max", 7)
    assert retention.pins(again)["checkpoint-7"] == ("best", "last")


def test_what_the_last_resume_changed_is_in_force_before_its_first_checkpoint(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=(2,))
    run.record_resume(run.store.resolve("last"), {"training.checkpoint.keep_last_n": (1, 3)})
    assert retention.keep_last_n(reopened(run)) == 3
    save(run.store, 3, loss=0.5)
    assert retention.keep_last_n(reopened(run)) == 1, "the newer checkpoint, or else config.json, says so"


def test_a_damaged_list_of_resumes_changes_nothing(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=(2,))
    for resumes in ("text", [3], [{"checkpoint": "checkpoint-2", "changes": {"training.checkpoint.keep_last_n": 3}}], None):
        run.update_metadata({"resumes": resumes})
        assert retention.keep_last_n(reopened(run)) == 1
        assert "checkpoint-2" in retention.pins(run)


@pytest.mark.usefixtures("undrawn")
def test_records_that_are_damaged_keep_every_checkpoint_here(tmp_path: Path) -> None:
    run, hub = new_run(tmp_path), FakeHub()
    push_all(uploader(run, hub))
    assert retention.unpushed(run) == []
    (run.path / "hub/state.json").write_text("{")
    assert retention.unpushed(run) == ["checkpoint-1", "checkpoint-2", "checkpoint-3"]


@pytest.mark.usefixtures("undrawn")
def test_what_retention_on_the_hub_took_is_not_kept_here_for_it(tmp_path: Path) -> None:
    run, hub = new_run(tmp_path, {1: 0.9, 2: 0.1, 3: 0.8, 4: 0.7}), FakeHub()
    send_to(run, keep_last_n=1)
    push_all(uploader(run, hub))
    assert hub.steps() == [2, 4]
    assert retention.unpushed(run) == []
    assert "checkpoint-1" not in retention.pins(run)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """Four checkpoints, of which the second is the best."""
    return new_run(tmp_path / "runs", {1: 0.9, 2: 0.1, 3: 0.8, 4: 0.7})


def test_the_best_is_that_of_the_metric_of_the_run(run: RunDirectory, tmp_path: Path) -> None:
    best = best_entry(run, [entry_of(info) for info in run.store.list()])
    assert best is not None and best.step == 2
    assert best_entry(run, []) is None


@pytest.mark.parametrize(("keep_last_n", "steps"), [(None, []), (1, [1, 3]), (2, [1]), (9, [])])
def test_the_newest_and_the_best_are_not_expendable(run: RunDirectory, keep_last_n: int | None, steps: list[int]) -> None:
    entries = [entry_of(info) for info in run.store.list()]
    assert [entry.step for entry in expendable(run, entries, keep_last_n)] == steps


def test_what_a_later_resume_left_behind_is_superseded(run: RunDirectory) -> None:
    entries = [entry_of(info) for info in run.store.list()]
    assert superseded(run, entries) == []
    run.record_resume(run.store.resolve("checkpoint-2"), {})
    add(run, 5, now=datetime.now(UTC))
    entries = [entry_of(info) for info in run.store.list()]
    assert [entry.step for entry in superseded(run, entries)] == [3, 4], "what was saved after the resume is of its line"
