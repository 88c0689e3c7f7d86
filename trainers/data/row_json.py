"""JSON from data: whatever the parser stumbles over is the fault of one row, and is told as its reason.

Python's parser has two limits that are no errors of syntax: the digits of a whole number and the depth of nesting. How deep it
gets depends on the caller, so a limit of our own decides, which is the same wherever a row is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_DEPTH = 200
"""Lists and objects that may lie in one another."""

_TOO_DEEP = f"JSON nested more than {MAX_DEPTH} deep"
_STRING_OR_SIGN = re.compile(r'"(?:[^"\\]|\\.)*"|[\[\]{},:]', re.DOTALL)
_BLANK = re.compile(r"[ \t\n\r]*")


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key {next(name for name in names if names.count(name) > 1)!r} stands twice in one object")
    return content


DECODER = json.JSONDecoder(object_pairs_hook=_object)
"""Takes no object with a key twice, of which the parser would drop the first value; made once, since that costs more than a row."""


def parse_json(text: str) -> Any:
    """The value that ``text`` holds. ``ValueError`` with the reason where it cannot be used: no JSON, no text, or past a limit."""
    if not is_unicode(text):
        raise ValueError("not UTF-8 text")
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not valid JSON: {error.msg} at column {error.colno}") from None
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    except ValueError as error:  # the digits of a whole number, or a key twice
        raise ValueError(f"JSON that cannot be used: {str(error).partition(';')[0]}") from None
    check_depth(value)
    return value


def is_unicode(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: it has no half surrogates, which decoding by surrogateescape puts for other bytes."""
    if text.isascii():  # which a string knows of itself
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_depth(value: Any) -> None:
    """``ValueError`` where lists and objects lie in one another more than ``MAX_DEPTH`` deep."""
    level = [value] if isinstance(value, dict | list) else []
    for _ in range(MAX_DEPTH):
        if not level:
            return
        level = [
            child
            for parent in level
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
    if level:
        raise ValueError(_TOO_DEEP)


def row_texts(text: str) -> Iterator[str]:
    """The rows of a JSON list, or of the list under ``data`` of an object, each as its own text.

    Rows are parted without being parsed, so that one that cannot be parsed does not cost the others. ``ValueError`` where there is no
    such list, or it has no end.
    """
    start = _after_blank(text, 0)
    if text.startswith("{", start):
        start = next((value for key, value, _ in reversed(list(_members(text, start))) if key == '"data"'), len(text))
    if not text.startswith("[", start):
        raise ValueError("it holds no list of records")
    rows = [text[value:end].strip() for _, value, end in _members(text, start)]
    return iter(rows if rows != [""] else [])


def _members(text: str, start: int) -> Iterator[tuple[str, int, int]]:
    """Key (empty in a list), start and end of each member of the list or object that begins at ``start``."""
    depth, key, value = 0, "", start + 1
    for token in _STRING_OR_SIGN.finditer(text, start):
        sign = token[0]
        if sign in "[{":
            depth += 1
        elif sign in "]}":
            depth -= 1
        elif depth == 1 and sign == ":":
            key, value = text[value : token.start()].strip(), _after_blank(text, token.end())
        if (depth == 1 and sign == ",") or depth == 0:
            yield key, value, token.start()
            key, value = "", _after_blank(text, token.end())
        if depth == 0:
            return
    raise ValueError("it does not end")


def _after_blank(text: str, position: int) -> int:
    match = _BLANK.match(text, position)
    return match.end() if match else position
