from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.checkpointing.disk.manifest import Manifest, ManifestError, parse_manifest, sealed, unsealed
from pitstop.checkpointing.disk.storage import FileRecord

RECORD = FileRecord(3, "ab" * 32)
MANIFEST = Manifest(
    name="epoch_003",
    step=30,
    epoch=3.0,
    metrics={"val_loss": 0.25, "train_loss": None},
    saved_at=datetime(2026, 1, 1, tzinfo=UTC),
    world_size=2,
    files={"adapter.safetensors": RECORD},
    fingerprints={"base": "x"},
    versions={"torch": "2.13.0"},
    pitstop_version="0.1.0",
)


def changed(**changes: Any) -> bytes:
    return sealed({**unsealed(MANIFEST.to_bytes(), "there"), **changes})


def test_a_manifest_reads_back_as_it_was() -> None:
    assert parse_manifest(MANIFEST.to_bytes(), "there") == MANIFEST


@given(
    metrics=st.dictionaries(st.text(max_size=8), st.none() | st.floats(allow_nan=False, allow_infinity=False), max_size=4),
    texts=st.dictionaries(st.text(max_size=8), st.text(max_size=8), max_size=3),
    epoch=st.floats(0, 1e6),
    step=st.integers(0, 10**15),
)
def test_any_manifest_reads_back_as_it_was(metrics: dict[str, Any], texts: dict[str, str], epoch: float, step: int) -> None:
    manifest = Manifest("epoch_003", step, epoch, metrics, MANIFEST.saved_at, 1, {"a": RECORD}, texts, texts, "0.1.0")
    assert parse_manifest(manifest.to_bytes(), "there") == manifest


@pytest.mark.parametrize(
    "changes",
    [
        {"step": -1},
        {"step": 1.0},
        {"step": True},
        {"epoch": 3},
        {"epoch": None},
        {"metrics": {"loss": "low"}},
        {"metrics": []},
        {"name": "../x"},
        {"name": 3},
        {"saved_at": "2026-01-01T00:00:00"},
        {"saved_at": "yesterday"},
        {"saved_at": 5},
        {"world_size": "1"},
        {"fingerprints": {"base": 1}},
        {"versions": "1"},
        {"files": []},
        {"files": {"a": {"size": 1}}},
        {"files": {"a": {"size": -1, "sha256": "ab" * 32}}},
        {"files": {"a": {"size": 1, "sha256": "AB" * 32}}},
        {"files": {"a": {"size": 1, "sha256": "ab" * 32, "more": 1}}},
        {"files": {"../a": {"size": 1, "sha256": "ab" * 32}}},
        {"files": {"a\\b": {"size": 1, "sha256": "ab" * 32}}},
        {"files": {"/etc/passwd": {"size": 1, "sha256": "ab" * 32}}},
        {"files": {"a": {"size": 1, "sha256": "ab" * 32}, "A": {"size": 1, "sha256": "ab" * 32}}},
        {"format_version": 0},
        {"format_version": "1"},
        {"format_version": True},
        {"extra": 1},
    ],
    ids=str,
)
def test_content_that_no_writer_writes_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(changed(**changes), "there")


@pytest.mark.parametrize("key", ["name", "step", "files", "pitstop_version", "format_version", "digest"])
def test_a_missing_key_is_refused(key: str) -> None:
    content = unsealed(MANIFEST.to_bytes(), "there")
    content.pop(key, None)
    raw = json.dumps(content).encode() if key == "digest" else sealed(content)
    with pytest.raises(ManifestError):
        parse_manifest(raw, "there")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        MANIFEST.to_bytes().replace(b'"step": 30', b'"step": 31'),
        MANIFEST.to_bytes().replace(b'"step": 30', b'"step": 30, "step": 30'),
        MANIFEST.to_bytes().replace(b'"val_loss": 0.25', b'"val_loss": NaN'),
        MANIFEST.to_bytes().replace(b"\n", b"\r\n"),
        MANIFEST.to_bytes() + b"\n",
        MANIFEST.to_bytes() * 2,
    ],
    ids=range(11),
)
def test_other_bytes_are_refused(raw: bytes) -> None:
    with pytest.raises(ManifestError, match=r"^there: "):
        parse_manifest(raw, "there")


def test_changed_content_and_changed_spelling_are_told_apart() -> None:
    with pytest.raises(ManifestError, match="digest does not fit"):
        parse_manifest(MANIFEST.to_bytes().replace(b'"step": 30', b'"step": 31'), "there")
    with pytest.raises(ManifestError, match="rewritten by something else"):
        parse_manifest(MANIFEST.to_bytes().replace(b"\n", b"\r\n"), "there")
