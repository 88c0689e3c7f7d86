from __future__ import annotations

import errno
import json
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory, create_run, find_run, locate
from pitstop.checkpointing.store.portable_paths import portable_settings
from pitstop.configs.errors import CheckpointError, RunError
from support.stores import ForgetfulStorage, save

CONFIG: dict[str, Any] = {
    "model": {"id": "some/model"},
    "data": {"train": ["data/dataset_minimal.jsonl"]},
    "lora": {"rank": 8},
    "training": {"task": "sft", "method": "lora", "epochs": 5, "max_steps": None, "checkpoint": {"monitor": "f1", "mode": "max"}},
    "naming": {"experiment_name": "first"},
}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


def start(base: Path, name: str = "a-run", **named: Any) -> RunDirectory:
    arguments = {"config": CONFIG, "metadata": {}, "now": NOW, "storage": ForgetfulStorage(), **named}
    return create_run(base, name=name, **arguments)


def test_a_run_has_its_files_before_the_first_step(base: Path) -> None:
    run = start(base, metadata={"environment": {"torch": "2.13.0"}})
    assert (run.path, run.number, run.name, run.label) == (base / "run_001", 1, "a-run", "run_001")
    assert run.config() == CONFIG
    metadata = run.metadata()
    assert metadata["run_number"] == 1
    assert metadata["status"] == run.status() == "created"
    assert metadata["created_at"] == "2026-01-01T12:00:00+00:00"
    assert metadata["environment"] == {"torch": "2.13.0"}
    assert (metadata["lora_config"], metadata["experiment_name"], metadata["dataset"]) == (
        {"rank": 8},
        "first",
        "dataset_minimal.jsonl",
    )
    assert metadata["training_config"] == CONFIG["training"]
    assert (base / "by-name" / "a-run").readlink() == Path("../run_001")
    assert run.logs_dir.is_dir()
    assert run.store.directory == run.path / "lora_weights"
    assert (run.store.monitor, run.store.mode) == ("f1", "max")


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
    assert run.metadata()["dataset"] == shown
    assert [record.dataset for record in list_runs(base)] == [shown]


def test_numbers_count_up_from_the_highest(base: Path) -> None:
    assert [start(base).number for _ in range(2)] == [1, 2]
    assert start(base, number=7).number == 7
    (base / "run_0099").mkdir()
    (base / "run_x").mkdir()
    assert start(base).number == 8


def test_a_number_that_exists_points_at_resume(base: Path) -> None:
    start(base)
    with pytest.raises(RunError, match="run 1 exists") as raised:
        start(base, number=1)
    assert "resume --run-number 1" in str(raised.value.hint)
    assert raised.value.exit_code == 2
    assert len(list_runs(base)) == 1


def test_names_are_unique(base: Path) -> None:
    assert [start(base).name for _ in range(3)] == ["a-run", "a-run-2", "a-run-3"]


def test_base_trainings_have_numbers_of_their_own(base: Path) -> None:
    start(base)
    run = start(base, "base", group="base_training")
    assert (run.label, run.base_dir, run.store.directory) == ("base_training/run_001", base, run.path / "checkpoints")
    assert (base / "by-name" / "base").resolve() == run.path.resolve()
    assert [record.run for record in list_runs(base)] == ["run_001", "base_training/run_001"]
    save(run.store, 1)
    assert run.sync_checkpoints()["checkpoints"][0]["path"] == "base_training/run_001/checkpoints/checkpoint-1"


def test_without_links_names_are_files(base: Path) -> None:
    class NoLinks(ForgetfulStorage):
        def symlink(self, target: str, path: Path) -> None:
            raise OSError(errno.EPERM, "no links")

    runs = [start(base, storage=NoLinks()) for _ in range(2)]
    assert [run.name for run in runs] == ["a-run", "a-run-2"]
    assert find_run(base, "a-run-2").number == 2


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file") as raised:
        start(tmp_path / "file")
    assert "--base-dir" in str(raised.value.hint)


@pytest.mark.parametrize("ref", ["2", "002", "run_002", "second", 2])
def test_a_run_is_found_by_number_and_by_name(base: Path, ref: str | int) -> None:
    start(base, "first")
    start(base, "second")
    assert find_run(base, ref).path == base / "run_002"


