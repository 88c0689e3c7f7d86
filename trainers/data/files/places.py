"""Records from what ``--dataset`` names: a file, a directory, shipped data, the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.hub import read_hub
from pitstop.trainers.data.files.tables import read_parquet
from pitstop.trainers.data.files.text import read_csv, read_json, read_jsonl
from pitstop.trainers.data.records import NO_MORE, BadRows, Formats, NoData, Record, RecordFormat, UnknownFormat

SUFFIXES = (".jsonl", ".json", ".csv", ".parquet")
ANNOTATED_SUFFIXES = (".pubtator", ".conll", ".iob", ".iob2", ".bio", ".bioes", ".bilou", ".tsv", ".txt")
"""Endings of texts with marked entities, whose formats a task adds."""
EXAMPLE_SCHEME = "example:"

_USUAL = {
    ".jsonl": RecordFormat(read_jsonl),
    ".json": RecordFormat(read_json),
    ".csv": RecordFormat(read_csv),
    ".parquet": RecordFormat(read_parquet),
}


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
        yield from read_hub(spec, split, token, bad_rows)
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
