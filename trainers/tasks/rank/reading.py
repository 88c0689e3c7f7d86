"""Finds the files of a data set by their content, and reads ratings and titles from them."""

from __future__ import annotations

import contextlib
import gzip
import io
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

from pitstop.configs.errors import DataError
from pitstop.configs.notices import Notice, Notices
from pitstop.trainers.data.records import BadRows, NoData
from pitstop.trainers.data.row_json import is_unicode
from pitstop.trainers.data.unread import DIRECTORIES, FILES, unread
from pitstop.trainers.tasks.rank.formats import FORMATS, RatingsFormat, Role, is_python_dict
from pitstop.trainers.tasks.rank.ratings import Ratings

_KNOWN = (
    "Known: MovieLens u.data with u.item or ratings.dat with movies.dat, RecBole .inter with .item, "
    "Amazon review and metadata JSON, Yelp review and business JSON."
)
_UNRATED = "{count} [title is|titles are] not used, since nobody rated the [item|items]"
_SECOND = "{count} [title is|titles are] not used, since the [item has|items have] one already"
_EMPTY = "{count} rated [item has an empty title|items have empty titles]"
_LOOKED_AT = 3  # lines of each file
_LONGEST_LINE = 1 << 20  # characters, when looking
_COMPLETE = "u.data"  # MovieLens 100K has parts of it beside it, in the same format


@dataclass(frozen=True)
class DataFile:
    """A file of a known format."""

    path: Path
    format: RatingsFormat


def read_ratings(spec: str, bad_rows: BadRows) -> Ratings:
    """Read the ratings at ``spec``, a directory or one file of it, with the titles of their items.

    Malformed rows go to ``bad_rows`` with file, line and reason. Raises ``NoData`` where there is nothing and ``DataError``
    where the files are of no known format, are several data sets, or cannot be read.
    """
    ratings_file, title_files = find_files(Path(spec).expanduser(), bad_rows.notices)
    ratings = Ratings()
    _read(ratings_file, lambda row: ratings.add(*row), bad_rows)

    for file in title_files:
        _read(file, partial(_keep_title, file, ratings, bad_rows.notices), bad_rows)
    return ratings


def _keep_title(file: DataFile, ratings: Ratings, notices: Notices, row: tuple[str, str]) -> None:
    item, title = row
    if title and item in ratings.items and item not in ratings.titles:
        ratings.titles[item] = title
        return
    reason = _UNRATED if item not in ratings.items else _SECOND if title else _EMPTY
    notices.add(Notice(reason, place=f"{file.path}, item {item}"))


def find_files(place: Path, notices: Notices) -> tuple[DataFile, list[DataFile]]:
    """The file with the ratings, and those with the titles beside it; of a directory, ``notices`` gets what is not read.

    Raises ``NoData`` and ``DataError``.
    """
    if not place.exists():
        raise NoData(f"No data at {place}: no such file or directory.", hint=_KNOWN)
    directory = place if place.is_dir() else place.parent
    ratings = _recognised([place], "ratings") if place.is_file() else _recognised(_files(directory), "ratings")
    if not ratings:
        raise DataError(f"{place}: no ratings in any known format.", hint=_KNOWN)
    chosen = _the_one(ratings, place)
    titles = [file for file in _recognised(_files(directory), "titles") if file.format.family == chosen.format.family]
    if not titles:
        raise DataError(
            f"{chosen.path}: ratings of the {chosen.format.family} format, but no file with the titles of their items beside it.",
            hint=_KNOWN,
        )
    if place.is_dir():
        paths = {file.path for file in (chosen, *titles)}
        others = [path.name for path in _files(directory) if path not in paths]
        folders = [path.name for path in sorted(directory.iterdir()) if path.is_dir() and not path.name.startswith(".")]
        for notice in [*unread(FILES, directory, others), *unread(DIRECTORIES, directory, folders)]:
            notices.add(notice)
    return chosen, titles


def _files(directory: Path) -> list[Path]:
    return sorted(path for path in directory.iterdir() if path.is_file() and not path.name.startswith("."))


def _the_one(files: list[DataFile], place: Path) -> DataFile:
    complete = [file for file in files if file.path.name == _COMPLETE]
    if len(files) > 1 and len(complete) != 1:
        names = ", ".join(file.path.name for file in files)
        raise DataError(f"{place}: several files with ratings: {names}.", hint=f"Name one: --dataset {files[0].path}")
    return complete[0] if complete else files[0]


def _recognised(paths: list[Path], role: Role) -> list[DataFile]:
    return [DataFile(path, format_) for path in paths if (format_ := _format(path)) is not None and format_.role == role]


def _format(path: Path) -> RatingsFormat | None:
    with _opened(path, "latin-1") as lines:
        numbered = enumerate(iter(lambda: lines.readline(_LONGEST_LINE), ""), start=1)
        for number, line in islice(((n, line) for n, line in numbered if line.strip()), _LOOKED_AT):
            if is_python_dict(line):
                raise DataError(
                    f"{path} line {number}: a Python dict, not JSON. Reading it would mean to run it as code.",
                    hint="Take a release of the data in strict JSON, or convert the file: one JSON object a line.",
                )
            text = line.removeprefix("ï»¿")  # a UTF-8 byte order mark, as Latin-1
            match = next((format_ for format_ in FORMATS if format_.recognises(text)), None)
            if match is not None:
                return match
    return None


@contextlib.contextmanager
def _opened(path: Path, encoding: str) -> Iterator[TextIO]:
    """The lines of a file, compressed by gzip or not. Raises ``DataError`` for what cannot be read."""
    try:
        with path.open("rb") as raw, contextlib.ExitStack() as stack:
            start = raw.read(2)
            raw.seek(0)
            binary: Any = stack.enter_context(gzip.GzipFile(fileobj=raw)) if start == b"\x1f\x8b" else raw
            yield io.TextIOWrapper(binary, encoding=encoding, errors="surrogateescape", newline="\n")
    except (OSError, EOFError, zlib.error) as error:  # gzip's own kind is an OSError
        raise DataError(f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}.") from error


def _read(file: DataFile, take: Callable[[Any], None], bad_rows: BadRows) -> None:
    with _opened(file.path, "utf-8-sig") as lines:
        parse = None if file.format.headed else file.format.parser("")
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if parse is None:
                parse = file.format.parser(line)
                continue
            try:
                row = parse(_checked(line, file.format.fallback))
            except (ValueError, OverflowError) as error:
                bad_rows.report(f"{file.path} line {number}", str(error))
                continue
            take(row)


def _checked(line: str, fallback: str | None) -> str:
    """The line as text, by the encoding ``fallback`` where it is not UTF-8. ``ValueError`` where it has none."""
    if is_unicode(line):
        return line
    if fallback is None:
        raise ValueError("not UTF-8 text")  # decoding let it through, so that the line has a number
    return line.encode("utf-8", "surrogateescape").decode(fallback)
