"""What ``--dataset`` and ``--eval-dataset`` take: places of data, each with a weight or without."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pitstop.configs.errors import SettingsError

DATA_SUFFIX = re.compile(r"(?:\.(?:jsonl?|ndjson|csv|tsv|txt|parquet|arrow|feather|gz|bz2|xz|zst))+$", re.IGNORECASE)
"""Endings that tell a format and are no part of a data set's name."""

OF_RECORDS = (
    *("columns", "shape", "roles", "prompt_template", "system_prompt", "learn", "group_by"),
    *("rewritten_turns", "reasoning", "system_role", "merge_turns"),
)
"""Settings of the group ``data`` that say how records are read."""
OWN = (*OF_RECORDS, "max_records")
"""Those that a data set may have of its own."""
ENTRIES = {"data.train": "data.train_settings", "data.eval": "data.eval_settings"}
"""Settings whose entries may be objects, and where what is an entry's own is recorded."""

_OF_PLACE = ("path", "weight", "split", "revision", "config")
_WEIGHT = re.compile(r":([+-]?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,2})?|[+-]?(?:nan|inf))$", re.IGNORECASE)
_HUB = re.compile(r"(?:hub:)?(\w[\w.-]*/\w[\w.-]*)(?:@[^:\s]+)?(?::[^:\[\]]*(?:\[[^\]]*\])?){0,2}")
_LONGEST_NAME = 40


@dataclass(frozen=True)
class DataSource:
    """One data set: where it is, its weight, None where it has none, and ``settings`` of the group ``data`` that are its own."""

    spec: str
    weight: float | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def split_weight(text: str) -> tuple[str, str]:
    """``a.jsonl:0.7`` → (``a.jsonl``, ``:0.7``); the second part is empty where there is no weight. Asks no disk."""
    match = _WEIGHT.search(text)
    return (text[: match.start()], match[0]) if match and match.start() else (text, "")


def without_weight(text: str) -> str:
    """The place alone, for names and lists: of a data set of the Hub its id, without revision, config and split."""
    place = split_weight(text)[0]
    match = None if DATA_SUFFIX.search(place) else _HUB.fullmatch(place)
    return match[1] if match else place


def split_entry(entry: Mapping[str, Any], place: str) -> tuple[str, str]:
    """A data set that is an object in YAML as the text of a place, which a flag would have, and the JSON text of its own settings.

    ``{path: chats.jsonl, weight: 0.7, learn: last}`` becomes ``chats.jsonl:0.7`` and ``{"learn": "last"}``. Raises ``SettingsError``;
    ``place`` is where it stands.
    """
    for key in entry:
        if key not in (*_OF_PLACE, *OWN):
            raise SettingsError(f"{place}: a data set has no '{key}'.", hint=f"It may have {', '.join((*_OF_PLACE, *OWN))}.")
    text = entry.get("path")
    if not text or not isinstance(text, str):
        raise SettingsError(f"{place}: a data set needs a path.", hint="For example {path: chats.jsonl, weight: 0.7}.")
    for key in _OF_PLACE:
        if isinstance(entry.get(key), list):
            raise SettingsError(f"{place}: a data set has a single {key}.", hint="Write an entry for each.")
    if revision := entry.get("revision"):
        text += f"@{revision}"
    if entry.get("config") or entry.get("split"):
        text += f":{entry.get('config') or ''}:{entry.get('split') or ''}".rstrip(":")
    if weight := entry.get("weight"):
        text += f":{weight}"
    return text, json.dumps({key: entry[key] for key in OWN if key in entry}, ensure_ascii=False, sort_keys=True)


def parse_sources(texts: Sequence[str], setting: str = "--dataset", *, keep_single: bool = False) -> tuple[DataSource, ...]:
    """The data sets of a setting. A text that is an existing path as it stands has no weight, whatever it ends in.

    A weight beside nothing else weighs nothing and is dropped, unless ``keep_single``. Raises ``SettingsError`` for a weight that is not above zero, and
    where some have one and others not.
    """
    sources = [_parse(text, setting) for text in texts]
    weighted = [source.weight is not None for source in sources]
    if any(weighted) and not all(weighted):
        bare = sources[weighted.index(False)].spec
        raise SettingsError(
            f"{setting}: {bare} has no weight, and others have.", hint=f"Give every one a weight, such as {bare}:1, or none."
        )
    return (DataSource(sources[0].spec),) if len(sources) == 1 and not keep_single else tuple(sources)


def sources_with_settings(texts: Sequence[str], settings: Sequence[str]) -> tuple[DataSource, ...]:
    """The data sets of ``texts``, each with the settings of its own that the JSON text beside it holds, if there are any."""
    sources = parse_sources(texts)
    parsed = [json.loads(text) for text in settings] or [{}] * len(sources)
    return tuple(replace(source, settings=values) for source, values in zip(sources, parsed, strict=True))


def _parse(text: str, setting: str) -> DataSource:
    spec, weight = split_weight(text)
    if not weight or _exists(text):
        return DataSource(text)
    value = float(weight[1:])
    if not 0 < value < math.inf:  # nor NaN
        raise SettingsError(
            f"{setting} {text}: the weight must be a number above 0.", hint=f"Leave {spec} out, or write {spec}:0.5, say."
        )
    return DataSource(spec, value)


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such user
        return False


def source_names(specs: Sequence[str]) -> list[str]:
    """A short name for each data set, no two the same: the stem of its file, the last part of its Hub id.

    They end names of metrics, where an ending ``_s`` would say that the values are timings; it becomes ``-s``.
    """
    names: list[str] = []
    for spec in specs:
        stem = DATA_SUFFIX.sub("", re.split(r"[/\\:]", without_weight(spec).rstrip("/\\"))[-1])
        name = re.sub(r"[^\w.-]+", "-", stem)[:_LONGEST_NAME].strip("-.") or "data"
        name = "data-s" if name == "s" else re.sub(r"_s$", "-s", name)
        number, unique = 2, name
        while unique in names:
            unique, number = f"{name}-{number}", number + 1
        names.append(unique)
    return names
