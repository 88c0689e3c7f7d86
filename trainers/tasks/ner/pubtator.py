"""PubTator files: a title, an abstract, and mentions by offset (Wei, Kao and Lu 2013; the BioCreative V CDR corpus).

::

    2004|t|Naloxone reverses the effect of clonidine.
    2004|a|In unanesthetized rats …
    2004	0	8	Naloxone	Chemical	D009270
    2004	CID	D003000	D006973

Offsets count characters of the title, a space, and the abstract. Lines that relate concepts (``CID``) are not entities and
are counted and not used. A mention may have several types, ``Chemical|Drug``: it is marked as each.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from pitstop.configs.notices import Notice
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.tasks.ner.blocks import BadLine, Lines, checked, number_of

_TEXT_LINE = re.compile(r"(?P<id>[^|\t]+)\|(?P<part>[ta])\|(?P<text>.*)", re.DOTALL)
_RELATION = re.compile(r"[A-Za-z][A-Za-z_ -]*")
_RELATIONS = "{count} [line that relates|lines that relate] concepts [is|are] not used"
_NUMBER = re.compile(r"0*[0-9]{1,15}")


@dataclass
class _Article:
    number: int
    identifier: str
    parts: dict[str, str] = field(default_factory=dict)
    mentions: list[tuple[int, int, str]] = field(default_factory=list)
    relations: int = 0

    @property
    def text(self) -> str:
        return " ".join(self.parts[part] for part in "ta" if part in self.parts)


def begins(line: str) -> bool:
    """Whether a file whose first line this is holds PubTator."""
    return _TEXT_LINE.match(line) is not None


class PubtatorReader:
    """Turns blocks of lines into records; an article with a bad line is left out whole, and counts as one bad row."""

    def read_blocks(self, blocks: Iterable[Lines], name: str, bad_rows: BadRows) -> Iterator[Record]:
        """Yield the record of each article."""
        for block in _whole(blocks):
            for lines in _articles(block):
                try:
                    article = _parse(lines)
                except ValueError as error:
                    bad_rows.report(f"{name} line {number_of(error, lines)}", str(error))
                    continue
                if article.relations:
                    bad_rows.notices.add(Notice(_RELATIONS, count=article.relations, place=f"{name} line {article.number}"))
                yield _record(article, name)


def _whole(blocks: Iterable[Lines]) -> Iterator[Lines]:
    """Put what a blank line has parted together again: a block that goes on with the article of the one before, without a title."""
    before: Lines = ()
    for block in blocks:
        if before and _identifier(block[0].text) == _identifier(before[-1].text) and not _is_title(block[0].text):
            before = [*before, *block]
            continue
        if before:
            yield before
        before = block
    if before:
        yield before


def _identifier(line: str) -> str:
    match = _TEXT_LINE.match(line)
    return (match["id"] if match is not None else line.partition("\t")[0]).strip()


def _is_title(line: str) -> bool:
    match = _TEXT_LINE.match(line)
    return match is not None and match["part"] == "t"


def _articles(block: Lines) -> Iterator[Lines]:
    """Cut a block before each title: some files have no blank line between articles."""
    start = 0
    for index, (_, line) in enumerate(block):
        if index > start and _is_title(line):
            yield block[start:index]
            start = index
    yield block[start:]


def _parse(lines: Lines) -> _Article:
    article: _Article | None = None
    for line in lines:
        match = _TEXT_LINE.match(checked(line))
        if match is not None:
            article = article or _Article(line.number, match["id"].strip())
            _take_part(article, line.number, match)
        elif article is None:
            raise BadLine(line.number, "an annotation without a title ('PMID|t|…') before it")
        else:
            _take_annotation(article, line.number, line.text.split("\t"))
    assert article is not None  # a block has at least one line
    return article


def _take_part(article: _Article, number: int, match: re.Match[str]) -> None:
    _same_article(article, number, match["id"].strip())
    if match["part"] == "a" and "t" not in article.parts:
        raise BadLine(number, f"article {article.identifier} has no title line ('{article.identifier}|t|…') before its abstract")
    if match["part"] in article.parts:
        raise BadLine(number, f"a second '|{match['part']}|' line of article {article.identifier}")
    if article.mentions:
        raise BadLine(number, "text after the first annotation")
    article.parts[match["part"]] = match["text"]


def _same_article(article: _Article, number: int, identifier: str) -> None:
    if identifier != article.identifier:
        raise BadLine(
            number, f"a line of article {identifier!r} among those of {article.identifier!r}; a blank line must part them"
        )


def _take_annotation(article: _Article, number: int, cells: list[str]) -> None:
    _same_article(article, number, cells[0].strip())
    if len(cells) >= 4 and _RELATION.fullmatch(cells[1]):
        article.relations += 1
        return
    if len(cells) < 5:
        raise BadLine(number, f"wanted article, start, end, mention and type between tabs, found {len(cells)} columns")
    start, end = _offsets(number, cells[1], cells[2])
    text, mention = article.text[start:end], cells[3]
    if text != mention:
        raise BadLine(number, f"offsets {start} to {end} hold {text!r}, not the mention {mention!r}")
    types = [part.strip() for part in cells[4].split("|") if part.strip()]
    if not types:
        raise BadLine(number, f"the mention {mention!r} has no type")
    article.mentions += [(start, end, kind) for kind in types]


def _offsets(number: int, start: str, end: str) -> tuple[int, int]:
    if not (_NUMBER.fullmatch(start) and _NUMBER.fullmatch(end)):
        raise BadLine(number, f"the offsets {start!r} and {end!r} are not whole numbers")
    if int(start) >= int(end):
        raise BadLine(number, f"the offsets {start} and {end} enclose nothing")
    return int(start), int(end)


def _record(article: _Article, name: str) -> Record:
    entities: dict[str, list[str]] = {}
    for start, end, kind in sorted(article.mentions, key=lambda mention: mention[:2]):
        entities.setdefault(kind, []).append(article.text[start:end])
    fields = {"id": article.identifier, "doc_id": article.identifier, "text": article.text.strip(), "entities": entities}
    return Record(fields, f"{name} line {article.number}")
