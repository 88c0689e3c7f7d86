"""Settings as rows for people and as JSON for programs, each with its source; secrets are never shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from pitstop.checkpointing.disk.dotted import flattened
from pitstop.cli.terminal.output import Column, say, table
from pitstop.configs.secrets import HIDDEN

if TYPE_CHECKING:
    from pitstop.configs.load import Loaded

_DEFAULT, _UNKNOWN = "default", "-"
"""How the source of a setting is written in config.json where nobody gave it, and what stands for one that is not recorded."""


class SettingRow(NamedTuple):
    """A setting as it is shown: dotted path, value and source; ``is_default`` where it is at its default."""

    path: str
    value: str
    source: str
    is_default: bool


def loaded_rows(loaded: Loaded) -> list[SettingRow]:
    """Every setting of ``loaded``, in the order of the schema."""
    from pitstop.configs.leaves import leaves

    rows = []
    for leaf in leaves():
        value = leaf.value_in(loaded.settings)
        text = HIDDEN if leaf.secret and value else setting_text(value)
        source = loaded.sources[leaf.path].place
        rows.append(SettingRow(leaf.path, text, source, source == _DEFAULT or value == leaf.default))
    return rows


def stored_rows(settings: Mapping[str, Any], sources: Mapping[str, Any]) -> list[SettingRow]:
    """Every setting of a run's config.json. One that this version does not know is at its default only where its source says so."""
    from pitstop.configs.leaves import by_path

    rows = []
    for path, value in flattened(settings):
        leaf, source = by_path().get(path), str(sources.get(path, _UNKNOWN))
        is_default = source == _DEFAULT or (leaf is not None and value == leaf.default)
        rows.append(SettingRow(path, setting_text(value), source, is_default))
    return rows


def print_settings(rows: Iterable[SettingRow]) -> None:
    """Print a table of ``rows`` on stdout."""
    table([Column("Setting"), Column("Value", wrap=True), Column("Source", style="dim", wrap=True)], [row[:3] for row in rows])


def print_changed_settings(rows: Sequence[SettingRow], command: str) -> None:
    """Print the rows that are not at their defaults, and how many are; ``command`` lists them all."""
    changed = [row for row in rows if not row.is_default]
    if changed:
        print_settings(changed)
    if hidden := len(rows) - len(changed):
        say(
            f"{hidden} more {'are at their defaults' if hidden > 1 else 'is at its default'}; {command} --all lists every setting"
        )


def sources_as_dict(loaded: Loaded) -> dict[str, dict[str, str]]:
    """Dotted path → kind and place of the source."""
    return {path: {"kind": source.kind, "where": source.place} for path, source in loaded.sources.items()}


def setting_text(value: Any, unset: str = "none") -> str:
    """A value as it would be written in a file; ``unset`` for None."""
    if value is None:
        return unset
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return ",".join(setting_text(item) for item in value) or "none"
    return str(value)
