"""What lies where data is read and is not read: one notice for each reason, with the number and the first few names."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pitstop.configs.notices import Notice

FILES = "{count} [file is|files are] not read: {subject}"
DIRECTORIES = "{count} [directory is|directories are] not looked into: {subject}"
AGAIN = "{count} [path leads|paths lead] to a file that is read already: {subject}"
OTHER_SPLITS = "{count} [file|files] of other splits [is|are] not read: {subject}"
_NAMED = 3


def first_of(paths: Sequence[str]) -> str:
    """The first few of ``paths``."""
    return ", ".join(paths[:_NAMED]) + (" …" if len(paths) > _NAMED else "")


def unread(reason: str, directory: Path, paths: Sequence[str], remedy: str = "") -> list[Notice]:
    """A notice of ``paths`` below ``directory``; none where there are none."""
    return [Notice(reason, first_of(paths), len(paths), str(directory / paths[0]), remedy)] if paths else []
