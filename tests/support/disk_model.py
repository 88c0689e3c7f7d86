"""A disk that may lose what was not synced.

A ``Recorder`` notes every operation of a workload. ``image`` then builds what a power cut after the first ``count`` of them
may leave: an operation on a directory is certain only once every directory it touches was synced afterwards, data only once
its file was; anything else is there or not as ``rng`` decides, and unsynced data may be cut short or read as zeros. What
waited on a sync that failed is never certain, however often that file is synced again.
"""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk.storage import LocalStorage
from support.stores import OPERATIONS, HookedStorage


@dataclass
class Operation:
    """One operation by inode numbers; ``synced_at`` is the index of the event from which on it is certain."""

    kind: str
    at: int
    directories: tuple[int, ...] = ()
    fields: tuple[Any, ...] = ()
    waiting: set[int] = field(default_factory=set)
    lost: bool = False
    synced_at: int | None = None


class Recorder:
    """Records what a workload does below ``root``, which exists and is durable at the start."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.storage = HookedStorage(before=self._before, after=self.note)
        self.fail_sync: int | None = None  # the sync, counted from 0, that fails with EIO
        self.operations: list[Operation] = []
        self.acknowledged: list[tuple[int, int]] = []
        self.count = 0
        self.made = 0  # the moment from which on a workload makes promises
        self._inodes: dict[Path, int] = {root: 0}
        self._descriptors: dict[int, int] = {}
        self._next = 1
        self.syncs = 0
        self._lock = threading.Lock()  # a save in the background and the training thread both write

    def watch(self, storage: type[LocalStorage]) -> None:
        """Record what every object of this class does from now on, in this process; the operations themselves are done."""
        serial = threading.RLock()  # an operation and its record are one

        def recording(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
            def operation(this: LocalStorage, *arguments: Any) -> Any:
                with serial:
                    result = original(this, *arguments)
                    self.note(name, arguments, result)
                    return result

            return operation

        for name in OPERATIONS:
            setattr(storage, name, recording(name, getattr(storage, name)))

    def acknowledge(self, step: int) -> None:
        """Note that the workload was told: the checkpoint of ``step`` is saved."""
        self.acknowledged.append((self.count, step))

    def _before(self, name: str, arguments: tuple[Any, ...]) -> None:
        if name not in ("sync_file", "sync_directory"):
            return
        self.syncs += 1
        if self.syncs - 1 == self.fail_sync:
            inode = -self._descriptors[arguments[0]] if name == "sync_file" else self._inodes[arguments[0]]
            for operation in self.operations:
                if inode in operation.waiting:
                    operation.lost = True
            raise OSError(errno.EIO, os.strerror(errno.EIO))

    def note(self, name: str, arguments: tuple[Any, ...], result: Any) -> None:
        """Record one operation that was done; what lies outside the root is passed over."""
        note = getattr(self, f"_on_{name}", None)
        with self._lock:
            if note is not None and self._is_inside(name, arguments):
                note(*arguments, result)
            self.count += 1

    def _is_inside(self, name: str, arguments: tuple[Any, ...]) -> bool:
        first = arguments[1] if name == "symlink" else arguments[0]
        if isinstance(first, int):
            return first in self._descriptors
        return (first if name == "sync_directory" else first.parent) in self._inodes

    def _new(self, path: Path) -> int:
        self._inodes[path] = self._next
        self._next += 1
        return self._next - 1

    def _add(self, kind: str, directories: tuple[int, ...], *fields: Any) -> None:
        self.operations.append(Operation(kind, self.count, directories, fields, waiting=set(directories)))

    def _on_make_directory(self, path: Path, _: None) -> None:
        parent = self._inodes[path.parent]
        self._add("mkdir", (parent,), parent, path.name, self._new(path))

    def _on_create(self, path: Path, descriptor: int) -> None:
        parent = self._inodes[path.parent]
        self._descriptors[descriptor] = self._new(path)
        self._add("create", (parent,), parent, path.name, self._inodes[path])

    def _on_open_append(self, path: Path, descriptor: int) -> None:
        if path in self._inodes:
            self._descriptors[descriptor] = self._inodes[path]
        else:
            self._on_create(path, descriptor)

    def _on_close(self, descriptor: int, _: None) -> None:
        del self._descriptors[descriptor]

    def _on_link(self, source: Path, target: Path, _: None) -> None:
        parent = self._inodes[target.parent]
        self._inodes[target] = self._inodes[source]
        self._add("link", (parent,), parent, target.name, self._inodes[target])

    def _on_write(self, descriptor: int, data: memoryview, taken: int) -> None:
        inode = self._descriptors[descriptor]
        self._add("write", (-inode,), inode, bytes(data[:taken]))

    def _on_sync_file(self, descriptor: int, _: None) -> None:
        self._settle(-self._descriptors[descriptor])

    def _on_sync_directory(self, path: Path, _: None) -> None:
        self._settle(self._inodes[path])

    def _settle(self, inode: int) -> None:
        for operation in self.operations:
            operation.waiting.discard(inode)
            if not operation.waiting and operation.synced_at is None and not operation.lost:
                operation.synced_at = self.count

    def _on_symlink(self, target: str, path: Path, _: None) -> None:
        parent = self._inodes[path.parent]
        self._add("symlink", (parent,), parent, path.name, self._new(path), target)

    def _on_rename(self, source: Path, target: Path, _: None) -> None:
        old, new = self._inodes[source.parent], self._inodes[target.parent]
        self._add("rename", (old, new), old, source.name, new, target.name)
        moved = {path: inode for path, inode in self._inodes.items() if path == source or source in path.parents}
        for path in moved:
            del self._inodes[path]
        self._inodes.pop(target, None)
        self._inodes.update({target / path.relative_to(source): inode for path, inode in moved.items()})

    _on_replace = _on_rename

    def _on_unlink(self, path: Path, _: None) -> None:
        parent = self._inodes[path.parent]
        self._add("remove", (parent,), parent, path.name)
        self._inodes.pop(path, None)  # what another library wrote, and lock files, were not seen

    _on_remove_directory = _on_unlink

    def acknowledged_steps(self, count: int) -> list[int]:
        """The steps of the checkpoints acknowledged among the first ``count`` operations, in their order."""
        return [step for at, step in self.acknowledged if at <= count]

    def image(self, count: int, rng: random.Random, target: Path) -> None:
        """Build in ``target`` what a power cut after ``count`` operations may leave."""
        keep = rng.choice([0.0, 0.5, 0.9, 1.0, None])  # None: the newest operation overtook all that are not certain
        newest = max((operation.at for operation in self.operations if operation.at < count), default=None)
        directories: dict[int, dict[str, int]] = {0: {}}
        files: dict[int, bytes] = {}
        links: dict[int, str] = {}
        for operation in self.operations:
            if operation.at >= count:
                break
            certain = operation.synced_at is not None and operation.synced_at < count
            kept = operation.at == newest if keep is None else rng.random() < keep
            if certain or kept:
                _apply(operation, directories, files, links)
            elif operation.kind == "write" and rng.random() < 0.5:
                _tear(operation, files, rng)
        _build(0, target, directories, files, links)


def _apply(operation: Operation, directories: dict[int, dict[str, int]], files: dict[int, bytes], links: dict[int, str]) -> None:
    fields = operation.fields
    if operation.kind == "write":
        files[fields[0]] = files.get(fields[0], b"") + fields[1]
    elif operation.kind == "rename":
        old, name, new, new_name = fields
        if name in directories.get(old, {}) and new in directories:
            directories[new][new_name] = directories[old].pop(name)
    elif operation.kind == "remove":
        directories.get(fields[0], {}).pop(fields[1], None)
    else:
        parent, name, inode = fields[:3]
        if operation.kind == "mkdir":
            directories.setdefault(inode, {})
        elif operation.kind in ("create", "link"):
            files.setdefault(inode, b"")
        else:
            links[inode] = fields[3]
        directories.setdefault(parent, {})[name] = inode


def _tear(operation: Operation, files: dict[int, bytes], rng: random.Random) -> None:
    inode, data = operation.fields
    cut = rng.randrange(len(data) + 1)
    torn = data[:cut] if rng.random() < 0.5 else data[:cut] + bytes(len(data) - cut)
    files[inode] = files.get(inode, b"") + torn


def _build(inode: int, path: Path, directories: Any, files: dict[int, bytes], links: dict[int, str]) -> None:
    path.mkdir()
    for name, child in directories[inode].items():
        if child in directories:
            _build(child, path / name, directories, files, links)
        elif child in links:
            (path / name).symlink_to(links[child])
        else:
            (path / name).write_bytes(files.get(child, b""))
