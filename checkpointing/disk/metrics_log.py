"""``metrics.jsonl``: one JSON object a logged step, appended; after a resume it is as if the run had never stopped.

``points`` are those of one metric over the steps, for whoever draws or compares them.
"""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import storage
from pitstop.checkpointing.disk.storage import LocalStorage, Storage
from pitstop.configs.shown import finite

SUPERSEDED_SUFFIX = ".superseded.jsonl"

Points = list[tuple[float, float]]

_STEEP = 30.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis, or its tail would lie on the floor."""

_ABSURD = 1e100


class MetricsLog:
    """Append-only log of rows at ``path``; one thread appends, another may sync meanwhile.

    Rows that the disk does not take, or that it loses in a failed sync, are kept in memory and written again: a log is as
    durable as the last ``sync`` that returned, and no row is missing in between.
    """

    def __init__(self, path: Path, storage: Storage | None = None) -> None:
        self.path = Path(path)
        self._storage: Storage = storage or LocalStorage()
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._new_name = False
        self._durable = 0  # bytes of the file that a sync has confirmed
        self._recent = bytearray()  # what was appended after them
        self._written = 0  # how many of the recent bytes the operating system has taken
        self._doubtful = False  # a sync failed: nobody knows which of the recent bytes reached the medium
        self._warned = False  # of rows that the disk does not take, since it took the last one

    @property
    def superseded_path(self) -> Path:
        """Where rows go that a resume from an earlier step has made void."""
        return self.path.with_name(self.path.stem + SUPERSEDED_SUFFIX)

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one row in the order of its keys; what is not finite becomes null. Not durable before ``sync``.

        ``OSError`` when the disk does not take it; the row is kept and goes first at the next ``append`` or ``sync``.
        """
        line = json.dumps(finite(row), ensure_ascii=False, allow_nan=False, separators=(", ", ": ")) + "\n"
        with self._lock:
            self._recent += line.encode()
            self._flush()

    def append_or_warn(self, row: Mapping[str, Any], warn: Callable[[str], object]) -> None:
        """As ``append``, but a disk that does not take the row is no error: ``warn`` gets one message until it takes rows again."""
        try:
            self.append(row)
        except OSError as error:
            if not self._warned:
                warn(f"{self.path} cannot be written ({error.strerror or error}); its rows are kept until it can.")
            self._warned = True
        else:
            self._warned = False

    def sync(self) -> None:
        """Return once every row so far survives a power loss. ``OSError`` when the disk refuses; no row is lost by that."""
        with self._lock:
            if self._descriptor is None and not self._recent:
                return
            if self._doubtful:
                self._rewrite()
                return
            self._flush()
            descriptor, confirmed = self._open(), len(self._recent)
        # Outside the lock: a slow disk must not keep the training from logging its next step.
        try:
            self._storage.sync_file(descriptor)
            if self._new_name:
                self._storage.sync_directory(self.path.parent)
                self._new_name = False
        except OSError:
            self._doubtful = True
            raise
        with self._lock:
            self._durable += confirmed
            self._written -= confirmed
            del self._recent[:confirmed]

    def close(self) -> None:
        """Sync and close; a later ``append`` opens again."""
        try:
            self.sync()
        finally:
            self._close_descriptor()

    def _close_descriptor(self) -> None:
        if self._descriptor is not None:
            descriptor, self._descriptor = self._descriptor, None
            self._storage.close(descriptor)

    def _flush(self) -> None:
        """Hand the operating system what it has not taken yet."""
        descriptor = self._open()
        while self._written < len(self._recent):
            count = self._storage.write(descriptor, memoryview(bytes(self._recent[self._written :])))
            if count <= 0:
                raise OSError(errno.EIO, "the operating system took no bytes", str(self.path))
            self._written += count

    def _rewrite(self) -> None:
        """Write the log afresh. A sync that failed may have dropped data, and a second one would not tell."""
        confirmed = storage.read_regular_file(self.path)[: self._durable]
        content = confirmed + bytes(self._recent)
        self._close_descriptor()
        storage.atomic_write(self._storage, self.path, content)
        self._durable, self._written, self._doubtful, self._new_name = len(content), 0, False, False
        self._recent.clear()

    def _open(self) -> int:
        if self._descriptor is None:
            storage.make_directories(self._storage, self.path.parent)
            self._new_name = not os.path.lexists(self.path)
            size = 0 if self._new_name else self.path.lstat().st_size
            # What an earlier process left is confirmed by the next sync with the rest; a rewrite would keep it all.
            self._durable = size - self._written
            if self._durable == size and size > 0 and not _ends_with_newline(self.path):
                self._recent[:0] = b"\n"  # a crash tore the last line: ours starts on its own
            self._descriptor = self._storage.open_append(self.path)
        return self._descriptor

    def truncate_after(self, step: int) -> int:
        """Keep rows up to ``step`` (in optimizer steps); later and broken ones move to ``superseded_path``. Durable.

        A last line that a crash tore goes without a trace. Returns how many rows were moved.
        """
        self.close()
        try:
            lines = storage.read_regular_file(self.path).split(b"\n")
        except FileNotFoundError:
            return 0
        torn = lines.pop()  # b"" after a whole last line
        belonging = [line for line in lines if _belongs(line, step)]
        moved = [line for line in lines if not _belongs(line, step)]
        if not moved and not torn:
            return 0
        if moved:
            self._supersede(b"".join(line + b"\n" for line in moved))
        storage.atomic_write(self._storage, self.path, b"".join(line + b"\n" for line in belonging))
        return len(moved)

    def _supersede(self, data: bytes) -> None:
        path = self.superseded_path
        old = storage.read_regular_file(path) if os.path.lexists(path) else b""
        if old.endswith(data):
            return  # a crash came between this and the rewriting of the log
        if old and not old.endswith(b"\n"):
            old += b"\n"
        storage.atomic_write(self._storage, path, old + data)


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a log in order; none when there is no log, and a line that is not whole is passed over."""
    try:
        data = storage.read_regular_file(path)
    except FileNotFoundError:
        return
    for line in data.split(b"\n"):
        row = _parse(line)
        if row is not None:
            yield row


def points(rows: Iterable[Mapping[str, Any]], key: str) -> Points:
    """(step, value) in the order of steps; rows without a finite value, such as null for NaN, are left out."""
    pairs = [(finite_number(row.get("step")), finite_number(row.get(key))) for row in rows]
    return sorted((step, value) for step, value in pairs if step is not None and value is not None)


def finite_number(value: Any) -> float | None:
    """``value`` if it is a number that can be drawn; None for anything else."""
    if type(value) not in (int, float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < _ABSURD else None  # false for NaN


def is_steep(values: Sequence[float]) -> bool:
    """Whether the values want a logarithmic axis."""
    return bool(values) and min(values) > 0 and max(values) / min(values) > _STEEP


def _parse(line: bytes) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return row if isinstance(row, dict) else None


def _ends_with_newline(path: Path) -> bool:
    with os.fdopen(storage.open_regular_file(path), "rb") as file:
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
