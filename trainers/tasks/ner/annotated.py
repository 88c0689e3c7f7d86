"""Texts with marked entities: which of the two formats a file has, and how both become records.

A record is ``{"id", "doc_id", "text", "entities": {type: [mention, …]}}``, mentions in the order of the text. Files are read
block by block, a block being the lines between two blank ones: an article of a PubTator file, a sentence of an IOB file.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.packed import form_suffix, lines_of
from pitstop.trainers.data.files.places import ANNOTATED_SUFFIXES
from pitstop.trainers.data.records import BadRows, Record, RecordFormat
from pitstop.trainers.tasks.ner import iob, pubtator
from pitstop.trainers.tasks.ner.blocks import blocks

_PUBTATOR_ENDINGS = (".pubtator",)
_TOLD_BY_CONTENT = (".txt", ".tsv")
_LOOKED_AT = 50  # lines; a file of either format shows itself in the first two


def _read(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    reader = _reader_of(path)
    if reader is None:
        raise DataError(
            f"{name}: neither PubTator nor IOB text.",
            hint="PubTator starts with 'PMID|t|title'; IOB lines end in a tag such as O or B-Disease.",
        )
    yield from reader.read_blocks(blocks(path, name), name, bad_rows)


def _reader_of(path: Path) -> pubtator.PubtatorReader | iob.IobReader | None:
    suffix = form_suffix(path.name)
    if suffix in _PUBTATOR_ENDINGS:
        return pubtator.PubtatorReader()
    if suffix not in _TOLD_BY_CONTENT:
        return iob.IobReader()
    with contextlib.closing(lines_of(path, str(path))) as lines:
        for _, line in zip(range(_LOOKED_AT), lines, strict=False):
            if pubtator.begins(line):
                return pubtator.PubtatorReader()
            if iob.begins(line):
                return iob.IobReader()
            if line.strip():
                return None
    return None


def _recognised(path: Path) -> bool:
    try:
        return form_suffix(path.name) != ".txt" or _reader_of(path) is not None
    except (OSError, DataError):
        return True  # the reader says what is wrong with it


ANNOTATED = dict.fromkeys(ANNOTATED_SUFFIXES, RecordFormat(_read, _recognised, packed=True))
"""The formats by ending, for ``read_records``. In a directory a ``.txt`` file that is neither (a licence, say) is passed over."""
