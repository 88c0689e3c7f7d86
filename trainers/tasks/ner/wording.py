"""The words of entity extraction: what is asked, what is answered, and how entity types are spelt. Plain Python."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from pitstop.trainers.tasks.ner.scores import parse_items

NONE = "- none"
UNTYPED = "entity"
"""The type of what is marked without a type: bare B and I tags, ready pairs without ``entity_type``."""

DEFAULT_PROMPT = (
    "List every {description} that the text names, one per line after a dash, exactly as it is written. "
    'If there is none, answer "- none".\n\nText: {text}'
)
_DESCRIPTIONS = {
    "chemical": "chemical (medicine or other substance)",
    "disease": "disease (illness, injury, symptom or side effect)",
}
_FIELD = re.compile(r"\{(text|type|description)\}")


class UnusableItem(ValueError):
    """An entity that no answer can name; the message is the reason."""


def type_name(written: str) -> str:
    """Return an entity type as metrics name it: lower case, ``_`` between words (``Cell-Line`` is ``cell_line``).

    Nothing is left of a name without a letter or digit.
    """
    return "_".join(re.findall(r"[^\W_]+", written.casefold()))


def prompt(text: str, entity_type: str, template: str = DEFAULT_PROMPT) -> str:
    """Return the question for one entity type.

    ``{text}``, ``{type}`` (the type in words) and ``{description}`` (the same, explained where the type is a known one) in
    ``template`` are filled in; other braces stay what they are.
    """
    words = entity_type.replace("_", " ")
    values = {"text": text, "type": words, "description": _DESCRIPTIONS.get(entity_type, words)}
    return _FIELD.sub(lambda match: values[match[1]], template)


def template_fields(template: str) -> frozenset[str]:
    """Return which of ``text``, ``type`` and ``description`` the template has."""
    return frozenset(_FIELD.findall(template))


def completion(items: Sequence[str]) -> str:
    """Return the expected answer: a ``- item`` line for each entity in the order given, or ``- none``."""
    return "\n".join(f"- {item}" for item in items) or NONE


def distinct(items: Iterable[str]) -> list[str]:
    """Return ``items`` with single spaces, each once (case aside), as an answer can name them.

    Raises ``UnusableItem`` for one that an answer's reader would not find again, such as ``none`` or a lone dash.
    """
    by_key: dict[str, str] = {}
    for item in items:
        spaced = " ".join(item.split())
        if not parse_items(f"- {spaced}"):
            raise UnusableItem(f"an answer cannot name the entity {item!r}: it reads as no entity")
        by_key.setdefault(spaced.casefold(), spaced)
    return list(by_key.values())
