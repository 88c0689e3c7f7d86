"""Data sets that are objects in YAML: a place with a weight, and settings that are their own.

``{path: chats.jsonl, weight: 0.7, learn: last}`` becomes the place ``chats.jsonl:0.7``, as a flag has it, and beside it the JSON text of
what is its own, ``{"learn": "last"}``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from pitstop.configs.datasets import DataSource, parse_sources
from pitstop.configs.errors import SettingsError
from pitstop.configs.leaves import nearest
from pitstop.configs.schema import Settings

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


def split_entry(entry: Mapping[str, Any], place: str) -> tuple[str, str]:
    """The text of a place and the JSON text of an entry's own settings. Raises ``SettingsError``; ``place`` is where it stands."""
    for key in entry:
        if key not in (*_OF_PLACE, *OWN):
            match = nearest(key, (*_OF_PLACE, *OWN))
            hint = f"Did you mean {match}?" if match else f"It may have {', '.join((*_OF_PLACE, *OWN))}."
            raise SettingsError(f"{place}: a data set has no '{key}'.", hint=hint)
    text = entry.get("path")
    if not text or not isinstance(text, str):
        raise SettingsError(f"{place}: a data set needs a path.", hint="For example {path: chats.jsonl, weight: 0.7}.")
    if revision := entry.get("revision"):
        text += f"@{revision}"
    if entry.get("config") or entry.get("split"):
        text += f":{entry.get('config') or ''}:{entry.get('split') or ''}".rstrip(":")
    if weight := entry.get("weight"):
        text += f":{weight}"
    return text, json.dumps({key: entry[key] for key in OWN if key in entry}, ensure_ascii=False, sort_keys=True)


def training_sources(settings: Settings) -> tuple[DataSource, ...]:
    """The data sets to train on."""
    return _sources(settings.data.train, settings.data.train_settings)


def evaluation_sources(settings: Settings) -> tuple[DataSource, ...]:
    """The data sets to evaluate on: those to train on where there are no others."""
    data = settings.data
    return _sources(data.eval, data.eval_settings) if data.eval else training_sources(settings)


def _sources(texts: Sequence[str], own: Sequence[str]) -> tuple[DataSource, ...]:
    sources = parse_sources(texts)
    if not own:
        return sources
    return tuple(
        DataSource(source.spec, source.weight, json.loads(settings)) for source, settings in zip(sources, own, strict=True)
    )
