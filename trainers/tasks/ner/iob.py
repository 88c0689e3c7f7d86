"""IOB files: a token a line with its tag in the last column, sentences between blank lines (Ramshaw and Marcus 1995).

Read are IOB1, IOB2, BIOES and BILOU, by tab or spaces, with any columns between (CoNLL-2003): ``B-Disease``, ``I-Disease``,
``O``. Tags without a type, ``B`` and ``I``, mark the type ``entity``. An entity goes on with ``I`` (or ``E``, ``L``) of its own
type and ends at anything else; an ``I`` with nothing before it begins one, as in IOB1. Lines that begin with ``-DOCSTART-`` part
documents; the sentences of one are records of one article.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.tasks.ner.blocks import BadLine, Line, Lines, checked, number_of
from pitstop.trainers.tasks.ner.wording import UNTYPED

_TAG = re.compile(r"O|(?P<place>[BIESLU])(?:-(?P<type>\S.*))?")
_DOCUMENT = "-DOCSTART-"


def begins(line: str) -> bool:
    """Whether a file whose first line this is holds IOB."""
    cells = _cells(line.rstrip("\n"))
    return line.startswith(_DOCUMENT) or (len(cells) > 1 and _TAG.fullmatch(cells[-1]) is not None)


class IobReader:
    """Turns blocks of lines into records; a sentence with a bad line is left out whole, and counts as one bad row."""

    def __init__(self) -> None:
        self._documents = 0

    def read_blocks(self, blocks: Iterable[Lines], name: str, bad_rows: BadRows) -> Iterator[Record]:
        """Yield the record of each sentence."""
        for block in blocks:
            for lines in self._sentences(block):
                place = f"{name} line {lines[0][0]}"
                try:
                    fields = _parse(lines)
                except ValueError as error:
                    bad_rows.report(f"{name} line {number_of(error, lines)}", str(error))
                    continue
                article = {"doc_id": f"{name} document {self._documents}"} if self._documents else {}
                yield Record({"id": place, **article, **fields}, place)

    def _sentences(self, block: Lines) -> Iterator[Lines]:
        """Cut a block at each document line: files often have no blank line after it."""
        start = 0
        for index, (_, line) in enumerate(block):
            if line.startswith(_DOCUMENT):
                if index > start:
                    yield block[start:index]
                self._documents += 1
                start = index + 1
        if start < len(block):
            yield block[start:]


def _parse(lines: Lines) -> dict[str, object]:
    tokens: list[str] = []
    tags: list[tuple[str, str]] = []
    for line in lines:
        token, tag = _token_and_tag(line)
        tokens.append(token)
        tags.append(tag)
    entities: dict[str, list[str]] = {}
    for start, end, kind in spans(tags):
        entities.setdefault(kind, []).append(" ".join(tokens[start:end]))
    return {"text": " ".join(tokens), "entities": entities}


def _cells(line: str) -> list[str]:
    """By tab where there is one, else by spaces; at the ends of a line neither makes a column."""
    line = line.strip(" \t\r")
    return [cell.strip(" ") for cell in line.split("\t")] if "\t" in line else re.split(" +", line)


def _token_and_tag(line: Line) -> tuple[str, tuple[str, str]]:
    cells = _cells(checked(line))
    if len(cells) < 2:
        raise BadLine(line.number, f"wanted a token and its tag, found {line.text.strip()!r}")
    match = _TAG.fullmatch(cells[-1])
    if match is None:
        raise BadLine(line.number, f"the tag {cells[-1]!r} is neither O nor one such as B-Disease")
    return cells[0], (match["place"] or "O", match["type"] or (UNTYPED if match["place"] else ""))


def spans(tags: Sequence[tuple[str, str]]) -> list[tuple[int, int, str]]:
    """The entities of a sentence as (first token, token after the last, type), from tags as (letter, type)."""
    entities: list[tuple[int, int, str]] = []
    start: int | None = None
    for index, (place, kind) in enumerate([*tags, ("O", "")]):
        continues = start is not None and place in "IEL" and kind == tags[start][1]
        if start is not None and not continues:
            entities.append((start, index, tags[start][1]))
            start = None
        if place != "O" and start is None:
            start = index
        if start is not None and place in "ESLU":
            entities.append((start, index + 1, kind))
            start = None
    return entities
