"""Settings without this machine's directories, and back.

A checkpoint goes to other machines and to the Hub, byte for byte as it lies here, so it must not tell where things lie here: of
an absolute path it holds the last component. The run keeps the full paths beside it, in config.json and in what metadata.json
says of the resumes; a resume takes them from there.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.dotted import at, replaced
from pitstop.configs.datasets import split_weight
from pitstop.configs.paths import PATHS

_ABSOLUTE = re.compile(r"[/\\]|~[^/\\]*[/\\]|[A-Za-z]:[/\\]")  # POSIX and UNC, below a home directory, Windows' drives


def portable(text: str) -> str:
    """The last component of an absolute path, whatever system it is of; anything else (Hub ids, relative paths) as it is.

    The weight of a data set stays behind it.
    """
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
    known = list(places)
    for path in PATHS:
        value = at(settings, path)
        fitting = (place[path] for place in known if path in place and portable_value(place[path]) == value)
        if value is not None:
            settings = replaced(settings, path, next(fitting, value))
    return dict(settings)


def known_places(config: Mapping[str, Any], resumes: Any, checkpoint: str, step: int) -> Iterator[dict[str, Any]]:
    """The values that ``PATHS`` had in a run, by dotted path; first those that were in force when ``checkpoint`` was saved.

    ``config`` is config.json, ``resumes`` what metadata.json holds under that key, unchecked. A resume led to the checkpoint if
    it started from an earlier one that was not left again for one still earlier: each sets aside what came after its start.
    """
    entries = [entry for entry in resumes if isinstance(entry, dict)] if isinstance(resumes, list) else []
    reached = _moment(step, checkpoint)
    others: list[dict[str, Any]] = []
    for entry in reversed(entries):
        started = _moment(entry.get("step"), entry.get("checkpoint"))
        if started < reached:
            reached = started
            yield _changed(entry)
        else:
            others.append(_changed(entry))
    yield {path: at(config, path) for path in PATHS}
    yield from others


def _moment(step: Any, checkpoint: Any) -> tuple[float, bool]:
    """When a checkpoint was saved, in the order of a line of training. One with its evaluation to come is before that with it."""
    return (step if type(step) is int else float("inf"), not layout.is_pending(str(checkpoint)))


def _changed(resume: Mapping[str, Any]) -> dict[str, Any]:
    changes = resume.get("changes")
    pairs = changes.items() if isinstance(changes, dict) else ()
    return {path: pair[1] for path, pair in pairs if path in PATHS and isinstance(pair, list) and len(pair) == 2}
