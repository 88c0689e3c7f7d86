"""JSON from files that someone else may have written: one meaning, bounded size, or an error."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import read_regular_file
from pitstop.configs.errors import CheckpointError

MAX_BYTES = 16 * 1024 * 1024
"""A JSON file of a checkpoint longer than this is refused before it is read."""


def read_json(path: Path) -> Any:
    """The content of a JSON file; ``CheckpointError`` when it is no regular file, is too long, or is not strict JSON."""
    try:
        return parse_json(read_regular_file(path, limit=MAX_BYTES))
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise CheckpointError(f"{path}: cannot be read: {error}") from None


def parse_json(raw: bytes) -> Any:
    """UTF-8 JSON without a byte order mark, duplicate keys or numbers that are none; ``ValueError`` otherwise."""
    try:
        return json.loads(
            raw.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_no_constant, parse_float=_finite_float
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        raise ValueError("a key stands twice")
    return content


def _no_constant(text: str) -> Any:
    raise ValueError(f"{text} is not JSON")


def _finite_float(text: str) -> float:
    number = float(text)  # infinite for 1e999
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is too large")
    return number
