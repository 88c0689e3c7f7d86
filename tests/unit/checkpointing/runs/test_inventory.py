from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pitstop.checkpointing.disk.manifest import ManifestError, NewerFormatError, sealed, unsealed
from pitstop.checkpointing.disk.storage import FileRecord
from pitstop.checkpointing.runs.inventory import Inventory, RemoteCheckpoint

ENTRY = RemoteCheckpoint("epoch_003", 30, 3.0, "2026-01-01T12:00:00+01:00", {"val_loss": 0.5, "odd": None}, 1000, "a" * 64)
LATER = RemoteCheckpoint("checkpoint-40", 40, 4.0, "2026-01-01T12:30:00+01:00", {}, 1000, "b" * 64)
WHOLE = Inventory(
    "0123456789abcdef" * 2,
    "a-run",
    {"checkpoint-30": ENTRY, "checkpoint-40": LATER},
    {"config.json": FileRecord(3, "c" * 64)},
    "digest",
    "checkpoint-30",
    True,
)


def changed(change: dict[str, Any], *where: str) -> bytes:
    content = unsealed(WHOLE.to_bytes("0.1.0"), "there")
    place = content
    for key in where:
        place = place[key]
    place.update(change)
    return sealed(content)


def test_it_is_read_as_it_was_written() -> None:
    assert Inventory.from_bytes(WHOLE.to_bytes("0.1.0"), "there") == WHOLE
    empty = Inventory("f" * 32, "a-run")
    assert Inventory.from_bytes(empty.to_bytes("0.1.0"), "there") == empty
    assert replace(ENTRY, metrics={"loss": float("nan")}).to_dict()["metrics"] == {"loss": None}


@pytest.mark.parametrize(
    "change",
    [
        {"uid": "short"}, {"uid": "G" * 32}, {"uid": 5}, {"name": ""}, {"name": "x" * 201}, {"name": None}, {"checkpoints": []},
        {"checkpoints": None}, {"files": []}, {"files": {"../escape": {"size": 1, "sha256": "a" * 64}}},
        {"files": {"config.json": {"size": -1, "sha256": "a" * 64}}}, {"files": {"config.json": {"size": 1, "sha256": "A" * 64}}},
        {"files": {"config.json": 5}}, {"base": 5}, {"root": "checkpoint-50"}, {"root": 5}, {"root": ["checkpoint-30"]},
        {"finished": 1}, {"finished": None}, {"pitstop_version": None}, {"more": 1}, {"format_version": 0},
        {"format_version": "1"}, {"checkpoints": {"checkpoint-31": ENTRY.to_dict()}, "root": None},
        {"checkpoints": {"epoch_003": ENTRY.to_dict()}, "root": None},
    ],
    ids=str,
)  # fmt: skip
def test_any_other_value_is_damage(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="there"):
        Inventory.from_bytes(changed(change), "there")


@pytest.mark.parametrize(
    "change",
    [
        {"name": "checkpoint-31"}, {"name": "../../x"}, {"name": 5}, {"name": "best"}, {"step": 30.0}, {"step": "30"}, {"step": -1},
        {"step": True}, {"step": 10**15}, {"epoch": 3}, {"epoch": -1.0}, {"epoch": None}, {"saved_at": "2026-01-01T12:00:00"},
        {"saved_at": "2026-01-01 12:00:00+01:00"}, {"saved_at": "yesterday"}, {"saved_at": ["2026-01-01T12:00:00+01:00"]},
        {"saved_at": 5}, {"metrics": []}, {"metrics": {"val_loss": "0.5"}}, {"metrics": {"val_loss": True}},
        {"metrics": {"val_loss": 1}}, {"metrics": {"val_loss": 10**400}}, {"metrics": {"val_loss": [0.5]}}, {"size": -1},
        {"size": 1.0}, {"size": None}, {"manifest_sha256": "A" * 64}, {"manifest_sha256": "a" * 63}, {"manifest_sha256": None},
        {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_any_other_value_of_a_checkpoint_is_damage(change: dict[str, Any]) -> None:
    with pytest.raises(ManifestError, match="there"):
        Inventory.from_bytes(changed(change, "checkpoints", "checkpoint-30"), "there")


@pytest.mark.parametrize("key", ["pitstop_version", "uid", "name", "checkpoints", "files", "base", "root", "finished"])
def test_nothing_may_be_missing(key: str) -> None:
    content = unsealed(WHOLE.to_bytes("0.1.0"), "there")
    del content[key]
    with pytest.raises(ManifestError):
        Inventory.from_bytes(sealed(content), "there")


@pytest.mark.parametrize("key", sorted(ENTRY.to_dict()))
def test_nothing_of_a_checkpoint_may_be_missing(key: str) -> None:
    content = unsealed(WHOLE.to_bytes("0.1.0"), "there")
    del content["checkpoints"]["checkpoint-30"][key]
    with pytest.raises(ManifestError):
        Inventory.from_bytes(sealed(content), "there")


def test_every_changed_byte_is_seen() -> None:
    raw = WHOLE.to_bytes("0.1.0")
    for at in range(0, len(raw), 7):
        with pytest.raises((ManifestError, NewerFormatError)):
            Inventory.from_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :], "there")


def test_a_newer_format_is_no_damage() -> None:
    with pytest.raises(NewerFormatError, match="format 2"):
        Inventory.from_bytes(changed({"format_version": 2, "more": 1}), "there")
