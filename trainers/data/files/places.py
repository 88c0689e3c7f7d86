"""Records from what ``--dataset`` names: a file, a directory, a pattern, shipped data, the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from importlib import resources
from pathlib import Path

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.hub import HubPlace, read_hub
from pitstop.trainers.data.files.listing import Listing, by_pattern, format_of, in_directory, is_pattern
from pitstop.trainers.data.files.packed import PACKED, form_suffix
from pitstop.trainers.data.files.saved import is_saved, saved_files
from pitstop.trainers.data.files.tables import read_arrow, read_parquet
from pitstop.trainers.data.files.text import read_csv, read_document, read_json, read_jsonl, read_tsv
from pitstop.trainers.data.records import NO_MORE, BadRows, Formats, NoData, Record, RecordFormat, UnknownFormat

ANNOTATED_SUFFIXES = (".pubtator", ".conll", ".iob", ".iob2", ".bio", ".bioes", ".bilou", ".tsv", ".txt")
"""Endings of texts with marked entities, whose formats a task adds."""
EXAMPLE_SCHEME = "example:"

USUAL: Formats = {
    ".jsonl": RecordFormat(read_jsonl, packed=True),
    ".ndjson": RecordFormat(read_jsonl, packed=True),
    ".json": RecordFormat(read_json, packed=True),
    ".csv": RecordFormat(read_csv, packed=True),
    ".tsv": RecordFormat(read_tsv, packed=True),
    ".parquet": RecordFormat(read_parquet),
    ".arrow": RecordFormat(read_arrow),
    ".feather": RecordFormat(read_arrow),
    ".txt": RecordFormat(read_document, packed=True, alone=True),
}
"""The formats that every task reads, by ending."""
_OF_FIRST_RUNS = (".jsonl", ".json", ".csv", ".parquet")
"""Endings that were read from a directory when runs had the first rendering; names marked no splits then."""
_FETCHED = {
    "http": "curl -LO {spec}", "https": "curl -LO {spec}", "s3": "aws s3 cp {spec} .", "gs": "gcloud storage cp {spec} .",
}  # fmt: skip
_PAGE = re.compile(r"(?:https?://(?:www\.)?(?:huggingface\.co|hf\.co)/|hf://)(?:datasets/)?([\w.-]+/[\w.-]+)")


def read_records(
    spec: str,
    bad_rows: BadRows,
    *,
    split: str = "train",
    token: str | None = None,
    extra_formats: Formats = NO_MORE,
    first: bool = False,
) -> Iterator[Record]:
    """Yield the records of one ``--dataset`` value.

    ``spec`` is a file, a directory of files or one that ``save_to_disk`` wrote, a pattern of paths, ``example:NAME`` for data that Pitstop
    ships, or a Hub data set. ``extra_formats`` are formats that a task reads beside the usual ones, by ending. What is not read goes
    to the notices of ``bad_rows``. ``first``: a directory is read as runs of the first rendering read it. Raises ``NoData`` for what cannot be found, ``DataError`` for what cannot be read.
    """
    formats = {**USUAL, **extra_formats}
    if spec.startswith(EXAMPLE_SCHEME):
        with resources.as_file(resources.files("pitstop.examples") / spec.removeprefix(EXAMPLE_SCHEME)) as path:
            if not path.is_file():
                raise DataError(f"There is no shipped example {spec!r}.", hint="Shipped: example:medical_ner/train.jsonl.")
            yield from _read_file(path, spec, bad_rows, formats)
        return
    listing = files_of(spec, split=split, formats=formats, first=first)
    if listing is not None:
        for notice in listing.notices:
            bad_rows.notices.add(notice)
        for file in listing.files:
            yield from _read_file(file, str(file), bad_rows, formats)
    elif (place := hub_place(spec)) is not None:
        yield from read_hub(place, split, token, bad_rows)
    else:
        raise _nowhere(spec, formats)


def files_of(spec: str, *, split: str = "train", formats: Formats = USUAL, first: bool = False) -> Listing | None:
    """The files of one ``--dataset`` value; None where it names none. Raises ``DataError`` for a directory without a file to read."""
    spec, split = _own_split(spec, split)
    path = Path(spec).expanduser()
    try:
        if path.is_dir() and first:
            known = {
                ending: form for ending, form in formats.items() if ending in _OF_FIRST_RUNS or form is not USUAL.get(ending)
            }
            known = {ending: replace(form, packed=False) for ending, form in known.items()}
            return in_directory(path, known, None)
        if path.is_dir():
            return saved_files(path, split) if is_saved(path) else in_directory(path, formats, split)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror or error}.") from error
    if path.is_file():
        return Listing((path,))
    if is_pattern(spec) and hub_place(spec) is None:
        return by_pattern(spec, formats, split)
    return None


def _own_split(spec: str, split: str) -> tuple[str, str]:
    """``directory::validation`` names the split of what lies here, as ``owner/name::validation`` does on the Hub."""
    head, parted, own = spec.rpartition("::")
    return (head, own) if parted and own and not Path(spec).exists() and Path(head).expanduser().is_dir() else (spec, split)


def hub_place(spec: str) -> HubPlace | None:
    """The data set on the Hub that what is no path may name; None where it looks like a path."""
    is_file = form_suffix(spec) in (*USUAL, *ANNOTATED_SUFFIXES)
    if spec.startswith((".", "~", "/")) or "://" in spec or is_file or _own_split(spec, "")[1]:
        return None
    return HubPlace.of(spec)


def _nowhere(spec: str, formats: Formats) -> DataError:
    scheme, parted, _ = spec.partition("://")
    if page := _PAGE.match(spec):
        return DataError(f"{spec} is no data set that can be read.", hint=f"Did you mean --dataset {page[1]}?")
    if parted and scheme.lower() in _FETCHED:
        hint = f"Fetch it first: {_FETCHED[scheme.lower()].format(spec=spec)}"
        return DataError(f"{spec}: Pitstop reads local files and Hub data sets.", hint=hint)
    return NoData(f"No data at {spec}: no such file or directory.", hint=_similar_files(Path(spec).expanduser(), tuple(formats)))


def _similar_files(path: Path, suffixes: tuple[str, ...]) -> str:
    import difflib

    parent = path.parent
    if not parent.is_dir():
        return f"The directory {parent} does not exist either. Check the path (relative paths start at {Path.cwd()})."
    names = sorted(p.name for p in parent.iterdir() if form_suffix(p.name) in suffixes)
    close = difflib.get_close_matches(path.name, names, n=1)
    if close:
        return f"Did you mean {parent / close[0]}?"
    listing = ", ".join(names[:5]) if names else "no data files"
    return f"In {parent.resolve()} there are: {listing}."


def _read_file(path: Path, name: str, bad_rows: BadRows, formats: Formats) -> Iterator[Record]:
    format_ = format_of(path, formats)
    if format_ is None:
        packed = f" Texts among them also with {', '.join(PACKED)}."
        raise UnknownFormat(
            f"{name}: cannot tell the format from the ending {path.suffix!r}.", hint=f"Known: {', '.join(formats)}.{packed}"
        )
    try:
        yield from format_.read(path, name, bad_rows)
    except OSError as error:
        raise DataError(f"{name}: cannot be read: {error.strerror or error}.") from error
