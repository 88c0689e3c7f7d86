"""Records from files, directories and the Hub, each with the place it came from.

JSON lines are read here, because a user needs to hear which line is broken, and so is CSV, whose cells are text: a library
that guesses types would turn an answer ``007`` into a number and ``None`` into nothing. Parquet and the Hub go through the
``datasets`` library.
"""

from __future__ import annotations

import csv
import errno
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pitstop.configs.errors import DataError, first_line
from pitstop.configs.notices import Notice, Notices
from pitstop.trainers.data.row_json import check_depth, is_unicode, parse_json, row_texts

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
ANNOTATED_SUFFIXES = (".pubtator", ".conll", ".iob", ".iob2", ".bio", ".bioes", ".bilou", ".tsv", ".txt")
"""Endings of texts with marked entities, whose formats a task adds."""
EXAMPLE_SCHEME = "example:"


class NoData(DataError):
    """There is no data at the place that was given."""


class BadRecord(ValueError):
    """A record that the task cannot use; the message is the reason. ``answers`` of it would have been learnt."""

    def __init__(self, reason: str, answers: int = 0) -> None:
        super().__init__(reason)
        self.answers = answers


class UnknownFormat(DataError):
    """No format is known for a file's ending."""


@dataclass(frozen=True)
class Record:
    """One row: its fields, and where it stands (``file.jsonl line 7``)."""

    fields: dict[str, Any]
    place: str


@dataclass
class BadRows:
    """What to do with malformed rows: stop at the first, or count them and keep the first few reasons.

    ``notices`` takes what else is decided while data is read: a file that is not read, a field that is not used. ``answers`` are
    those of malformed rows as far as they are known, ``answers_left_out`` those of all others that are not learnt.
    """

    skip: bool
    count: int = 0
    reasons: tuple[str, ...] = ()
    answers: int = 0
    answers_left_out: int = 0
    notices: Notices = field(default_factory=Notices, compare=False)

    def report(self, place: str, reason: str) -> None:
        """Note a bad row. Raises ``DataError`` unless bad rows are to be skipped."""
        if not self.skip:
            raise DataError(
                f"{place}: {reason}",
                hint="Correct the row, or pass --skip-bad-rows to leave such rows out and count them.",
            )
        self.count += 1
        if len(self.reasons) < 3:
            self.reasons += (f"{place}: {reason}",)

    def leave_out_answers(self, reason: Notice) -> None:
        """Note answers that are not learnt, as many as ``reason`` counts."""
        self.answers_left_out += reason.count
        self.notices.add(reason)


@dataclass(frozen=True)
class RecordFormat:
    """How files of an ending are read; ``recognises`` says which of them a directory's reader is to take."""

    read: Callable[[Path, str, BadRows], Iterator[Record]]
    recognises: Callable[[Path], bool] = lambda path: True


Formats = Mapping[str, RecordFormat]
NO_MORE: Formats = MappingProxyType({})


def read_records(
    spec: str, bad_rows: BadRows, *, split: str = "train", token: str | None = None, extra_formats: Formats = NO_MORE
) -> Iterator[Record]:
    """Yield the records of one ``--dataset`` value.

    ``spec`` is a file, a directory of files, ``example:NAME`` for data that Pitstop ships, or a Hub data set id. ``extra_formats`` are
    formats that a task reads beside the usual ones, by ending. Raises ``NoData`` for what cannot be found, ``DataError`` for what
    cannot be read.
    """
    formats = {**_USUAL, **extra_formats}
    if spec.startswith(EXAMPLE_SCHEME):
        with resources.as_file(resources.files("pitstop.examples") / spec.removeprefix(EXAMPLE_SCHEME)) as path:
            if not path.is_file():
                raise DataError(f"There is no shipped example {spec!r}.", hint="Shipped: example:medical_ner/train.jsonl.")
            yield from _read_file(path, spec, bad_rows, formats)
        return
    path = Path(spec).expanduser()
    if path.is_dir():
        yield from _read_directory(path, bad_rows, formats)
    elif path.is_file():
        yield from _read_file(path, str(path), bad_rows, formats)
    elif looks_like_hub_id(spec):
        yield from _read_hub(spec, split, token, bad_rows)
    else:
        raise NoData(f"No data at {spec}: no such file or directory.", hint=_similar_files(path, tuple(formats)))


def looks_like_hub_id(spec: str) -> bool:
    """Whether what is no path may be a data set on the Hub: ``owner/name``."""
    parts = spec.split("/")
    is_file = spec.lower().endswith((*SUFFIXES, *ANNOTATED_SUFFIXES))
    return len(parts) == 2 and all(parts) and not spec.startswith((".", "~", "/")) and not is_file


def _similar_files(path: Path, suffixes: tuple[str, ...]) -> str:
    import difflib

    parent = path.parent
    if not parent.is_dir():
        return f"The directory {parent} does not exist either. Check the path (relative paths start at {Path.cwd()})."
    names = sorted(p.name for p in parent.iterdir() if p.suffix.lower() in suffixes)
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"Did you mean {parent / close[0]}?"
    listing = ", ".join(names[:5]) if names else "no data files"
    return f"In {parent.resolve()} there are: {listing}."


