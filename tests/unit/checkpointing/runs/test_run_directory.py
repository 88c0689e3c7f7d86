from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.store.portable_paths import portable_settings
from pitstop.configs.errors import CheckpointError
from support.new_runs import CONFIG, start
from support.stores import HookedStorage, save


def test_updates_keep_the_rest_and_leave_no_temporary(base: Path) -> None:
    run = start(base)
    run.update_metadata({"status": "completed"})
    run.update_metadata({"progress": {"step": 1}})
    metadata = run.metadata().content
    assert (metadata["status"], metadata["progress"], metadata["name"]) == ("completed", {"step": 1}, "a-run")
    assert metadata["updated_at"] > metadata["created_at"]
    assert not [path for path in run.path.iterdir() if path.name.startswith(".tmp")]


def test_checkpoints_on_record_are_those_of_the_store(base: Path) -> None:
    run = start(base)
    first = save(run.store, 10, metrics={"f1": 0.8}, name="epoch_001")
    metadata = run.record_checkpoint(first, {"status": "running"}).content
    assert metadata["checkpoints"] == [
        {
            "name": "epoch_001",
            "epoch": 1,
            "step": 10,
            "path": "run_001/lora_weights/epoch_001",
            "metrics": {"f1": 0.8},
            "saved_at": first.saved_at.isoformat(),
            "size": first.size,
        }
    ]
    run.record_checkpoint(save(run.store, 15, metrics={"f1": 0.6}))
    metadata = run.metadata().content
    assert [entry["name"] for entry in metadata["checkpoints"]] == ["epoch_001", "checkpoint-15"]
    best = metadata["best_checkpoint"]
    assert (best["name"], best["metric"], best["mode"], best["value"]) == ("epoch_001", "f1", "max", 0.8)
    run.store.prune(1)
    assert len(run.sync_checkpoints().checkpoints) == 2
    run.store.supersede(10)
    assert [entry.name for entry in run.sync_checkpoints().checkpoints] == ["epoch_001"]


def test_resumes_are_recorded(base: Path) -> None:
    run = start(base)
    info = save(run.store, 10)
    run.record_resume(info, {"training.epochs": (5, 15)}, environment={"device": "cpu"})
    run.record_resume(info, {})
    first, second = run.metadata().resumes
    assert (first.checkpoint, first.step, first.changes) == ("checkpoint-10", 10, {"training.epochs": [5, 15]})
    assert first.environment == {"device": "cpu"}
    assert second.changes == {}


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"\xff", b'{"name": "a-ru'])
def test_lost_metadata_is_rebuilt_from_the_rest(base: Path, damage: bytes | None) -> None:
    run = start(base)
    before = run.record_checkpoint(save(run.store, 10, metrics={"f1": 0.5})).content
    if damage is None:
        (run.path / "metadata.json").unlink()
    else:
        (run.path / "metadata.json").write_bytes(damage)
    assert run.status() == list_runs(base)[0].status == "incomplete"
    with pytest.raises(CheckpointError, match=r"metadata\.json"):
        run.metadata()
    rebuilt = run.rebuild_metadata()
    assert rebuilt == run.metadata()
    for key in ("run_number", "name", "checkpoints", "best_checkpoint", "training_config", "lora_config", "dataset", "task"):
        assert rebuilt.content[key] == before[key]
    assert (rebuilt.status, rebuilt.progress.step) == ("interrupted", 10)
    kept = [path for path in run.path.iterdir() if path.name.startswith("metadata.json.damaged")]
    assert [path.read_bytes() for path in kept] == ([] if damage is None else [damage])


def test_a_lost_config_is_said_and_not_made_up(base: Path) -> None:
    run = start(base)
    (run.path / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        run.rebuild_metadata()


def test_a_reader_never_sees_half_of_an_update(base: Path) -> None:
    run = start(base)
    child = os.fork()
    if child == 0:
        while True:
            run.update_metadata({"filler": "x" * 20_000})
    try:
        for _ in range(300):
            assert json.loads((run.path / "metadata.json").read_bytes())["name"] == "a-run"
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)


def test_a_resume_is_recorded_in_one_write_with_the_checkpoints_that_are_left(base: Path) -> None:
    replaced: list[str] = []
    storage = HookedStorage(lambda name, arguments: replaced.append(arguments[1].name) if name == "replace" else None)
    run = start(base, storage=storage)
    first, _ = save(run.store, 6), save(run.store, 12)
    run.sync_checkpoints({"progress": {"step": 12, "total_steps": 18, "epoch": 2, "total_epochs": 3}})
    run.store.supersede(first.step)
    replaced.clear()
    metadata = run.record_resume(first, {})
    assert metadata.progress.content == {"step": 6, "total_steps": 18, "epoch": first.epoch, "total_epochs": 3}
    assert [entry.name for entry in metadata.checkpoints] == [first.name] == [resume.checkpoint for resume in metadata.resumes]
    assert replaced == ["metadata.json"]


def test_the_settings_in_force_have_the_full_paths_again(base: Path) -> None:
    config = {**CONFIG, "model": {"id": "/models/tiny"}, "data": {"train": ["/start/d.jsonl"]}}
    run = start(base, config=config)
    held = {"settings": portable_settings(config)}
    files = {"trainer_state.json": memoryview(json.dumps(held).encode())}
    save(run.store, 6, files=files)
    assert held["settings"]["model"] == {"id": "tiny"}
    assert run.settings() == config
    run.record_resume(run.store.list()[0], {"data.train": (["/start/d.jsonl"], ["/new/d.jsonl"])})
    info = save(run.store, 12, files=files)
    assert run.settings() == {**config, "data": {"train": ["/new/d.jsonl"]}}
    (run.path / "config.json").write_text("{")
    assert run.settings() == {**held["settings"], "data": {"train": ["/new/d.jsonl"]}}
    (run.path / "metadata.json").unlink()
    assert run.with_full_paths(held["settings"], info) == held["settings"]
