"""Chosen files out of a tar archive, read as a stream; nothing is unpacked to disk."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Container
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, cast

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images.files import GZIP, Readable, TooLong, cannot_read, read_all


@dataclass
class Contents:
    """The content of the files that were wanted, and which of the directories asked about are at the top of the archive."""

    files: dict[str, bytearray] = field(default_factory=dict)
    directories: set[str] = field(default_factory=set)


def read_archive(path: Path, names: Container[str], directories: Container[str], *, limit: int) -> Contents:
    """The files of ``names`` (such as ``directory/file``) in a tar archive, packed by gzip or not, and which of ``directories`` it has.

    Reads one pass and at most ``limit`` unpacked bytes, headers included.

    Raises:
        DataError: not an archive, damaged, too long, or a wanted name that is there twice or is not a plain file.
    """
    contents = Contents()
    try:
        with path.open("rb") as raw:
            packed = raw.read(len(GZIP)) == GZIP
            raw.seek(0)
            stream = _Limited(gzip.GzipFile(fileobj=raw) if packed else raw, limit)
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as archive:
                for member in archive:
                    archive.members.clear()  # type: ignore[attr-defined]  # a stream never goes back to them, and a forged archive may have millions
                    name = member.name.removeprefix("./")
                    if (directory := name.partition("/")[0]) in directories:
                        contents.directories.add(directory)
                    if name in names:
                        contents.files[name] = _content(path, archive, member, seen=name in contents.files)
            stream.finish()
    except (tarfile.TarError, OSError, EOFError, zlib.error, ValueError, OverflowError) as error:  # the last two: forged headers
        raise cannot_read(path, error) from error
    return contents


def _content(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo, *, seen: bool) -> bytearray:
    inner = archive.extractfile(member) if member.isreg() and not member.issparse() else None
    if seen or inner is None:
        problem = "there twice" if seen else "not a plain file"
        raise DataError(
            f"{path}: in this archive {member.name} is {problem}.", hint="Fetch the archive again from where it is published."
        )
    return read_all(inner, member.size)


class _Limited:
    """A stream that refuses to give more than ``limit`` bytes: tarfile believes the sizes that headers claim."""

    def __init__(self, file: Readable, limit: int) -> None:
        self._file = file
        self._limit = limit
        self._left = limit

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes. Raises ``TooLong``."""
        piece = self._file.read(size)
        self._left -= len(piece)
        if self._left < 0:
            raise TooLong(f"more than {self._limit:,} bytes, unpacked")
        return piece

    def finish(self) -> None:
        """Read to the end, so that gzip compares its checksum."""
        while self.read(1 << 20):
            continue
