from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.base_runs import FROM, dependents, find_base_checkpoint, look_up
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, RunError
from support.new_runs import start
from support.stores import save

FULL: dict[str, Any] = {"model": {"id": "tiny"}, "training": {"task": "sft", "method": "full"}}


@pytest.fixture
def trained(base: Path) -> RunDirectory:
    """A base training with three checkpoints, of which the second is the best."""
    run = start(base / "base_training", "full", config=FULL)
    for step, loss in ((1, 0.5), (2, 0.1), (3, 0.4)):
        save(run.store, step, loss=loss)
    return run


def standing_on(base: Path, reference: str) -> RunDirectory:
    record = find_base_checkpoint(base, reference).record()
    return start(base, "lora", metadata={"base_model": {"id": "full", FROM: record}})


def test_a_base_is_the_best_checkpoint_unless_another_is_picked(base: Path, trained: RunDirectory) -> None:
    assert find_base_checkpoint(base, "base_training/1").info.name == "checkpoint-2"
    picked = find_base_checkpoint(base, "full@last")
    assert picked.path == trained.store.directory / "checkpoint-3"
    assert picked.record() == {"run": "base_training/run_001", "name": "full", "checkpoint": "checkpoint-3", "step": 3}


def test_an_adapter_and_a_checkpoint_that_is_not_there_are_no_base(base: Path, trained: RunDirectory) -> None:
    start(base, "lora")
    with pytest.raises(RunError, match="run_001 trained an adapter"):
        find_base_checkpoint(base, "lora")
    with pytest.raises(CheckpointError, match="checkpoint 'checkpoint-9' not found"):
        find_base_checkpoint(base, "full@checkpoint-9")


def test_settings_take_name_and_task_from_the_base(base: Path, trained: RunDirectory) -> None:
    found = look_up(str(base), "base_training/1@checkpoint-1")
    assert (found.reference, found.label) == ("base_training/run_001@checkpoint-1", "base_training/run_001")
    assert found.values == {"model.id": "full", "training.task": "sft"}
    assert look_up(str(base / "elsewhere"), str(trained.path)).reference == f"{trained.path}@checkpoint-2"


def test_runs_that_stand_on_a_checkpoint_keep_it(base: Path, trained: RunDirectory) -> None:
    assert dependents(trained) == {}
    first, second = standing_on(base, "full@checkpoint-1"), standing_on(base, "full@checkpoint-1")
    assert dependents(trained) == {"checkpoint-1": ["run_001", "run_002"]}
    assert retention.pins(trained)["checkpoint-1"] == ("base of run_001", "base of run_002")
    assert dependents(first) == {}
    second.update_metadata({"base_model": {FROM: {**find_base_checkpoint(base, "full").record(), "name": "another"}}})
    assert dependents(trained) == {"checkpoint-1": ["run_001"]}


def test_the_metadata_of_other_runs_is_read_again_only_where_it_has_changed(
    base: Path, trained: RunDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = standing_on(base, "full@checkpoint-1"), standing_on(base, "full@checkpoint-2")
    read: list[str] = []
    whole = RunDirectory.metadata
    monkeypatch.setattr(RunDirectory, "metadata", lambda run: read.append(run.label) or whole(run))
    assert dependents(trained) == {"checkpoint-1": ["run_001"], "checkpoint-2": ["run_002"]}
    assert {first.label, second.label} <= set(read)
    read.clear()
    dependents(trained)
    assert not {first.label, second.label} & set(read)
    second.update_metadata({"base_model": {}})
    read.clear()
    assert dependents(trained) == {"checkpoint-1": ["run_001"]}
    assert second.label in read and first.label not in read
