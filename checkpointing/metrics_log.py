"""``metrics.jsonl``: one JSON object a logged step, appended; after a resume it is as if the run had never stopped."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from pitstop.checkpointing.storage import (
    LocalStorage,
    Storage,
    atomic_write,
    make_directories,
    open_regular_file,
    read_regular_file,
)
from pitstop.configs.jsonable import finite

SUPERSEDED_SUFFIX = ".superseded.jsonl"


class MetricsLog:
    """Append-only log of rows at ``path``. Every method raises ``OSError`` when the disk does."""

    def __init__(self, path: Path, storage: Storage | None = None) -> None:
        self.path = Path(path)
        self._storage: Storage = storage or LocalStorage()
        self._descriptor: int | None = None
        self._new_name = False
        self._torn = False

    @property
    def superseded_path(self) -> Path:
        """Where rows go that a resume from an earlier step has made void."""
        return self.path.with_name(self.path.stem + SUPERSEDED_SUFFIX)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row in the order of its keys; what is not finite becomes null. Not durable before ``sync``."""
        line = json.dumps(finite(row), ensure_ascii=False, allow_nan=False, separators=(", ", ": ")) + "\n"
        descriptor = self._open()
        data = line.encode()
        self._write(descriptor, b"\n" + data if self._torn else data)

    def sync(self) -> None:
        """Return once every row so far survives a power loss."""
        if self._descriptor is None:
            return
        self._storage.sync_file(self._descriptor)
        if self._new_name:
            self._storage.sync_directory(self.path.parent)
            self._new_name = False

    def close(self) -> None:
        """Sync and close; a later ``append`` opens again."""
        if self._descriptor is None:
            return
        try:
            self.sync()
        finally:
            self._storage.close(self._descriptor)
            self._descriptor = None

    def truncate_after(self, step: int) -> int:
        """Keep rows up to ``step`` (in optimizer steps); later and broken ones move to ``superseded_path``. Durable.

        A last line that a crash tore goes without a trace. Returns how many rows were moved.
        """
        self.close()
        try:
            lines = read_regular_file(self.path).split(b"\n")
        except FileNotFoundError:
            return 0
        torn = lines.pop()  # b"" after a whole last line
        kept = [line for line in lines if _belongs(line, step)]
        moved = [line for line in lines if not _belongs(line, step)]
        if not moved and not torn:
            return 0
        if moved:
            self._supersede(b"".join(line + b"\n" for line in moved))
        atomic_write(self._storage, self.path, b"".join(line + b"\n" for line in kept))
        return len(moved)

    def rows(self) -> Iterator[dict[str, Any]]:
        """The rows in order; lines that are not whole are passed over."""
        return read_rows(self.path)

    def _supersede(self, data: bytes) -> None:
        path = self.superseded_path
        old = read_regular_file(path) if os.path.lexists(path) else b""
        if old.endswith(data):
            return  # a crash came between this and the rewriting of the log
        if old and not old.endswith(b"\n"):
            old += b"\n"
        atomic_write(self._storage, path, old + data)

    def _open(self) -> int:
        if self._descriptor is None:
            make_directories(self._storage, self.path.parent)
            self._new_name = not os.path.lexists(self.path)
            self._torn = not self._new_name and not _ends_with_newline(self.path)
            self._descriptor = self._storage.open_append(self.path)
        return self._descriptor

    def _write(self, descriptor: int, data: bytes) -> None:
        view = memoryview(data)
        while len(view) > 0:
            taken = self._storage.write(descriptor, view)
            view = view[taken:]
            self._torn = len(view) > 0  # should the next write fail, the row after it starts on a line of its own

    def __enter__(self) -> MetricsLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log in order; none when there is no log, and a line that is not whole is passed over."""
    try:
        data = read_regular_file(path)
    except FileNotFoundError:
        return
    for line in data.split(b"\n"):
        row = _parse(line)
        if row is not None:
            yield row


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _ends_with_newline(path: Path) -> bool:
    with os.fdopen(open_regular_file(path), "rb") as file:
        file.seek(0, 2)
        if file.tell() == 0:
            return True
        file.seek(-1, 2)
        return file.read(1) == b"\n"


def _belongs(line: bytes, step: int) -> bool:
    row = _parse(line)
    if row is None:
        return False
    at = row.get("step")
    return not isinstance(at, (int, float)) or at <= step
