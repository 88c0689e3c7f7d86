from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.runs import listing
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.listing import list_all_runs, unfinished_run
from support import new_runs
from support.hub_records import pushed
from support.stores import ForgetfulStorage, save

CONFIG: dict[str, Any] = {"training": {"task": "sft", "epochs": 2}, "data": {"train": ["a.jsonl"]}}


def start(base: Path, loss: float | None = None, config: dict[str, Any] = CONFIG, **metadata: Any) -> Any:
    run = create_run(base, name="a-run", config=config, metadata=metadata, storage=ForgetfulStorage())
    if loss is not None:
        run.record_checkpoint(save(run.store, 1, loss=loss))
    return run


def test_nothing_is_nothing(tmp_path: Path) -> None:
    assert listing.list_runs(tmp_path / "absent") == []
    (tmp_path / "file").touch()
    assert listing.list_runs(tmp_path / "file") == []
    assert listing.list_runs(tmp_path) == []


def test_a_run_is_listed_as_its_metadata_has_it(tmp_path: Path) -> None:
    start(tmp_path, 0.5, progress={"step": 3, "total_steps": 12, "epoch": 0.5, "total_epochs": 2}, status="completed")
    (record,) = listing.list_runs(tmp_path)
    assert (record.run_number, record.run, record.name, record.task, record.dataset) == (1, "run_001", "a-run", "sft", "a.jsonl")
    assert (record.step, record.total_steps, record.epoch, record.total_epochs) == (3, 12, 0.5, 2)
    assert (record.status, record.checkpoints) == ("completed", 1)
    assert record.size > 1000
    assert record.best_checkpoint is not None
    assert record.best_checkpoint["value"] == 0.5


@pytest.mark.parametrize("rewrite", [lambda text: text, json.dumps, lambda text: json.dumps(text, indent=1, sort_keys=True)])
def test_the_short_way_reads_what_the_long_way_reads(tmp_path: Path, rewrite: Any) -> None:
    run = start(tmp_path, 0.5, dataset='tricky ",\n  "training_config": text', status="stopped")
    (expected,) = listing.list_runs(tmp_path)
    content = run.metadata().content
    text = rewrite(content)
    if isinstance(text, str):
        (run.path / "metadata.json").write_text(text)
    assert listing.list_runs(tmp_path) == [expected]
    assert expected.dataset == 'tricky ",\n  "training_config": text'
    assert expected.status == "stopped"


def test_the_best_of_comparable_runs_is_marked(tmp_path: Path) -> None:
    losses: list[float | None] = [0.4, 0.2, None, 0.2]
    for loss in losses:
        start(tmp_path, loss)
    start(tmp_path, 0.1, {**CONFIG, "data": {"train": ["other.jsonl"]}})
    assert [record.is_best for record in listing.list_runs(tmp_path)] == [False, True, False, False, False]


def test_the_mark_follows_the_direction_of_the_metric(tmp_path: Path) -> None:
    config = {**CONFIG, "training": {"task": "sft", "checkpoint": {"monitor": "val_loss", "mode": "max"}}}
    for loss in (0.4, 0.9):
        start(tmp_path, loss, config)
    assert [record.is_best for record in listing.list_runs(tmp_path)] == [False, True]


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"status": 3, "checkpoints": 5, "progress": [], "best_checkpoint": "x"}', "[" * 100_000],
)
def test_damaged_metadata_is_listed_as_incomplete(tmp_path: Path, content: str) -> None:
    run = start(tmp_path)
    (run.path / "metadata.json").write_text(content)
    (record,) = listing.list_runs(tmp_path)
    assert (record.run_number, record.name, record.status, record.checkpoints) == (1, "run_001", "incomplete", 0)


@pytest.mark.parametrize(
    "value", ["text", [], {"x": 1}, {"checkpoint-1": {"saved_at": [], "name": {}}}, {"checkpoint-1": "x"}, None]
)
def test_damaged_records_of_the_hub_are_a_problem_and_no_crash(tmp_path: Path, value: Any) -> None:
    run = start(tmp_path, 0.5)
    outbox = pushed(run)
    state = json.loads((outbox.directory / "state.json").read_text())
    (outbox.directory / "state.json").write_text(json.dumps({**state, "pushed": value}))
    (record,) = listing.list_runs(tmp_path)
    assert record.hub is not None
    assert (record.hub.state, record.hub.problem) == ("failed", "hub/state.json is damaged")


def test_a_run_that_is_not_pushed_costs_no_module_of_the_hub(tmp_path: Path) -> None:
    start(tmp_path, 0.5)
    code = (
        "import sys\nfrom pitstop.checkpointing.runs.listing import list_runs\n"
        f"assert len(list_runs({str(tmp_path)!r})) == 1\nprint([m for m in sys.modules if 'hub' in m])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_listing_needs_no_heavy_module() -> None:
    code = "import sys, pitstop.checkpointing.runs.listing; print([m for m in ('torch', 'pydantic', 'rich', 'yaml', 'hashlib') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_runs_are_plain_dictionaries_with_what_list_runs_shows(base: Path) -> None:
    run = new_runs.start(base)
    run.record_checkpoint(save(run.store, 5, metrics={"f1": 0.5}), {"status": "completed"})
    new_runs.start(base / "base_training", "full")
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
    new_runs.start(base, metadata={"status": "completed"})
    new_runs.start(base, metadata={"status": status})  # nobody holds its lock
    new_runs.start(base, config={**new_runs.CONFIG, "naming": {"experiment_name": "second"}})
    new_runs.start(base / "base_training", metadata={"status": "failed"})
    assert unfinished_run(base, "first") == expected
    assert unfinished_run(base, "second") == 3
    assert unfinished_run(base / "base_training", "first") == 1
    assert unfinished_run(base, "third") is None
