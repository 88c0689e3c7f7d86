"""The only code that touches the disk for things that must survive a crash.

Every durable write goes through ``Storage``, whose methods are single operations of the operating system or are made of
them. Tests put a faulty storage in its place: one that stops, fails or forgets at the k-th operation.
"""

# System calls are the subject of this module, so they are spelt as such.
# ruff: noqa: PTH102, PTH104, PTH105, PTH108, PTH106, PTH211
from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pitstop.configs.errors import ResourceError, is_disk_full

if sys.platform != "win32":
    import fcntl

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
PIECE_BYTES = 4 * 1024 * 1024
"""Data is hashed and written in pieces of this size, so that each is still in the processor's cache when written."""

MOST_MISSES = 3
"""So many saves in a row may fail for want of disk before the training ends."""

TEMPORARY_PREFIX = ".tmp-"
TRASH_PREFIX = ".trash-"
LEFTOVERS = (TEMPORARY_PREFIX, TRASH_PREFIX)

_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
_BINARY = getattr(os, "O_BINARY", 0)
# What filesystems and platforms without (hard or symbolic) links answer; also links across devices and too many links.
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EXDEV, errno.EMLINK, errno.EINVAL, errno.EACCES}

FileContent = bytes | bytearray | memoryview | Iterable[bytes | bytearray | memoryview]
"""What a file is written from: one buffer or an iterable of buffers."""


@dataclass(frozen=True, slots=True)
class FileRecord:
    """Size in bytes and lower-case hexadecimal SHA-256 of one file."""

    size: int
    sha256: str


