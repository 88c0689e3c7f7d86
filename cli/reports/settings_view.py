"""Settings as rows for people and as JSON for programs, each with its source; secrets are never shown."""

from __future__ import annotations

from typing import Any

from pitstop.configs.leaves import leaves
from pitstop.configs.load import Loaded
from pitstop.configs.secrets import HIDDEN


def rows(loaded: Loaded) -> list[tuple[str, str, str]]:
    """Setting, value and source of every setting, in the order of the schema."""
    values = [(leaf, leaf.value_in(loaded.settings)) for leaf in leaves()]
    return [
        (leaf.path, HIDDEN if leaf.secret and value else _text(value), loaded.sources[leaf.path].place) for leaf, value in values
    ]


def sources_as_dict(loaded: Loaded) -> dict[str, dict[str, str]]:
    """Dotted path → kind and place of the source."""
    return {path: {"kind": source.kind, "where": source.place} for path, source in loaded.sources.items()}


def _text(value: Any) -> str:
    """As it would be written in a file."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, list) else str(value)
