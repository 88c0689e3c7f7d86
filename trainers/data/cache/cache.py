"""Tokenised data on disk, by all that it follows from: it is tokenised once and mapped into memory ever after.

An entry is a directory: ``examples.arrow``, ``index.json`` (counts, and the size by which damage is noticed) and a
``packs-*.arrow`` for each way in which the examples are packed or split. It is written beside its place and moved there whole.
All of it can be made again.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.checkpointing.disk import locking
from pitstop.checkpointing.disk.storage import LocalStorage, atomic_write, file_sha256
from pitstop.checkpointing.disk.strict_json import read_json
from pitstop.configs.errors import CheckpointError, ResourceError, RunError, is_disk_full
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.examples import Examples

if TYPE_CHECKING:
    from pitstop.trainers.data.cache.entry import Fill

_WHAT = "the tokenised data"
_LONGEST_WAIT_S = 86_400.0
_SETTLED_NS = 2_000_000_000
_TEMPORARY = ".tmp"


class DataCache:
    """Entries below ``directory``, together at most ``limit_bytes`` but for the one in use.

    ``tokenizer_key`` is what every key holds besides what is read: the tokenizer and the versions of libraries. ``tell`` and
    ``warn`` say what happens.
    """

    def __init__(
        self,
        directory: Path,
        *,
        tokenizer_key: Mapping[str, Any],
        limit_bytes: int,
        tell: Callable[[str], None],
        warn: Callable[[str], None],
    ) -> None:
        self.directory, self.tokenizer_key, self.limit_bytes = directory, dict(tokenizer_key), limit_bytes
        self._tell, self._warn = tell, warn

    def get(self, key: Mapping[str, Any], spec: str, fill: Fill) -> tuple[Examples, Counts]:
        """The examples of ``key``, out of the cache or made by ``fill``; whoever else wants the same ones waits meanwhile.

        ``spec`` names them in messages. Raises what ``fill`` raises, and ``ResourceError`` where the disk does not take them.
        """
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
        entry = self.directory / name
        with self._writing(spec), self._locked(name, spec):
            stored = self._open(entry, spec)
            if stored is not None:
                self._tell(f"Data: {len(stored[0]):,} examples of {spec} from the cache")
            else:
                stored = self._make(entry, fill)
                self._tell(f"Data: {len(stored[0]):,} examples of {spec} tokenised; they are kept for the next time")
        self._evict(keep=name)
        return stored

    @contextlib.contextmanager
    def _locked(self, name: str, spec: str) -> Iterator[None]:
        self._make_directory(self.directory)
        path = self.directory / f"{name}.lock"
        if locking.is_taken(path):
            self._tell(f"Another process is tokenising {spec}; waiting for it.")
        try:
            lock = contextlib.ExitStack()
            lock.enter_context(locking.exclusive(path, _WHAT, patience_s=_LONGEST_WAIT_S))
        except RunError as error:  # the disk does not take a lock file, or the file system has no locks
            raise ResourceError(f"{error.message}", hint="Give --no-data-cache, which holds all of it in memory.") from error
        with lock:
            yield

    def _make_directory(self, path: Path) -> None:
        """Make ``path``, which is the cache's directory or in it, and what is missing above; the cache's own are private."""
        self.directory.parent.mkdir(parents=True, exist_ok=True)
        for directory in (self.directory, path):
            directory.mkdir(exist_ok=True, mode=0o700)

    def _open(self, entry: Path, spec: str) -> tuple[Examples, Counts] | None:
        """The entry if it is there and whole; a damaged one is removed."""
        from pitstop.trainers.data.cache.entry import INDEX, open_entry

        if not entry.is_dir():
            return None
        try:
            stored = open_entry(entry)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, CheckpointError) as error:
            self._warn(f"The tokenised data of {spec} in {entry} is damaged and is made again: {error}")
            shutil.rmtree(entry)
            return None
        with contextlib.suppress(OSError):
            os.utime(entry / INDEX)  # when it was last used
        return stored

    def _make(self, entry: Path, fill: Fill) -> tuple[Examples, Counts]:
        from pitstop.trainers.data.cache.entry import open_entry, write_entry

        temporary = entry.with_name(entry.name + _TEMPORARY)
        shutil.rmtree(temporary, ignore_errors=True)  # of a process that died: whoever holds the lock is the only one
        try:
            write_entry(temporary, fill)
            temporary.rename(entry)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        return open_entry(entry)

    @contextlib.contextmanager
    def _writing(self, spec: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = "the disk is full" if is_disk_full(error) else error.strerror or str(error)
            raise ResourceError(
                f"The tokenised data of {spec} cannot be kept in {self.directory}: {reason}.",
                hint="Make room there, let XDG_CACHE_HOME name a directory on another disk, "
                "or give --no-data-cache, which holds all of it in memory.",
            ) from error

    def _evict(self, keep: str) -> None:
        """Remove what was used longest ago until the rest fits, and what processes that died have left; nothing in use."""
        total = 0
        for _, size, path in sorted(_entries(self.directory), reverse=True):
            total += size
            if path.name == keep or (path.suffix != _TEMPORARY and total <= self.limit_bytes):
                continue
            lock = self.directory / f"{path.name.removesuffix(_TEMPORARY)}.lock"
            with contextlib.suppress(RunError, OSError), locking.exclusive(lock, _WHAT, patience_s=0):
                shutil.rmtree(path)  # one that is being read or written is left for the next time
                total -= size

    def digest(self, path: Path) -> str:
        """SHA-256 of a file; remembered as long as its size, times and number on the disk stay what they were."""
        status = path.stat()
        state = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev]
        record_path = self.directory / "digests" / f"{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:32]}.json"
        if record_path.exists():
            with contextlib.suppress(CheckpointError):
                content = read_json(record_path)
                if isinstance(content, dict) and content.get("state") == state and isinstance(content.get("sha256"), str):
                    return str(content["sha256"])
        digest = file_sha256(path.resolve())
        # A file that changed just now may change again without its time telling; its digest is not remembered yet.
        if time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > _SETTLED_NS:
            with contextlib.suppress(OSError):  # only the next start is slower
                self._make_directory(record_path.parent)
                atomic_write(LocalStorage(), record_path, json.dumps({"state": state, "sha256": digest}).encode())
        return digest


def _entries(directory: Path) -> Iterator[tuple[float, int, Path]]:
    """When each entry was last used, its size in bytes and its place; what vanishes meanwhile is left out."""
    for path in directory.iterdir():
        if path.is_dir() and path.name != "digests":
            with contextlib.suppress(OSError):
                statuses = [file.stat() for file in path.iterdir()]
                yield max((status.st_mtime for status in statuses), default=0.0), sum(status.st_size for status in statuses), path
