"""Files of JSON lines."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path


def json_lines(*rows: object) -> str:
    """A line for each row. A text is one as it stands, whether it is JSON or not."""
    return "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """The same in a file."""
    path.write_text(json_lines(*rows), encoding="utf-8")
    return path
