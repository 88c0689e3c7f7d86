"""Bytes out of files: never more than a limit, and every failure with the path."""

from __future__ import annotations

import gzip
import os
import zlib
from pathlib import Path
from typing import Protocol

from pitstop.configs.errors import DataError

_CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
"""What a file packed by gzip begins with."""


class TooLong(OSError):
    """More bytes than the format can need."""


class Readable(Protocol):
    """A binary stream."""

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes; none at the end."""


def read_all(file: Readable, limit: int) -> bytearray:
    """What is left of ``file``. Raises ``TooLong`` for more than ``limit`` bytes, however few they are packed."""
    content = bytearray()
    while piece := file.read(_CHUNK):
        content += piece
        if len(content) > limit:
            raise TooLong(f"more than {limit:,} bytes")
    return content


def read_file(path: Path, limit: int, *, unpack: bool = False) -> bytearray:
    """The content of a file of at most ``limit`` bytes; with ``unpack`` that of a gzip file without the packing. Raises ``DataError``."""
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            packed = unpack and file.read(len(GZIP)) == GZIP
            file.seek(0)
            if not packed:
                return read_all(file, limit)
            with gzip.GzipFile(fileobj=file) as inner:
                return read_all(inner, limit)
    except (OSError, EOFError, zlib.error) as error:  # gzip's own kind is an OSError
        raise cannot_read(path, error) from error


def cannot_read(path: Path, error: Exception) -> DataError:
    """The error that a user sees for a file that is damaged, too long, or not to be opened."""
    return DataError(
        f"{path}: cannot be read: {getattr(error, 'strerror', None) or error or type(error).__name__}.",
        hint="Check the permissions; if the file is damaged or not whole, fetch it again.",
    )


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # a pipe that nobody writes to would stop us for ever
