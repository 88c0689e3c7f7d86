from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk.dotted import at
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.metadata import FORMAT_VERSION, Metadata, RecordedOrigin, read_head
from pitstop.checkpointing.store.portable_paths import full_settings
from support.new_runs import CONFIG, start
from support.stores import save

GOLDEN = Path(__file__).parents[3] / "golden"


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"train": ["CIFAR100"], "label": "Trees", "classes": ["oak_tree"] * 5}, "Trees (5)"),
        ({"train": ["CIFAR100"], "label": None, "classes": ["oak_tree", "pine_tree"]}, "CIFAR100 (2)"),
        ({"train": ["/home/me/photos/"], "label": "Mine", "classes": []}, "Mine"),
        ({"train": ["/home/me/photos/"], "label": "", "classes": []}, "photos"),
        ({"train": ["a/first.jsonl:0.7", "second.jsonl:0.3"]}, "first.jsonl +1"),  # as older runs recorded it
        ({"train": [], "label": "Trees"}, None),
        ({"train": ["a"], "label": 7, "classes": "cat"}, "a"),
    ],
)
def test_data_is_listed_by_its_label_and_how_many_classes_were_chosen(
    base: Path, data: dict[str, Any], shown: str | None
) -> None:
    run = start(base, config={**CONFIG, "data": data})
    assert run.metadata().dataset == shown
    assert [record.dataset for record in list_runs(base)] == [shown]


def _resume(checkpoint: str, step: Any, train: str | None = None) -> dict[str, Any]:
    changes = {"data.train": [["before"], [train]], "training.epochs": [1, 2]} if train else {}
    return {"checkpoint": checkpoint, "step": step, "changes": changes}


START = {"data": {"train": ["/start/d.jsonl"]}}


@pytest.mark.parametrize(
    ("resumes", "checkpoint", "step", "expected"),
    [
        ([], "epoch_001", 6, "/start/d.jsonl"),
        ([_resume("epoch_001", 6, "/1/d.jsonl")], "epoch_002", 12, "/1/d.jsonl"),
        ([_resume("epoch_001", 6, "/1/d.jsonl")], "epoch_001", 6, "/start/d.jsonl"),
        ([_resume("epoch_002", 12, "/1/d.jsonl")], "epoch_001", 6, "/start/d.jsonl"),
        # a later resume that changed nothing keeps what the one before changed
        ([_resume("epoch_001", 6, "/1/d.jsonl"), _resume("epoch_002", 12)], "epoch_003", 18, "/1/d.jsonl"),
        ([_resume("epoch_001", 6, "/1/d.jsonl"), _resume("epoch_002", 12, "/2/d.jsonl")], "epoch_003", 18, "/2/d.jsonl"),
        ([_resume("epoch_001", 6, "/1/d.jsonl"), _resume("epoch_002", 12, "/2/d.jsonl")], "epoch_002", 12, "/1/d.jsonl"),
        # a line that was left for an earlier checkpoint does not count
        ([_resume("epoch_002", 12, "/1/d.jsonl"), _resume("epoch_001", 6)], "epoch_003", 18, "/start/d.jsonl"),
        # of two resumes from one checkpoint the second counts: the first saved nothing that is left
        ([_resume("epoch_001", 6, "/1/d.jsonl"), _resume("epoch_001", 6, "/2/d.jsonl")], "epoch_002", 12, "/2/d.jsonl"),
        ([_resume("epoch_001", 6, "/1/d.jsonl"), _resume("epoch_001", 6)], "epoch_002", 12, "/start/d.jsonl"),
        # the step of an evaluation put off is saved again under its plain name
        ([_resume("checkpoint-8-pending", 8, "/1/d.jsonl")], "checkpoint-8", 8, "/1/d.jsonl"),
        ([_resume("checkpoint-8-pending", 8, "/1/d.jsonl")], "checkpoint-8-pending", 8, "/start/d.jsonl"),
        # what nobody would have written
        ([None, {}, {"step": "6", "changes": 3}, _resume("epoch_001", True, "/1/d.jsonl")], "epoch_002", 12, "/start/d.jsonl"),
        ({"a": 1}, "epoch_002", 12, "/start/d.jsonl"),
    ],
)
def test_the_value_in_force_when_a_checkpoint_was_saved_comes_first(
    resumes: Any, checkpoint: str, step: int, expected: str
) -> None:
    held = full_settings({"data": {"train": ["d.jsonl"]}}, Metadata({"resumes": resumes}).paths(START, checkpoint, step))
    assert at(held, "data.train") == [expected]


def test_without_a_start_on_record_any_resume_that_knows_will_do() -> None:
    resumes = [_resume("epoch_002", 12, "/1/d.jsonl")]
    held = full_settings({"data": {"train": ["d.jsonl"]}}, Metadata({"resumes": resumes}).paths({}, "epoch_001", 6))
    assert at(held, "data.train") == ["/1/d.jsonl"]


