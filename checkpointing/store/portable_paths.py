"""Settings without this machine's directories, and back.

A checkpoint goes to other machines and to the Hub, byte for byte as it lies here, so it must not tell where things lie here: of
an absolute path it holds the last component. The run keeps the full paths beside it, in config.json and in what metadata.json
says of the resumes; a resume takes them from there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Mapping
from typing import Any

from pitstop.checkpointing.disk.dotted import at, replaced
from pitstop.configs.datasets import split_weight
from pitstop.configs.paths import PATHS

_ABSOLUTE = re.compile(r"[/\\]|~[^/\\]*[/\\]|[A-Za-z]:[/\\]")  # POSIX and UNC, below a home directory, Windows' drives


def portable(text: str) -> str:
    """Of an absolute path of any system the last component, with a data set's weight; Hub ids and relative paths as they are."""
    if not _ABSOLUTE.match(text):
        return text
    place, weight = split_weight(text)
    path = posixpath.normpath(place.replace("\\", "/"))
    return (path.rstrip("/").rpartition("/")[2] or "/") + weight


def portable_value(value: Any) -> Any:
    """``portable`` of a setting's value: a text, or each text of a list; anything else as it is."""
    if isinstance(value, list):
        return [portable_value(item) for item in value]
    return portable(value) if isinstance(value, str) else value


def portable_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Nested settings as a checkpoint holds them: those of ``PATHS`` portable, all others as they are."""
    for path in PATHS:
        value = at(settings, path)
        if value is not None:
            settings = replaced(settings, path, portable_value(value))
    return dict(settings)


def full_settings(settings: Mapping[str, Any], places: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """A checkpoint's nested settings with the full values of this machine.

    ``places`` are settings by dotted path, the likeliest first. Of each setting the first value is taken whose portable form is
    the checkpoint's; where there is none the checkpoint's stays. What ``places`` hold besides is ignored.
    """
    candidates = list(places)
    for path in PATHS:
        value = at(settings, path)
        fitting = (place[path] for place in candidates if path in place and portable_value(place[path]) == value)
        if value is not None:
            settings = replaced(settings, path, next(fitting, value))
    return dict(settings)
