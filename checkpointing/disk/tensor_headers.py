"""The header of a safetensors file, checked before the library maps the file.

The format is eight bytes with the header's length, the header (JSON: name → type, shape, bytes from and to), and the data.
The library looks at most of this too, but takes the last of two tensors with one name, and reads headers of any length up to
100 MB.
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import open_regular_file
from pitstop.checkpointing.disk.strict_json import parse_json
from pitstop.configs.errors import CheckpointError

MAX_HEADER_BYTES = 16 * 1024 * 1024
"""A header longer than this is refused before it is read; one for a hundred thousand tensors is shorter."""

DTYPES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of one number of each type that a checkpoint may hold, in safetensors' words."""
ALL_DTYPES = DTYPES | {"U16": 2, "U32": 4, "U64": 8, "C64": 8, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1}
"""And of those that other people's files hold beside these."""

_MOST_DIMENSIONS = 16


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a file: its type in safetensors' words, its shape, and where its bytes lie in the file."""

    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def read_header(path: Path, dtypes: Mapping[str, int] = DTYPES) -> dict[str, TensorEntry]:
    """Every tensor of a safetensors file; ``CheckpointError`` unless they fill the file exactly, without gap or overlap.

    ``dtypes`` are the types that it may hold.
    """
    try:
        with os.fdopen(open_regular_file(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            length = _header_length(file.read(8), size)
            return _entries(parse_json(file.read(length)), 8 + length, size, dtypes)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def read_scalar(path: Path, entry: TensorEntry) -> float:
    """The value of a float32 tensor of one number. ``CheckpointError``, ``OSError``."""
    if entry.dtype != "F32" or entry.end - entry.start != 4:
        raise CheckpointError(f"{path}: a single float32 number is expected, not {entry.dtype} {entry.shape}")
    with path.open("rb") as file:
        file.seek(entry.start)
        (value,) = struct.unpack("<f", file.read(4))
    return float(value)


def _header_length(first: bytes, size: int) -> int:
    if len(first) < 8:
        raise ValueError(f"{size} bytes are too few for a safetensors file")
    (length,) = struct.unpack("<Q", first)
    if length > MAX_HEADER_BYTES:
        raise ValueError(f"its header claims {length:,} bytes; at most {MAX_HEADER_BYTES:,} are read")
    if length > size - 8:
        raise ValueError(f"its header claims {length:,} bytes, the file has {size:,}")
    return int(length)


def _entries(header: Any, start: int, size: int, dtypes: Mapping[str, int]) -> dict[str, TensorEntry]:
    if not isinstance(header, dict):
        raise ValueError("its header is not a JSON object")
    notes = header.pop("__metadata__", {})
    if not isinstance(notes, Mapping) or not all(isinstance(value, str) for value in notes.values()):
        raise ValueError("its __metadata__ is not text by name")
    entries = {name: _entry(name, value, start, dtypes) for name, value in header.items()}
    at = start
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].start, item[1].end)):
        if entry.start != at:
            raise ValueError(f"the bytes of {name[:200]} overlap others or leave a gap")
        at = entry.end
    if at != size:
        raise ValueError(f"its tensors end at byte {at:,}, the file has {size:,}")
    return entries


def _entry(name: str, value: Any, start: int, dtypes: Mapping[str, int]) -> TensorEntry:
    if not isinstance(value, dict) or value.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name[:200]} has no type, shape and offsets, or more than those")
    dtype, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(dtype, str) or dtype not in dtypes:
        raise ValueError(f"{name[:200]} has a type that no checkpoint holds")
    if not _naturals(shape) or len(shape) > _MOST_DIMENSIONS:
        raise ValueError(f"{name[:200]} has no proper shape")
    if not _naturals(offsets) or len(offsets) != 2 or offsets[1] - offsets[0] != math.prod(shape) * dtypes[dtype]:
        raise ValueError(f"{name[:200]} does not have the bytes that its shape needs")
    return TensorEntry(dtype, tuple(shape), start + offsets[0], start + offsets[1])


def _naturals(value: Any) -> bool:
    return isinstance(value, list) and all(type(item) is int and 0 <= item < 2**63 for item in value)