def test_a_document_of_a_version_before_is_read_in_full_and_written_as_it_was() -> None:
    raw = (GOLDEN / "format-1/runs/run_001/metadata.json").read_bytes()
    metadata = Metadata(json.loads(raw))
    assert metadata.to_bytes() == raw
    assert metadata.misfits() == []
    assert (metadata.format_version, metadata.run_number, metadata.status) == (FORMAT_VERSION, 1, "completed")
    assert (metadata.progress.step, metadata.progress.epoch, metadata.progress.total_epochs) == (12, 2.0, 2)
    assert [(entry.name, entry.step, entry.size) for entry in metadata.checkpoints][-1] == ("epoch_002", 12, 66526)
    assert (metadata.best_checkpoint.name, metadata.best_checkpoint.metric) == ("epoch_002", "val_loss")
    assert metadata.best_checkpoint.value == metadata.best_checkpoint.metrics["val_loss"]
    assert metadata.data.fingerprint != metadata.data.eval.fingerprint != ""
    assert (metadata.base_model.id, metadata.base_model.saved, metadata.base_model.origin.run) == ("model", True, None)
    assert metadata.lora_config["rank"] == 2 and metadata.environment.content["world_size"] == 1


def test_a_change_keeps_the_place_of_every_key_and_those_of_other_versions() -> None:
    before = {"name": "a", "of_tomorrow": {"x": [1]}, "status": "running", "progress": {"step": 1, "own": 2}, "task": 7}
    after = Metadata(before).changed({"status": "completed", "status_reason": "all steps done"})
    assert list(after.content) == ["name", "of_tomorrow", "status", "progress", "task", "status_reason"]
    assert after.content == {**before, "status": "completed", "status_reason": "all steps done"}
    assert Metadata(before).content == before
    assert json.loads(after.to_bytes()) == after.content


def test_what_pitstop_would_not_write_reads_as_missing_and_is_named() -> None:
    metadata = Metadata({
        "name": ["x"],
        "status": None,
        "run_number": True,
        "progress": {"step": 1.5, "total_steps": 40, "epoch": "2"},
        "checkpoints": [3, {"name": "checkpoint-1", "size": "big"}],
        "best_checkpoint": {"metric": 4, "value": 0.5},
        "resumes": [None, {"checkpoint": "checkpoint-1", "changes": {"training.epochs": 3}}],
        "data": {"fingerprint": "f", "eval": 5, "class_names": ["ash", 1]},
        "base_model": {"saved": 1, "from": "run_001"},
        "environment": [],
    })  # fmt: skip
    assert (metadata.name, metadata.status, metadata.run_number) == (None, None, None)
    assert (metadata.progress.step, metadata.progress.total_steps, metadata.progress.epoch) == (None, 40, None)
    assert [(entry.name, entry.size) for entry in metadata.checkpoints] == [("checkpoint-1", None)]
    assert (metadata.best_checkpoint.metric, metadata.best_checkpoint.value) == (None, 0.5)
    assert [resume.checkpoint for resume in metadata.resumes] == ["checkpoint-1"]
    assert (metadata.data.fingerprint, metadata.data.eval.fingerprint, metadata.data.class_names) == ("f", None, ())
    assert (metadata.base_model.saved, metadata.base_model.origin) == (None, RecordedOrigin())
    assert metadata.environment.versions == {}
    assert metadata.misfits() == [
        "run_number", "name", "progress", "checkpoints", "best_checkpoint", "environment", "data", "base_model", "resumes",
    ]  # fmt: skip


def test_a_fraction_of_a_step_is_no_count_and_no_misfit() -> None:
    metadata = Metadata({"progress": {"step": 1, "total_steps": 2.5}})
    assert (metadata.progress.step, metadata.progress.total_steps, metadata.misfits()) == (1, None, [])


def test_an_empty_document_has_every_key_missing_and_no_misfit() -> None:
    empty = Metadata()
    assert (empty.name, empty.progress.step, empty.checkpoints, empty.resumes, empty.batch_size_changes) == (
        None,
        None,
        (),
        (),
        (),
    )
    assert (empty.best_checkpoint.content, empty.trackers, empty.misfits()) == ({}, {}, [])


def test_a_run_stands_at_its_newest_checkpoint(base: Path) -> None:
    run = start(base)
    info = save(run.store, 10, name="epoch_001")
    metadata = run.metadata()
    assert metadata.standing_at(None) is metadata
    assert metadata.standing_at(info).progress.content == {"step": 10, "total_steps": None, "epoch": 1, "total_epochs": 5}


@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff", b'{"name": "a-r'])
def test_the_head_of_an_unreadable_file_is_empty(base: Path, content: bytes) -> None:
    run = start(base)
    assert read_head(str(run.path)).name == "a-run"
    (run.path / "metadata.json").write_bytes(content)
    assert read_head(str(run.path)) == Metadata()
    (run.path / "metadata.json").unlink()
    assert read_head(str(run.path)) == run.readable_metadata() == Metadata()
