from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.runs.runs_list import list_all_runs, unfinished_run
from support.new_runs import CONFIG, start
from support.stores import save


def test_runs_are_plain_dictionaries_with_what_list_runs_shows(base: Path) -> None:
    run = start(base)
    run.record_checkpoint(save(run.store, 5, metrics={"f1": 0.5}), {"status": "completed"})
    start(base / "base_training", "full")
    first, second = list_all_runs(base)
    assert (first["run_number"], first["experiment_name"], first["checkpoints_count"]) == (1, "first", 1)
    assert (first["name"], first["run"], first["status"]) == ("a-run", "run_001", "completed")
    assert first["best_checkpoint"]["value"] == 0.5
    assert (second["run"], second["checkpoints_count"]) == ("base_training/run_001", 0)
    assert list_all_runs(base / "missing") == []


@pytest.mark.parametrize(
    ("status", "expected"), [("created", 2), ("failed", 2), ("running", 2), ("completed", None), ("stopped", None)]
)
def test_the_newest_run_that_was_cut_off_is_gone_on_with(base: Path, status: str, expected: int | None) -> None:
    start(base, metadata={"status": "completed"})
    start(base, metadata={"status": status})  # nobody holds its lock
    start(base, config={**CONFIG, "naming": {"experiment_name": "second"}})
    start(base / "base_training", metadata={"status": "failed"})
    assert unfinished_run(base, "first") == expected
    assert unfinished_run(base, "second") == 3
    assert unfinished_run(base / "base_training", "first") == 1
    assert unfinished_run(base, "third") is None
