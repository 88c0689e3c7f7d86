from __future__ import annotations

from pathlib import Path

import pytest

from pitstop.checkpointing.runs.verification import DAMAGED, NEWER, OK, Verifier, notes
from support.housekeeping import make_run


def test_every_part_of_a_sound_run_is_ok_and_a_shared_base_is_hashed_once(tmp_path: Path) -> None:
    make_run(tmp_path, steps=(1, 2))
    make_run(tmp_path, steps=(2,))
    told: list[str] = []
    parts = list(Verifier(told.append).all(tmp_path))
    assert {part.state for part in parts} == {OK}
    assert [(part.run, part.name) for part in parts if part.run == "run_001"] == [
        ("run_001", "config.json"),
        ("run_001", "metadata.json"),
        ("run_001", "checkpoint-1"),
        ("run_001", "checkpoint-2"),
        ("run_001", "base_model"),
    ]
    assert parts[-1].run == "" and parts[-1].name == ".base_models/shared-base-0001"
    assert told[0] == "run_001 checkpoint-1"


@pytest.mark.parametrize(
    ("name", "content", "state", "problem"),
    [
        ("metadata.json", b"{", DAMAGED, "rebuilds it from the checkpoints"),
        ("metadata.json", b'{"format_version": 2}', NEWER, "in format 2; this pitstop reads formats up to 1"),
        ("config.json", b"", DAMAGED, "start a new run"),
        ("lora_weights/checkpoint-1/state.json", b"{}!", DAMAGED, "changed since it was saved"),
    ],
)
def test_what_is_not_as_it_was_written_is_named(tmp_path: Path, name: str, content: bytes, state: str, problem: str) -> None:
    run = make_run(tmp_path, steps=(1,), base=False)
    (run.path / name).write_bytes(content)
    (part,) = [part for part in Verifier().run(run) if part.state != OK]
    assert part.state == state
    assert part.problem is not None and problem in part.problem


def test_a_base_that_is_lost_is_missed_only_where_there_was_one(tmp_path: Path) -> None:
    run, other = make_run(tmp_path, steps=(1,)), make_run(tmp_path, steps=(1,), base=False)
    (run.path / "base_model").rename(tmp_path / "elsewhere")
    assert [part.name for part in Verifier().run(run) if part.state == DAMAGED] == ["base_model"]
    assert [part for part in Verifier().run(other) if part.state == DAMAGED] == []
    run.update_metadata({"status": "created"})
    assert [part for part in Verifier().run(run) if part.state == DAMAGED] == []


def test_wrong_pointers_and_lists_are_noted(tmp_path: Path) -> None:
    run = make_run(tmp_path, steps=(1, 2))
    assert notes(run) == []
    run.store.set_pointer("last", "checkpoint-1")
    run.update_metadata({"checkpoints": [{"name": "checkpoint-9"}]})
    assert [note.partition(";")[0] for note in notes(run)] == [
        "run_001: last points at checkpoint-1, should point at checkpoint-2",
        "run_001: metadata.json lists checkpoint-9, which is not there",
    ]
    with run.lock():
        assert notes(run) == []