class Storage(Protocol):
    """Operations that a durable write is made of; all raise ``OSError``."""

    def make_directory(self, path: Path) -> None:
        """Make one directory, 0700; ``FileExistsError`` when the name is taken."""

    def create(self, path: Path) -> int:
        """Create a new file, 0600, and return its descriptor; never follows a link, never opens an existing file."""

    def open_append(self, path: Path) -> int:
        """Open a file for appending, making it when absent."""

    def write(self, descriptor: int, data: memoryview) -> int:
        """Write at most all of ``data``; return how many bytes were taken."""

    def sync_file(self, descriptor: int) -> None:
        """Return once the file's data is on the medium."""

    def close(self, descriptor: int) -> None:
        """Close the descriptor."""

    def sync_directory(self, path: Path) -> None:
        """Return once the directory's entries are on the medium."""

    def rename(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``; ``FileExistsError`` when that is taken."""

    def replace(self, source: Path, target: Path) -> None:
        """Give ``source`` the name ``target``, in place of what had it."""

    def symlink(self, target: str, path: Path) -> None:
        """Make the symbolic link ``path`` with the text ``target``."""

    def link(self, source: Path, target: Path) -> None:
        """Make the hard link ``target`` to the file ``source``."""

    def unlink(self, path: Path) -> None:
        """Remove one file or link."""

    def remove_directory(self, path: Path) -> None:
        """Remove one empty directory."""

    def free_space(self, path: Path) -> int:
        """Bytes that this user may still write to the filesystem of ``path``."""

    def write_file(self, path: Path, content: FileContent) -> FileRecord:
        """Write a new file and sync it; its size and hash are those of the bytes handed to the operating system."""

    def remove_tree(self, path: Path) -> None:
        """Remove a directory with all in it, or a file or link; nothing is followed."""


class LocalStorage:
    """``Storage`` on the local filesystem."""

    def make_directory(self, path: Path) -> None:
        os.mkdir(path, DIRECTORY_MODE)

    def create(self, path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | _BINARY, FILE_MODE)

    def open_append(self, path: Path) -> int:
        return open_regular_file(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def write(self, descriptor: int, data: memoryview) -> int:
        return os.write(descriptor, data)

    def sync_file(self, descriptor: int) -> None:
        full_sync = getattr(fcntl, "F_FULLFSYNC", None) if sys.platform != "win32" else None
        if full_sync is None:
            os.fsync(descriptor)
            return
        try:  # macOS: fsync alone leaves the data in the drive's cache
            fcntl.fcntl(descriptor, full_sync)
        except OSError as error:
            if error.errno not in {errno.ENOTSUP, errno.EINVAL}:
                raise
            os.fsync(descriptor)  # network filesystems know no F_FULLFSYNC

    def close(self, descriptor: int) -> None:
        os.close(descriptor)

    def sync_directory(self, path: Path) -> None:
        if sys.platform == "win32":
            return  # NTFS journals directory entries itself; a directory cannot be opened for syncing there
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        except OSError as error:
            if error.errno != errno.EINVAL:  # the answer of filesystems that have no such operation
                raise
        finally:
            os.close(descriptor)

    def rename(self, source: Path, target: Path) -> None:
        # rename(2) silently replaces an empty directory or a file; the run's lock keeps other writers away meanwhile.
        if os.path.lexists(target):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(target))
        os.rename(source, target)

    def replace(self, source: Path, target: Path) -> None:
        os.replace(source, target)

    def symlink(self, target: str, path: Path) -> None:
        os.symlink(target, path, target_is_directory=True)

    def link(self, source: Path, target: Path) -> None:
        os.link(source, target, follow_symlinks=False)

    def unlink(self, path: Path) -> None:
        os.unlink(path)

    def remove_directory(self, path: Path) -> None:
        os.rmdir(path)

    def free_space(self, path: Path) -> int:
        import shutil

        return shutil.disk_usage(path).free

    def write_file(self, path: Path, content: FileContent) -> FileRecord:
        digest = hashlib.sha256()
        size = 0
        descriptor = self.create(path)
        try:
            for piece in pieces(content):
                digest.update(piece)
                self._write_all(descriptor, piece)
                size += len(piece)
            self.sync_file(descriptor)
        finally:
            self.close(descriptor)
        return FileRecord(size, digest.hexdigest())

    def _write_all(self, descriptor: int, piece: memoryview) -> None:
        while len(piece) > 0:
            count = self.write(descriptor, piece)
            if count <= 0:
                raise OSError(errno.EIO, "the operating system took no bytes")
            piece = piece[count:]

    def remove_tree(self, path: Path) -> None:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            self.unlink(path)
            return
        directories, waiting = [], [path]  # no recursion: a tree that someone planted may be deeper than the stack
        while waiting:
            directory = waiting.pop()
            directories.append(directory)
            with os.scandir(directory) as entries:
                children = [(Path(entry.path), entry.is_dir(follow_symlinks=False)) for entry in entries]
            for child, is_directory in children:
                if is_directory:
                    waiting.append(child)
                else:
                    self.unlink(child)
        for directory in reversed(directories):
            self.remove_directory(directory)


def pieces(content: FileContent) -> Iterator[memoryview]:
    """Cut ``content`` into byte views of at most ``PIECE_BYTES``, without copying."""
    buffers = [content] if isinstance(content, (bytes, bytearray, memoryview)) else content
    for buffer in buffers:
        view = memoryview(buffer)
        view = view if view.format == "B" and view.ndim == 1 else view.cast("B")
        for start in range(0, len(view), PIECE_BYTES):
            yield view[start : start + PIECE_BYTES]


def unique_suffix() -> str:
    """Sixteen random hexadecimal digits, for names of temporary things."""
    return os.urandom(8).hex()


def temporary_name(path: Path) -> Path:
    """A free name beside ``path``, recognisable as temporary."""
    return path.with_name(f"{TEMPORARY_PREFIX}{path.name}-{unique_suffix()}")


def free_name(path: Path) -> Path:
    """``path``, or the first of ``path-2``, ``path-3``, … that is not taken."""
    candidate, count = path, 1
    while os.path.lexists(candidate):
        count += 1
        candidate = path.with_name(f"{path.name}-{count}")
    return candidate


def atomic_write(storage: Storage, path: Path, data: bytes) -> None:
    """Put ``data`` under the name ``path`` durably: a reader and a crash see the old content or the new, never a mixture."""
    put_in_place(storage, path, lambda temporary: storage.write_file(temporary, data))


def put_in_place(storage: Storage, path: Path, make: Callable[[Path], object]) -> None:
    """Have ``make`` make a file or link under a temporary name and give it the name ``path``, durably and in one step."""
    temporary = temporary_name(path)
    try:
        make(temporary)
        storage.replace(temporary, path)
    except BaseException:
        if os.path.lexists(temporary):
            storage.unlink(temporary)
        raise
    storage.sync_directory(path.parent)


def to_trash(storage: Storage, path: Path) -> Path:
    """Take ``path`` out of sight durably and in one step; returns where it lies now, to be removed. ``OSError``."""
    trash = path.with_name(f"{TRASH_PREFIX}{path.name}-{unique_suffix()}")
    storage.rename(path, trash)
    storage.sync_directory(path.parent)
    return trash


def make_directories(storage: Storage, path: Path) -> None:
    """Make ``path`` and its missing parents, each entry synced. Someone else making one at the same time is fine."""
    missing = []
    while not path.is_dir():
        missing.append(path)
        if path == path.parent:
            break
        path = path.parent
    for directory in reversed(missing):
        try:
            storage.make_directory(directory)
        except FileExistsError:
            if not directory.is_dir():
                raise
        storage.sync_directory(directory.parent)


def links_unsupported(error: Exception) -> bool:
    """Whether ``error``, raised by making a link, means that this filesystem or platform has no such links."""
    if isinstance(error, NotImplementedError):
        return True
    if isinstance(error, FileExistsError) or not isinstance(error, OSError):
        return False
    return error.errno in _NO_LINKS or getattr(error, "winerror", None) == 1314  # Windows: privilege not held


def symlink_or_note(storage: Storage, target: str, path: Path) -> None:
    """Make ``path`` a symbolic link with the text ``target``, or a file of that one line where there are no links. ``OSError``."""
    try:
        storage.symlink(target, path)
    except (OSError, NotImplementedError) as error:
        if not links_unsupported(error):
            raise
        storage.write_file(path, f"{target}\n".encode())


def make_durable(
    storage: Storage, root: Path, *, file_mode: int = FILE_MODE, directory_mode: int | None = DIRECTORY_MODE
) -> None:
    """Give all below ``root``, which another library wrote, these modes (private ones), and sync it. ``OSError``."""
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(directory) / name
            path.chmod(file_mode)
            sync_path(storage, path)
        if directory_mode is not None:
            Path(directory).chmod(directory_mode)
        storage.sync_directory(Path(directory))


def sync_path(storage: Storage, path: Path) -> None:
    """Sync a file that something else wrote. ``OSError``."""
    descriptor = storage.open_append(path)  # writable: some systems sync only such descriptors
    try:
        storage.sync_file(descriptor)
    finally:
        storage.close(descriptor)


def file_sha256(path: Path) -> str:
    """Lower-case hexadecimal SHA-256 of a regular file; ``OSError`` when it is a link or cannot be read."""
    descriptor = open_regular_file(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_regular_file(path: Path, *, limit: int | None = None) -> bytes:
    """The content of a regular file that is no link; ``OSError`` otherwise, or when it is longer than ``limit`` bytes."""
    descriptor = open_regular_file(path)
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        if limit is not None and os.fstat(descriptor).st_size > limit:
            raise OSError(errno.EFBIG, f"longer than {limit} bytes", str(path))
        return file.read()


def open_regular_file(path: Path | str, flags: int = os.O_RDONLY) -> int:
    """Open a file that is there or, with ``O_CREAT``, is made private; ``OSError`` at a link, a pipe, a device or a directory.

    Opening a pipe waits for nobody at its other end. The file that is checked is the one that is open.
    """
    descriptor = os.open(path, flags | _NO_FOLLOW | _BINARY | getattr(os, "O_NONBLOCK", 0), FILE_MODE)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "not a regular file", str(path))
    return descriptor


@contextmanager
def saving(path: Path) -> Iterator[None]:
    """Let an ``OSError`` meanwhile be a ``ResourceError`` that says that ``path`` could not be written."""
    try:
        yield
    except OSError as error:
        raise failed_save(path, error) from error


def failed_save(path: Path, error: OSError) -> ResourceError:
    """The error that a user sees when ``path`` could not be written."""
    reason = error.strerror or str(error)
    if is_disk_full(error):
        return ResourceError(
            f"{path} could not be saved: the disk is full or the quota used up ({reason}).",
            hint="free some space, or keep fewer checkpoints with --keep-last-n; the older checkpoints are intact",
        )
    return ResourceError(
        f"{path} could not be saved: {reason}.",
        hint="check that the directory is writable and its disk is healthy; the older checkpoints are intact",
    )
