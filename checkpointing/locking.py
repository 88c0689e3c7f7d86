"""One writer a run: an advisory lock that the operating system drops when its holder dies, however it dies."""

from __future__ import annotations

import errno
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from pitstop.checkpointing.storage import open_regular_file, read_regular_file
from pitstop.configs.errors import RunError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PATIENCE_S = 0.3
"""How long a taker waits: a reader that asks whether a run is alive holds the lock for some microseconds."""

_BUSY = {errno.EAGAIN, errno.EACCES, errno.EDEADLK}
_LONGEST_WORD = 64 * 1024
_FAR = 1 << 30  # Windows locks a range of bytes against reading too; one beyond the owner's data
_held: set[int] = set()


def _close_in_child() -> None:
    # A forked data-loading worker that outlives a killed trainer would keep the lock with its copy of the descriptor.
    for descriptor in list(_held):
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def exclusive(path: Path, what: str, owner: Mapping[str, Any] | None = None, *, patience_s: float = PATIENCE_S) -> Iterator[None]:
    """Hold the lock file ``path`` for ``what`` (named in errors), leaving word of who holds it.

    ``RunError`` when another process still holds it after ``patience_s`` seconds (its pid, host and since when are in the message), or when the lock file
    cannot be made.
    """
    descriptor = _open(path, what)
    _held.add(descriptor)
    try:
        _take(descriptor, path, what, patience_s)
        _sign(descriptor, owner or {})
        yield
    finally:
        if descriptor in _held:  # not in a forked child, where it is closed already
            _held.discard(descriptor)
            os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock file ``path`` now."""
    try:
        descriptor = open_regular_file(path)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, shared=True)
    finally:
        os.close(descriptor)


def owner_of(path: Path) -> dict[str, Any]:
    """What the last holder of the lock said of itself: ``pid``, ``host``, ``since`` and what else it gave; {} if unknown."""
    try:
        content = json.loads(read_regular_file(path, limit=_LONGEST_WORD))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _open(path: Path, what: str) -> int:
    try:
        return open_regular_file(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise RunError(
            f"{what} cannot be locked: {path}: {error.strerror or error}",
            hint="check that the directory exists and that you may write to it",
        ) from error


def _take(descriptor: int, path: Path, what: str, patience_s: float) -> None:
    deadline = time.monotonic() + patience_s
    while not _try_lock(descriptor, shared=False):
        if time.monotonic() > deadline:
            raise _in_use(path, what)
        time.sleep(0.02)


def _try_lock(descriptor: int, *, shared: bool) -> bool:
    try:
        if sys.platform == "win32":
            os.lseek(descriptor, _FAR, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _BUSY:
            return False
        raise RunError(
            f"this filesystem has no file locks ({error.strerror or error})",
            hint="keep runs on a filesystem with flock, so that two processes never write one run",
        ) from error
    return True


def _sign(descriptor: int, owner: Mapping[str, Any]) -> None:
    import socket  # here: readers that only ask whether a run is alive do without

    word = {"pid": os.getpid(), "host": socket.gethostname(), "since": datetime.now().astimezone().isoformat(timespec="seconds")}
    os.ftruncate(descriptor, 0)
    os.lseek(descriptor, 0, os.SEEK_SET)
    os.write(descriptor, json.dumps({**word, **owner}).encode())


def _in_use(path: Path, what: str) -> RunError:
    owner = owner_of(path)
    who = f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"
    return RunError(f"{what} is in use by {who}", hint="wait for it to end, or stop it; it saves a checkpoint on SIGTERM")
