from __future__ import annotations

import os
from pathlib import Path

import pytest

from pitstop.checkpointing.disk.strict_json import MAX_BYTES, parse_json, read_json
from pitstop.configs.errors import CheckpointError


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b'{"a": 1, "a": 2}', "a key stands twice"),
        (b'[{"b": {"a": 1, "a": 1}}]', "a key stands twice"),
        (b"NaN", "NaN is not JSON"),
        (b'{"a": -Infinity}', "-Infinity is not JSON"),
        (b"1e999", "1e999 is too large"),
        (b"\xef\xbb\xbf{}", "BOM"),
        (b"\xff", "decode"),
        (b"[" * 100_000, "nested too deeply"),
        (b"{", "Expecting"),
    ],
)
def test_json_has_one_meaning_or_none(raw: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_json(raw)


def test_sound_json_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"ä": [1, 2.5, null, true]}', encoding="utf-8")
    assert read_json(tmp_path / "a.json") == {"ä": [1, 2.5, None, True]}


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "long.json").touch()
    os.truncate(tmp_path / "long.json", MAX_BYTES + 1)
    (tmp_path / "link.json").symlink_to("long.json")
    (tmp_path / "bad.json").write_text("{")
    for name in ("missing.json", "link.json", "long.json", "bad.json"):
        with pytest.raises(CheckpointError, match=rf"{name}: cannot be read: "):
            read_json(tmp_path / name)
