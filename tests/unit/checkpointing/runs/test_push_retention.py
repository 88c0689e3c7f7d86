from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from pitstop.checkpointing.hub.contents import entry_of
from pitstop.checkpointing.runs.push_retention import best_entry, expendable, superseded
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.fake_hub import add, new_run


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
