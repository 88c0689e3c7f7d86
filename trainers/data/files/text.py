"""Records from texts: JSON lines, JSON lists and CSV.

They are read here, because a user needs to hear which line is broken. The cells of a CSV file are text: a library that guesses types
would turn an answer ``007`` into a number and ``None`` into nothing.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.packed import lines_of
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.data.row_json import DECODER, check_depth, is_unicode, parse_json, row_texts


def read_jsonl(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    """Yield the object of each line."""
    for number, line in enumerate(lines_of(path, name), start=1):
        if line.strip():  # an error at the end is in this line, not in the next
            yield from _parsed(line.rstrip(), f"{name} line {number}", bad_rows)


def read_json(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    """Yield the objects of a list, or of the list under ``data``. Raises ``DataError`` where there is none."""
    text = "".join(lines_of(path, name))
    try:
        content = DECODER.decode(text)
    except json.JSONDecodeError as error:
        if not is_unicode(text):
            number = next(number for number, line in enumerate(text.split("\n"), start=1) if not is_unicode(line))
            raise DataError(f"{name} line {number}: not UTF-8 text.", hint="Convert the file to UTF-8.") from error
        hint = "One JSON object a line? Then name the file .jsonl." if error.msg == "Extra data" else None
        raise DataError(f"{name} line {error.lineno}: not valid JSON: {error.msg}.", hint=hint) from error
    except (ValueError, RecursionError):  # what the parser cannot take is the fault of a row, which is looked for
        yield from _read_json_rows(text, name, bad_rows)
        return
    rows = content.get("data") if isinstance(content, dict) else content
    if not isinstance(rows, list):
        raise DataError(f"{name}: wanted a list of records (or an object with such a list under 'data').")
    if not is_unicode(text):
        yield from _read_json_rows(text, name, bad_rows)
        return
    del text  # tokenising the rows may take hours
    for number, fields in enumerate(rows, start=1):
        place = f"{name} record {number}"
        try:
            check_depth(fields)
        except ValueError as error:
            bad_rows.report(place, str(error))
            continue
        yield from _as_record(fields, place, bad_rows)


def _read_json_rows(text: str, name: str, bad_rows: BadRows) -> Iterator[Record]:
    try:
        rows = row_texts(text)
    except ValueError as error:
        raise DataError(f"{name}: not valid JSON: {error}.") from error
    for number, row in enumerate(rows, start=1):
        yield from _parsed(row, f"{name} record {number}", bad_rows)


def _parsed(text: str, place: str, bad_rows: BadRows) -> Iterator[Record]:
    try:
        fields = parse_json(text)
    except ValueError as error:
        bad_rows.report(place, str(error))
        return
    yield from _as_record(fields, place, bad_rows)


def _as_record(fields: Any, place: str, bad_rows: BadRows) -> Iterator[Record]:
    if isinstance(fields, dict):
        yield Record(fields, place)
    else:
        bad_rows.report(place, f"wanted a JSON object with named fields, found {type(fields).__name__}")


def read_csv(path: Path, name: str, bad_rows: BadRows, delimiter: str = ",") -> Iterator[Record]:
    """Yield each row by the names of the header. Raises ``DataError`` for a header that cannot be used and a quote without end."""
    csv.field_size_limit(2**31 - 1)
    rows = csv.DictReader(lines_of(path, name, newline=""), strict=True, delimiter=delimiter)
    _check_header(rows, name)
    while True:
        start = rows.reader.line_num + 1
        try:
            fields = next(rows, None)
        except csv.Error as error:
            if "unexpected end" in str(error):  # the rest of the file, and not a row, is lost with it
                raise DataError(f"{name} line {start}: not valid CSV: its quote is not closed before the file ends.") from error
            line = rows.reader.line_num
            where = f" in the row that begins in line {start}" if start < line else ""
            bad_rows.report(f"{name} line {line}", f"not valid CSV: {error}{where}")
            continue
        if fields is None:
            return
        place = f"{name} line {rows.reader.line_num}"
        if None in fields or None in fields.values():
            bad_rows.report(place, f"not as many cells as the header's {len(rows.fieldnames or ())}")
        elif not is_unicode("".join(fields.values())):
            bad_rows.report(place, "not UTF-8 text")
        else:
            yield Record(dict(fields), place)


def _check_header(rows: csv.DictReader[str], name: str) -> None:
    try:
        columns = list(rows.fieldnames or ())
    except csv.Error as error:
        raise DataError(f"{name} line {rows.reader.line_num}: not valid CSV: {error}.") from error
    if not is_unicode("".join(columns)):
        raise DataError(f"{name} line 1: the names of the columns are not UTF-8 text.", hint="Convert the file to UTF-8.")
    if twice := sorted({column for column in columns if columns.count(column) > 1}):  # the first would be lost
        raise DataError(f"{name} line 1: two columns have the name {twice[0]!r}.", hint="Rename one of them.")


def read_tsv(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    """See ``read_csv``; cells are parted by tabs."""
    return read_csv(path, name, bad_rows, "\t")


def read_document(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    """Yield the whole file as one ``text``."""
    text = "".join(lines_of(path, name))
    if not is_unicode(text):
        bad_rows.report(name, "not UTF-8 text")
    elif not text.strip():
        bad_rows.report(name, "an empty document")
    else:
        yield Record({"text": text}, name)