def _read_directory(directory: Path, bad_rows: BadRows, formats: Formats) -> Iterator[Record]:
    known = [(path, formats[ending]) for path in sorted(directory.iterdir()) if (ending := path.suffix.lower()) in formats]
    files = [path for path, format_ in known if path.is_file() and format_.recognises(path)]
    if not files:
        raise DataError(f"No data files in {directory}.", hint=f"Wanted: files ending in {', '.join(formats)}.")
    for file in files:
        yield from _read_file(file, str(file), bad_rows, formats)


def _read_file(path: Path, name: str, bad_rows: BadRows, formats: Formats) -> Iterator[Record]:
    ending = path.suffix.lower()
    if ending not in formats:
        raise UnknownFormat(
            f"{name}: cannot tell the format from the ending {path.suffix!r}.", hint=f"Known: {', '.join(formats)}."
        )
    try:
        yield from formats[ending].read(path, name, bad_rows)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}.") from error


def _read_jsonl(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    with path.open(encoding="utf-8-sig", errors="surrogateescape") as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            # an error at the end is in this line, not in the next
            yield from _parsed(line.rstrip(), f"{name} line {number}", bad_rows)


def _read_json(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    try:
        content = json.loads(text)
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


def _read_csv(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    csv.field_size_limit(2**31 - 1)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        rows = csv.DictReader(lines, strict=True)
        try:
            names = "".join(rows.fieldnames or ())
        except csv.Error as error:
            raise DataError(f"{name} line {rows.reader.line_num}: not valid CSV: {error}.") from error
        if not is_unicode(names):
            raise DataError(f"{name} line 1: the names of the columns are not UTF-8 text.", hint="Convert the file to UTF-8.")
        while True:
            start = rows.reader.line_num + 1
            try:
                fields = next(rows, None)
            except csv.Error as error:
                if "unexpected end" in str(error):  # the rest of the file, and not a row, is lost with it
                    raise DataError(
                        f"{name} line {start}: not valid CSV: its quote is not closed before the file ends."
                    ) from error
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


def _read_table(path: Path, name: str, bad_rows: BadRows) -> Iterator[Record]:
    path.open("rb").close()  # a file that may not be read is no fault of the library's cache
    rows = _load(path.suffix[1:].lower(), name, data_files=str(path), split="train")
    yield from _rows_of_table(rows, lambda number: f"{name} row {number}", bad_rows)


def _rows_of_table(rows: Any, place_of: Callable[[int], str], bad_rows: BadRows) -> Iterator[Record]:
    """The records of a ``datasets.Dataset``; a row with a cell that Python cannot hold (text that is no UTF-8, the year 300,000) is bad."""
    number, count = 0, len(rows)
    while number < count:
        remaining = iter(rows.skip(number) if number else rows)
        while number < count:
            try:
                fields = next(remaining)
            except (ValueError, ArithmeticError) as error:  # iterating ends with it, so a new pass begins behind it
                number += 1
                bad_rows.report(place_of(number), f"a cell that cannot be read: {first_line(error)}")
                break
            number += 1
            yield Record(_present(fields), place_of(number))


_USUAL = {
    ".jsonl": RecordFormat(_read_jsonl),
    ".json": RecordFormat(_read_json),
    ".csv": RecordFormat(_read_csv),
    ".parquet": RecordFormat(_read_table),
}


def _read_hub(repository: str, split: str, token: str | None, bad_rows: BadRows) -> Iterator[Record]:
    rows = load_hub(repository, split, token)
    yield from _rows_of_table(rows, lambda number: f"{repository} ({split}) row {number}", bad_rows)


def load_hub(repository: str, split: str, token: str | None) -> Any:
    """A split of a Hub data set as ``datasets`` maps it into memory. Raises ``NoData``."""
    return _load(repository, f"data set {repository}", NoData, split=split, token=token)


def _present(fields: dict[str, Any]) -> dict[str, Any]:
    """A table has every column in every row; an empty cell is a field that the record does not have."""
    return {key: value for key, value in fields.items() if value is not None}


_UNWRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT)


def _load(builder: str, name: str, kind: type[DataError] = DataError, **arguments: Any) -> Any:
    import datasets

    datasets.disable_progress_bars()
    try:
        return datasets.load_dataset(builder, **arguments)
    except Exception as error:  # the library raises its own, pyarrow's, pandas' and the Hub client's errors
        raise kind(f"Cannot read {name}: {first_line(error)}", hint=_hint(error)) from error


def _hint(error: Exception) -> str:
    if isinstance(error, OSError) and error.errno in _UNWRITABLE:
        return "The cache of the library that reads it cannot be written: set HF_HOME to a directory that can."
    return "Check the name, the network and, for private data, HF_TOKEN; a local path must exist."
