"""Which files a directory or a pattern stands for, and a notice of those that are not read."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pitstop.configs.errors import DataError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.files.packed import form_suffix, is_packed
from pitstop.trainers.data.records import Formats, NoData, RecordFormat
from pitstop.trainers.data.unread import AGAIN, DIRECTORIES, FILES, OTHER_SPLITS, unread

_SPLITS = {
    "train": "train",
    **dict.fromkeys(("validation", "valid", "dev", "val"), "validation"),
    **dict.fromkeys(("test", "eval"), "test"),
}
_WORD = re.compile("[a-z]+")


@dataclass(frozen=True)
class Listing:
    """The files that are read, in order, and what is not."""

    files: tuple[Path, ...]
    notices: tuple[Notice, ...] = ()


def format_of(path: Path, formats: Formats) -> RecordFormat | None:
    """The format of a file by its name; None where none of ``formats`` reads it."""
    format_ = formats.get(form_suffix(path.name))
    return None if format_ is None or (is_packed(path) and not format_.packed) else format_


def in_directory(directory: Path, formats: Formats, split: str | None) -> Listing:
    """The files of a directory that are of a known format and of ``split``, in the order of names; hidden ones are not looked at.

    Names mark no splits where ``split`` is None. Raises ``DataError`` where there is none, ``NoData`` where they are of other splits, and ``OSError``.
    """
    paths = [path for path in sorted(directory.iterdir()) if not path.name.startswith(".")]
    folders = [path.name for path in paths if path.is_dir()]
    remedy = (
        "A pattern in quotes, DIRECTORY/**/*, names the files in them too."  # without the path, which is nobody else's business
    )
    notices = unread(DIRECTORIES, directory, folders, remedy)
    return _chosen(directory, [path for path in paths if not path.is_dir()], formats, split, notices)


def is_pattern(spec: str) -> bool:
    """Whether what is no path may be a pattern of paths."""
    return glob.has_magic(spec)


def by_pattern(pattern: str, formats: Formats, split: str) -> Listing:
    """The files that a pattern matches, ``**`` standing for folders too, as ``in_directory`` takes those of a directory.

    A file that links lead to again, such as a link to its folder, is read once.

    Raises ``NoData`` where there is none.
    """
    matches = [Path(match) for match in sorted(glob.glob(str(Path(pattern).expanduser()), recursive=True))]  # noqa: PTH207  with ** and folders in any order
    files = [path for path in matches if not path.is_dir()]
    if not files:
        raise NoData(
            f"No file fits the pattern {pattern}.", hint=f"Relative patterns start at {Path.cwd()}; ** stands for folders."
        )
    root = Path(os.path.commonpath([path.parent for path in files]))
    once: dict[Path, Path] = {}
    for path in sorted(files, key=lambda path: len(path.parts)):
        once.setdefault(path.resolve(), path)
    first = set(once.values())
    again = [path for path in files if path not in first]
    return _chosen(root, [path for path in files if path in first], formats, split, unread(AGAIN, root, _names(root, again)))


def _chosen(root: Path, paths: Sequence[Path], formats: Formats, split: str | None, notices: Sequence[Notice]) -> Listing:
    """Those of ``paths`` that are read."""
    known = {
        path: format_ for path in paths if path.is_file() and (format_ := format_of(path, formats)) and format_.recognises(path)
    }
    if any(not format_.alone for format_ in known.values()):
        known = {path: format_ for path, format_ in known.items() if not format_.alone}
    if not known:
        there = f" There are: {', '.join(_names(root, paths[:3]))}." if paths else ""
        raise DataError(f"No data files in {root}.{there}", hint=f"Wanted: files ending in {', '.join(formats)}.")
    files = list(known) if split is None else _of_split(root, list(known), split)
    read = set(files)
    others = [path for path in known if path not in read]
    return Listing(
        tuple(files),
        (
            *notices,
            *unread(FILES, root, _names(root, (path for path in paths if path not in known))),
            *unread(
                OTHER_SPLITS, root, _names(root, others), f"Names say that they are not of {split}; a pattern in quotes chooses."
            ),
        ),
    )


def _names(root: Path, paths: Iterable[Path]) -> list[str]:
    return [str(path.relative_to(root)) for path in paths]


def _of_split(root: Path, files: list[Path], split: str) -> list[Path]:
    """Where the names of ``files`` part them into splits, those of ``split``; those without a mark are for training if none has its mark."""
    parts: dict[str | None, list[Path]] = {}
    for path in files:
        parts.setdefault(split_of(path.name), []).append(path)
    if len(parts) == 1:
        return files
    if split in parts:
        return parts[split]
    if split == "train" and None in parts:
        return parts[None]
    there = ", ".join(sorted(filter(None, parts)))
    raise NoData(
        f"{root}: by their names no file is of the split {split}; there are {there}.", hint="Name the file, or rename it."
    )


def split_of(name: str) -> str | None:
    """The split that a file's name marks between its letters (``a-train-00001.jsonl``); None where it marks none or several."""
    marks = {_SPLITS[word] for word in _WORD.findall(name.lower()) if word in _SPLITS}
    return marks.pop() if len(marks) == 1 else None
