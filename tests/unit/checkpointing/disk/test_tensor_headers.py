from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk.tensor_headers import MAX_HEADER_BYTES, TensorEntry, read_header, read_scalar
from pitstop.configs.errors import CheckpointError


def entry(start: int, end: int, *, dtype: str = "F32", shape: Any = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [(end - start) // 4] if shape is None else shape, "data_offsets": [start, end]}


def written(path: Path, header: Any, data: bytes, *, length: int | None = None) -> Path:
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)
    return path


def test_the_tensors_of_a_file_are_listed_with_their_place(tmp_path: Path) -> None:
    header = {"__metadata__": {"format": "pt"}, "b": entry(4, 12), "a::step": entry(0, 4, shape=[])}
    path = written(tmp_path / "a.safetensors", header, struct.pack("<fff", 7.0, 1.0, 2.0))
    entries = read_header(path)
    start = path.stat().st_size - 12
    assert entries == {"b": TensorEntry("F32", (2,), start + 4, start + 12), "a::step": TensorEntry("F32", (), start, start + 4)}
    assert read_scalar(path, entries["a::step"]) == 7.0
    with pytest.raises(CheckpointError, match="a single float32 number is expected"):
        read_scalar(path, entries["b"])


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ([], "not a JSON object"),
        ({"__metadata__": {"a": 1}, "a": entry(0, 8)}, "__metadata__ is not text by name"),
        ({"a": {**entry(0, 8), "more": 1}}, "no type, shape and offsets, or more than those"),
        ({"a": entry(0, 8, dtype="F8")}, "a type that no checkpoint holds"),
        ({"a": entry(0, 8, shape=[-2])}, "no proper shape"),
        ({"a": entry(0, 8, shape=[1] * 17)}, "no proper shape"),
        ({"a": entry(0, 8, shape=[3])}, "does not have the bytes that its shape needs"),
        ({"a": entry(0, 4), "b": entry(0, 8)}, "overlap others or leave a gap"),
        ({"a": entry(4, 8)}, "overlap others or leave a gap"),
        ({"a": entry(0, 4)}, "end at byte"),
    ],
)
def test_a_header_that_does_not_fit_the_file_is_refused(tmp_path: Path, header: Any, reason: str) -> None:
    with pytest.raises(CheckpointError, match=reason):
        read_header(written(tmp_path / "a.safetensors", header, bytes(8)))


def test_a_header_is_measured_before_it_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(b"1234")
    with pytest.raises(CheckpointError, match="4 bytes are too few for a safetensors file"):
        read_header(path)
    with pytest.raises(CheckpointError, match="at most 16,777,216 are read"):
        read_header(written(path, {}, b"", length=MAX_HEADER_BYTES + 1))
    with pytest.raises(CheckpointError, match="claims 100 bytes, the file has"):
        read_header(written(path, {}, b"", length=100))