def test_a_run_is_found_by_path_and_a_checkpoint_with_it(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start(base)
    save(run.store, 5)
    run.store.repair_pointers()
    elsewhere = base / "nowhere"
    assert find_run(elsewhere, str(run.path)).path == run.path
    assert find_run(elsewhere, str(base / "by-name" / "a-run")).number == 1
    for name in ("checkpoint-5", "last"):
        found, checkpoint = locate(elsewhere, str(run.store.directory / name))
        assert (found.path, checkpoint) == (run.path, name)
    assert locate(base, "1@best")[1] == "best"
    monkeypatch.chdir(base)
    assert find_run(elsewhere, "run_001").path == run.path
    assert find_run(elsewhere, "./run_001").path == run.path


def test_a_run_is_found_by_name_though_the_link_is_lost(base: Path) -> None:
    start(base)
    (base / "by-name" / "a-run").unlink()
    assert find_run(base, "a-run").number == 1


@pytest.mark.parametrize("target", ["../../outside/run_001", "/etc", "../run_001/../../run_001", "garbage"])
def test_a_name_never_leads_out_of_the_base_directory(base: Path, target: str) -> None:
    start(base)
    (base.parent / "outside" / "run_001").mkdir(parents=True)
    (base / "by-name" / "evil").symlink_to(target)
    with pytest.raises(RunError):
        find_run(base, "evil")


def test_a_run_that_is_not_there_says_what_is(base: Path) -> None:
    with pytest.raises(RunError, match="there are no runs in"):
        find_run(base, 99)
    for _ in range(10):
        start(base)
    with pytest.raises(RunError, match="run '99' not found") as raised:
        find_run(base, 99)
    assert raised.value.hint is not None
    assert raised.value.hint.startswith("there: 2 older ones, run_003, ")
    with pytest.raises(RunError) as raised:
        find_run(base, "a-rum")
    assert "did you mean a-run?" in str(raised.value.hint)
    with pytest.raises(RunError, match="neither a run directory nor a checkpoint"):
        find_run(base, "some/where")


def test_updates_keep_the_rest_and_leave_no_temporary(base: Path) -> None:
    run = start(base)
    run.update_metadata({"status": "completed"})
    run.update_metadata({"progress": {"step": 1}})
    metadata = run.metadata()
    assert (metadata["status"], metadata["progress"], metadata["name"]) == ("completed", {"step": 1}, "a-run")
    assert metadata["updated_at"] > metadata["created_at"]
    assert not [path for path in run.path.iterdir() if path.name.startswith(".tmp")]


def test_checkpoints_on_record_are_those_of_the_store(base: Path) -> None:
    run = start(base)
    first = save(run.store, 10, metrics={"f1": 0.8}, name="epoch_001")
    metadata = run.record_checkpoint(first, {"status": "running"})
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
    metadata = run.metadata()
    assert [entry["name"] for entry in metadata["checkpoints"]] == ["epoch_001", "checkpoint-15"]
    best = metadata["best_checkpoint"]
    assert (best["name"], best["metric"], best["mode"], best["value"]) == ("epoch_001", "f1", "max", 0.8)
    run.store.prune(1)
    assert len(run.sync_checkpoints()["checkpoints"]) == 2
    run.store.supersede(10)
    assert [entry["name"] for entry in run.sync_checkpoints()["checkpoints"]] == ["epoch_001"]


def test_resumes_are_recorded(base: Path) -> None:
    run = start(base)
    info = save(run.store, 10)
    run.record_resume(info, {"training.epochs": (5, 15)}, environment={"device": "cpu"})
    run.record_resume(info, {})
    first, second = run.metadata()["resumes"]
    assert (first["checkpoint"], first["step"], first["changes"]) == ("checkpoint-10", 10, {"training.epochs": [5, 15]})
    assert first["environment"] == {"device": "cpu"}
    assert second["changes"] == {}


@pytest.mark.parametrize("damage", [None, b"", b"{", b"[]", b"\xff", b'{"name": "a-ru'])
def test_lost_metadata_is_rebuilt_from_the_rest(base: Path, damage: bytes | None) -> None:
    run = start(base)
    before = run.record_checkpoint(save(run.store, 10, metrics={"f1": 0.5}))
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
        assert rebuilt[key] == before[key]
    assert (rebuilt["status"], rebuilt["progress"]["step"]) == ("interrupted", 10)
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
