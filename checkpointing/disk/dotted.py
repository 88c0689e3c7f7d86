"""Values in nested settings by their dotted paths: read, replaced, listed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def at(nested: Any, path: str, default: Any = None) -> Any:
    """The value at ``training.checkpoint.mode``; ``default`` where something on the way is not there."""
    value = nested
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    return value


def replaced(nested: Mapping[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy of ``nested`` with ``value`` at ``path``, which is made if it is not there."""
    head, _, rest = path.partition(".")
    inner = nested.get(head)
    return {**nested, head: replaced(inner if isinstance(inner, Mapping) else {}, rest, value) if rest else value}


def flattened(nested: Mapping[str, Any], depth: int = 8, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every value with its dotted path; ``depth`` levels down a mapping is a value, too."""
    for key, value in nested.items():
        if isinstance(value, Mapping) and depth > 1:
            yield from flattened(value, depth - 1, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
