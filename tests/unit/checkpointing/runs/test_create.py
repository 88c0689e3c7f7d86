from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pitstop.checkpointing.runs.create import install_run
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.configs.errors import RunError
from support.new_runs import CONFIG, start
from support.stores import ForgetfulStorage, save


def test_a_run_has_its_files_before_the_first_step(base: Path) -> None:
    run = start(base, metadata={"environment": {"torch": "2.13.0"}})
    assert (run.path, run.number, run.name, run.label) == (base / "run_001", 1, "a-run", "run_001")
    assert run.config() == CONFIG
    metadata = run.metadata().content
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
    run = start(base / "base_training", "base")
    assert (run.label, run.base_dir, run.store.directory) == ("base_training/run_001", base, run.path / "checkpoints")
    assert (base / "by-name" / "base").resolve() == run.path.resolve()
    assert [record.run for record in list_runs(base)] == ["run_001", "base_training/run_001"]
    save(run.store, 1)
    assert run.sync_checkpoints().checkpoints[0].path == "base_training/run_001/checkpoints/checkpoint-1"


def test_without_links_names_are_files(base: Path) -> None:
    class NoLinks(ForgetfulStorage):
        def symlink(self, target: str, path: Path) -> None:
            raise OSError(errno.EPERM, "no links")

    runs = [start(base, storage=NoLinks()) for _ in range(2)]
    assert [run.name for run in runs] == ["a-run", "a-run-2"]
    assert locate(base, "a-run-2")[0].number == 2


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="file") as raised:
        start(tmp_path / "file")
    assert "--base-dir" in str(raised.value.hint)


def stage(base: Path) -> Path:
    """A complete run but for its metadata, as a pull leaves it on the same filesystem."""
    run = start(base / ".pulling", "staged")
    save(run.store, 10, metrics={"f1": 0.5}, name="epoch_001")
    (run.path / "metadata.json").unlink()
    staged = run.path.with_name("staged")
    run.path.rename(staged)
    return staged


def test_a_staged_run_is_installed_with_number_name_and_metadata(base: Path) -> None:
    start(base)
    staged = stage(base)
    run = install_run(base, staged, name="a-run", metadata={"model": "other/model", "progress": {"total_epochs": 5}})
    assert (run.path, run.name, staged.exists()) == (base / "run_002", "a-run-2", False)
    assert (base / "by-name" / "a-run-2").readlink() == Path("../run_002")
    metadata = run.metadata()
    assert (metadata.status, metadata.model, metadata.run_number) == ("interrupted", "other/model", 2)
    assert metadata.progress.content == {"total_epochs": 5, "step": 10, "epoch": 1}
    assert [entry.path for entry in metadata.checkpoints] == ["run_002/lora_weights/epoch_001"]
    assert run.store.pointer("last") == run.store.pointer("best") == "epoch_001"


def test_a_staged_run_that_cannot_be_installed_leaves_nothing(base: Path) -> None:
    start(base)
    staged = stage(base)
    with pytest.raises(RunError, match="run 1 exists"):
        install_run(base, staged, name="a-run", metadata={}, number=1)

    def refuse() -> None:
        raise RunError("another process pulled it")

    with pytest.raises(RunError, match="another process"):
        install_run(base, staged, name="a-run", metadata={}, check=refuse)
    assert staged.is_dir()
    assert [record.run for record in list_runs(base)] == ["run_001"]
    assert sorted(path.name for path in (base / "by-name").iterdir()) == [".lock", "a-run"]
