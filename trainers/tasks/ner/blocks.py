"""Files that are read in blocks: runs of lines between blank ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from pitstop.trainers.data.files.packed import lines_of
from pitstop.trainers.data.row_json import is_unicode


class Line(NamedTuple):
    """A line without its end, and its number in the file."""

    number: int
    text: str


Lines = Sequence[Line]


class BadLine(ValueError):
    """A line that cannot be used: its number, and the reason as the message."""

    def __init__(self, number: int, reason: str) -> None:
        super().__init__(reason)
        self.number = number


def number_of(error: ValueError, lines: Lines) -> int:
    """The line that ``error`` is about, or where it does not say, the first of the block in which it was raised."""
    return error.number if isinstance(error, BadLine) else lines[0].number


def blocks(path: Path, name: str) -> Iterator[Lines]:
    """Yield the blocks of a file, which messages call ``name``. Bytes that are not UTF-8 stay as half surrogates, which ``checked`` finds."""
    block: list[Line] = []
    for number, line in enumerate(lines_of(path, name), start=1):
        if line.strip():
            block.append(Line(number, line.rstrip("\n")))
        elif block:
            yield block
            block = []
    if block:
        yield block


def checked(line: Line) -> str:
    """Return the text of the line. Raises ``BadLine`` where it is not UTF-8."""
    if not is_unicode(line.text):
        raise BadLine(line.number, "not UTF-8 text")
    return line.text
