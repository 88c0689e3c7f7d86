"""Texts as lines, compressed or not; a damaged or cut stream is told with the line behind which it stops."""

from __future__ import annotations

import contextlib
import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Generator, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from pitstop.configs.errors import DataError, first_line


def _by_pyarrow(compression: str, path: Path) -> Any:
    """Where streams follow one another, Python's own ``bz2`` takes one whose beginning is damaged for the end."""
    import pyarrow

    return io.BufferedReader(pyarrow.input_stream(str(path), compression=compression))


class XzStreams(io.RawIOBase):
    """The text of an ``.xz`` file, all its streams: Python's own ``LZMAFile`` takes one whose beginning is damaged for the end.

    Zeros between streams are padding (section 2.2 of the format). Reading raises ``lzma.LZMAError`` and ``EOFError``.
    """

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._unpacker = lzma.LZMADecompressor()

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill ``buffer`` with the next bytes; 0 at the end."""
        while True:
            packed = b""
            if self._unpacker.eof:
                packed = self._unpacker.unused_data.lstrip(b"\0")
                while not packed and (piece := self._file.read(io.DEFAULT_BUFFER_SIZE)):
                    packed = piece.lstrip(b"\0")
                if not packed:
                    return 0
                self._unpacker = lzma.LZMADecompressor()
            elif self._unpacker.needs_input and not (packed := self._file.read(io.DEFAULT_BUFFER_SIZE)):
                raise EOFError("it ends within a stream")
            if data := self._unpacker.decompress(packed, max_length=len(buffer)):
                buffer[: len(data)] = data
                return len(data)

    def close(self) -> None:
        """Close the file."""
        self._file.close()
        super().close()


def _open(path: Path) -> Any:
    unpack = _OPENED.get(path.suffix.lower())
    return path.open("rb") if unpack is None else unpack(path)


_OPENED: dict[str, Callable[[Path], Any]] = {
    ".gz": gzip.GzipFile,
    ".zst": partial(_by_pyarrow, "zstd"),
    ".xz": lambda path: io.BufferedReader(XzStreams(path)),
    ".bz2": partial(_by_pyarrow, "bz2"),
}
PACKED = tuple(_OPENED)
"""Endings of compressed files, behind the ending of their form: ``.jsonl.gz``."""


def form_suffix(name: str) -> str:
    """The ending that tells a file's form, in small letters: ``.jsonl`` of ``a.JSONL`` and of ``a.jsonl.gz``."""
    path = Path(name)
    suffix = path.suffix.lower()
    return Path(path.stem).suffix.lower() if suffix in _OPENED else suffix


def is_packed(path: Path) -> bool:
    """Whether a file is compressed, by its name."""
    return path.suffix.lower() in _OPENED


@contextlib.contextmanager
def opened(path: Path, *, newline: str | None = None) -> Iterator[TextIO]:
    """The text of a file. Bytes that are not UTF-8 stay as half surrogates; a byte order mark is no part of it."""
    with contextlib.ExitStack() as stack:
        binary = stack.enter_context(_open(path))
        yield stack.enter_context(io.TextIOWrapper(binary, encoding="utf-8-sig", errors="surrogateescape", newline=newline))


def lines_of(path: Path, name: str, *, newline: str | None = None) -> Generator[str]:
    """Yield the lines of a file with their ends. Raises ``DataError`` where its compressed stream is damaged or cut, and ``OSError``."""
    number = 0
    with opened(path, newline=newline) as lines:
        while (line := _next(lines, name, number)) is not None:
            number += 1
            yield line


def _next(lines: TextIO, name: str, number: int) -> str | None:
    try:
        return next(lines, None)
    except (EOFError, zlib.error, lzma.LZMAError, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:  # the system's, not a decompressor's
            raise
        place = f" behind line {number}" if number else ""
        raise DataError(
            f"{name}: damaged or cut off{place}: {first_line(error)}", hint="Fetch or compress the file again."
        ) from error
