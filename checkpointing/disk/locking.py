"""One writer a run: an advisory lock that the operating system drops when its holder dies, however it dies."""

from __future__ import annotations

import contextlib
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

from pitstop.checkpointing.disk.storage import open_regular_file, read_regular_file
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
_shared: dict[Path, int] = {}


def _close_in_child() -> None:
    # A forked data-loading worker that outlives a killed trainer would keep the lock with its copy of the descriptor.
    for descriptor in [*_held, *_shared.values()]:
        os.close(descriptor)
    _held.clear()
    _shared.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)


@contextmanager
def exclusive(
    path: Path, title: str, owner: Mapping[str, Any] | None = None, *, patience_s: float = PATIENCE_S
) -> Iterator[None]:
    """Hold the lock file ``path`` for ``title`` (named in errors), leaving word of who holds it.

    ``RunError`` when another process still holds it after ``patience_s`` seconds (its pid, host and since when are in the message), when the lock file
    cannot be made, or when it was deleted with all around it while this one waited.
    """
    descriptor = _open(path, title)
    _held.add(descriptor)
    try:
        _take(descriptor, path, title, patience_s)
        _check_still_there(descriptor, path, title)
        _sign(descriptor, owner or {})
        yield
    finally:
        if descriptor in _held:  # not in a forked child, where it is closed already
            _held.discard(descriptor)
            os.close(descriptor)


def share(path: Path, title: str) -> None:
    """Hold the lock file ``path`` together with any number of others, until ``release`` or the end of this process.

    Whoever wants it for himself is refused meanwhile. ``RunError`` as for ``exclusive``. Does nothing on Windows, whose
    locks cannot be shared.
    """
    if sys.platform == "win32" or path in _shared:
        return
    descriptor = _open(path, title)
    try:
        _take(descriptor, path, title, PATIENCE_S, shared=True)
    except BaseException:
        os.close(descriptor)
        raise
    _shared[path] = descriptor
    _sign(descriptor, {})


def release(path: Path) -> None:
    """Give up what ``share`` took; nothing happens where it took nothing."""
    descriptor = _shared.pop(path, None)
    if descriptor is not None:
        os.close(descriptor)


def is_locked(path: Path) -> bool:
    """Whether some process holds the lock file ``path`` for itself now."""
    return _is_refused(path, os.O_RDONLY, shared=True)


def is_taken(path: Path) -> bool:
    """Whether some process holds the lock file ``path`` now, be it together with others (``share``)."""
    return _is_refused(path, os.O_RDWR, shared=False)


def _is_refused(path: Path, flags: int, *, shared: bool) -> bool:
    try:
        descriptor = open_regular_file(path, flags)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor, shared=shared)
    finally:
        os.close(descriptor)


def owner_of(path: Path) -> dict[str, Any]:
    """What the last holder of the lock said of itself: ``pid``, ``host``, ``since`` and what else it gave; {} if unknown."""
    try:
        content = json.loads(read_regular_file(path, limit=_LONGEST_WORD))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def _open(path: Path, title: str) -> int:
    try:
        return open_regular_file(path, os.O_RDWR | os.O_CREAT)
    except OSError as error:
        raise RunError(
            f"{title} cannot be locked: {path}: {error.strerror or error}",
            hint="check that the directory exists and that you may write to it",
        ) from error


def _take(descriptor: int, path: Path, title: str, patience_s: float, *, shared: bool = False) -> None:
    deadline = time.monotonic() + patience_s
    while not _try_lock(descriptor, shared=shared):
        if time.monotonic() > deadline:
            raise in_use(path, title)
        time.sleep(0.02)


def _check_still_there(descriptor: int, path: Path, title: str) -> None:
    # Another run may have this place by now: the lock of the old one would then guard nothing.
    try:
        is_unchanged = os.path.samestat(os.fstat(descriptor), path.lstat())
    except OSError:
        is_unchanged = False
    if not is_unchanged:
        raise RunError(f"{title} was deleted by another process just now", hint="`pitstop list-runs` shows what there is")


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
    with contextlib.suppress(OSError):  # a full disk has no room for a word, and must not keep anyone from tidying it
        os.ftruncate(descriptor, 0)
        os.lseek(descriptor, 0, os.SEEK_SET)
        os.write(descriptor, json.dumps({**word, **owner}).encode())


def in_use(path: Path, title: str) -> RunError:
    """The error that names who holds the lock file ``path``."""
    owner = owner_of(path)
    holder = f"process {owner.get('pid', '?')} on {owner.get('host', '?')} since {owner.get('since', '?')}"
    return RunError(f"{title} is in use by {holder}", hint="wait for it to end, or stop it; it saves a checkpoint on SIGTERM")
