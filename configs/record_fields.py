"""How settings name the fields of records: ``NAME=FIELD``, paths such as ``answers.text[0]``, and templates of questions."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pitstop.configs.errors import SettingsError

FIELD_STEP = re.compile(r"(?:^|\.)([^.\[\]]+)|\[(-?\d+)\]")
"""One step of a path: a key, or the number of an item."""

_PATH = re.compile(r"[^.\[\]]+(?:\.[^.\[\]]+|\[-?\d+\])*")
_PIECE = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def parse_pairs(entries: Sequence[str], setting: str, words: str) -> dict[str, str]:
    """``prompt=question`` of each entry, as a mapping; ``words`` (``NAME=FIELD``) says what an entry is.

    Raises ``SettingsError`` for an entry without ``=`` or without a name, and for a name that stands there twice.
    """
    pairs: dict[str, str] = {}
    for entry in entries:
        name, sign, value = (part.strip() for part in entry.partition("="))
        if not sign or not name:
            raise SettingsError(f"{setting}: '{entry}' is not {words}.", hint=f"Write {words}; a comma ends it.")
        if pairs.setdefault(name, value) != value:
            raise SettingsError(f"{setting}: {name} has two values, {pairs[name]} and {value}.", hint="Leave one of the two out.")
    return pairs


def parse_columns(entries: Sequence[str], setting: str = "--column") -> Mapping[str, str]:
    """The fields by the names they are mapped to; an empty field leaves the name out. Raises ``SettingsError``."""
    columns = parse_pairs(entries, setting, "NAME=FIELD")
    for field in columns.values():
        check_path(field, setting)
    return columns


def parse_roles(entries: Sequence[str], setting: str = "--role") -> Mapping[str, str]:
    """The roles by the names, without case, that records have for them. Raises ``SettingsError``."""
    roles = parse_pairs(entries, setting, "FROM=TO")
    for name, role in roles.items():
        if not role:
            raise SettingsError(f"{setting}: {name} has no role to become.", hint=f"Write {name}=assistant, say.")
    return {name.casefold(): role for name, role in roles.items()}


def parse_options(entries: Sequence[str], setting: str = "--template-option") -> Mapping[str, Any]:
    """The options of a chat template by name; a value that is no JSON is text.

    Raises ``SettingsError``, also for ``False`` and the like: as text it would count as true.
    """
    options = {}
    for name, text in parse_pairs(entries, setting, "NAME=VALUE").items():
        word = text.lower()
        if word in ("true", "false") and text != word:
            raise SettingsError(f"{setting}: {name} is the text '{text}', no truth value.", hint=f"Write {name}={word}.")
        options[name] = _value(text)
    return options


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def check_path(field: str, setting: str) -> None:
    """Raises ``SettingsError`` for a text that is neither empty nor a path of a field."""
    if field and not _PATH.fullmatch(field):
        raise SettingsError(f"{setting}: '{field}' names no field.", hint="Write a name, a.b or a[0].")


def split_template(text: str, setting: str = "--prompt-template") -> list[tuple[str, str]]:
    """The literal pieces of a template, each with the field behind it (``name`` or ``name?``), which the last does not have.

    Raises ``SettingsError`` for a single brace and where no field is named.
    """
    pieces: list[tuple[str, str]] = []
    literal, position = "", 0
    for match in _PIECE.finditer(text):
        literal += text[position : match.start()]
        position = match.end()
        if match[0] in ("{{", "}}"):
            literal += match[0][0]
            continue
        field = match[1]
        if field is None or not field.removesuffix("?").strip():
            raise SettingsError(f"{setting}: a single '{match[0][:1]}'.", hint="Write {{ or }} for a brace, {field} for a field.")
        check_path(field.removesuffix("?"), setting)
        pieces.append((literal, field))
        literal = ""
    if not pieces:
        raise SettingsError(f"{setting} names no field.", hint="Write {question}, say, where the field 'question' goes.")
    return [*pieces, (literal + text[position:], "")]
