"""Which function answers which request."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import unquote

REPOSITORY = r"/api/(?P<kind>models|datasets|spaces)/(?P<name>[^/]+/[^/]+)"
PLAIN = r"/(?P<prefix>datasets/|spaces/)?(?P<name>[^/]+/[^/]+)"
REVISION = r"/(?P<revision>[^/]+)"

Handler = Callable[..., None]
_routes: list[tuple[set[str], re.Pattern[str], Handler]] = []


def route(methods: str, pattern: str) -> Callable[[Handler], Handler]:
    """Register a function for the methods (``GET|HEAD``) and paths; the pattern's groups become its arguments."""

    def register(handler: Handler) -> Handler:
        _routes.append((set(methods.split("|")), re.compile(pattern), handler))
        return handler

    return register


def find(method: str, path: str) -> tuple[Handler | None, dict[str, Any]]:
    """The function for a request and its arguments, unquoted."""
    for methods, pattern, handler in _routes:
        match = pattern.fullmatch(path)
        if match and method in methods:
            return handler, {name: value and unquote(value) for name, value in match.groupdict().items()}
    return None, {}


def kind_of(prefix: str | None) -> str:
    """``models`` for the addresses without a prefix, else ``datasets`` or ``spaces``."""
    return (prefix or "models/")[:-1]


def prefix_of(kind: str) -> str:
    """What stands before the name in an address: nothing for models."""
    return "" if kind == "models" else f"{kind}/"
