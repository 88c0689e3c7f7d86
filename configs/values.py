"""One raw value (text of a file, flag or environment; or a Python value) → the type and range of its setting."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from datetime import date
from pathlib import Path
from typing import Any

from pitstop.configs.leaves import Leaf
from pitstop.configs.paths import JSON_TEXTS, PATHS, VERBATIM
from pitstop.configs.secrets import Secret

_TRUE = {"true", "yes", "on", "1", "y", "t"}
_FALSE = {"false", "no", "off", "0", "n", "f"}
_NOTHING = {"", "none", "null", "~"}
_SHOWN = 80


class InvalidValue(ValueError):
    """A value that its setting cannot take. The text never contains the value of a secret."""


_NO_TEXT = re.compile("[\ud800-\udfff]")


def parse(leaf: Leaf, raw: Any) -> Any:
    """Give ``raw`` the type of ``leaf`` and check its range.

    Text is read as its setting wants it: ``5e-5`` is a number, ``yes`` a truth value, ``a,b`` a list, and ``none``,
    ``null`` or nothing at all is None where None is allowed.

    Raises:
        InvalidValue: with a text that names the value and what the setting takes.
    """
    if leaf.optional and (raw is None or (isinstance(raw, str) and raw.strip().lower() in _NOTHING)):
        return None
    for text in raw if isinstance(raw, list) else [raw]:
        if isinstance(text, str) and _NO_TEXT.search(text):
            raise InvalidValue(f"{text!r} has bytes that are not UTF-8, which no record of a run can hold")
    value = _CONVERT[leaf.kind](leaf, raw)
    if not _within(leaf, value):
        raise InvalidValue(_complaint(leaf, raw))
    return value


def describe(leaf: Leaf) -> str:
    """What a setting takes, in words: "a whole number from 1 to 4096"."""
    words = {
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
        "str": "a day such as 2026-01-31" if leaf.limits.get("day") else "text",
        "list": "a list with at least one entry" if leaf.limits.get("min_length") else "a list",
        "choice": "one of " + ", ".join(leaf.choices),
        "secret": "a token of printable characters without spaces",
    }[leaf.kind]
    return words + _range_words(leaf) + (" or 'none'" if leaf.optional and not leaf.secret else "")


def _range_words(leaf: Leaf) -> str:
    limits = leaf.limits
    if "ge" in limits and "le" in limits:
        return f" from {limits['ge']} to {limits['le']}"
    low = f"of at least {limits['ge']}" if "ge" in limits else f"above {limits['gt']}" if "gt" in limits else ""
    high = f"at most {limits['le']}" if "le" in limits else f"below {limits['lt']}" if "lt" in limits else ""
    words = " and ".join(part for part in (low, high) if part)
    return f" {words}" if words else ""


def _within(leaf: Leaf, value: Any) -> bool:
    limits = leaf.limits
    if leaf.kind in ("int", "float"):
        is_high = value >= limits.get("ge", -math.inf) and value > limits.get("gt", -math.inf)
        return bool(is_high and value <= limits.get("le", math.inf) and value < limits.get("lt", math.inf))
    if limits.get("day"):
        return _is_day(value)
    return leaf.kind not in ("str", "list") or len(value) >= limits.get("min_length", 0)


def _is_day(text: str) -> bool:
    try:
        return date.fromisoformat(text).isoformat() == text
    except ValueError:
        return False


def _complaint(leaf: Leaf, raw: Any) -> str:
    if leaf.secret:
        return f"the value is not {describe(leaf)} (it is not shown)"
    if isinstance(raw, str) and not raw.strip():
        return f"the value is empty; it must be {describe(leaf)}"
    text = str(raw) if len(str(raw)) <= _SHOWN else str(raw)[:_SHOWN] + "…"
    return f"'{text}' is not {describe(leaf)}"


def _bool(leaf: Leaf, raw: Any) -> bool:
    word = str(raw).strip().lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise InvalidValue(_complaint(leaf, raw))


def _int(leaf: Leaf, raw: Any) -> int:
    number = _number(leaf, raw, int)
    if not float(number).is_integer():
        raise InvalidValue(_complaint(leaf, raw))
    return int(number)


def _number(leaf: Leaf, raw: Any, first: Callable[[Any], float]) -> float:
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise InvalidValue(_complaint(leaf, raw))
    for convert in (first, float):
        try:
            number = convert(raw) if isinstance(raw, str) else raw
            if math.isfinite(number):
                return number
        except (ValueError, OverflowError):
            continue
    raise InvalidValue(_complaint(leaf, raw))


def _str(leaf: Leaf, raw: Any) -> str:
    if not isinstance(raw, str):
        raise InvalidValue(_complaint(leaf, raw))
    if "\0" in raw:
        raise InvalidValue(_complaint(leaf, raw.replace("\0", "\\0")))
    text = raw if leaf.path in VERBATIM else raw.strip()
    if leaf.path in PATHS and (text == "~" or text.startswith("~/")):  # no shell expands it in a file or in --base-dir=~/runs
        return str(Path.home()) + text[1:]
    return text


def _list(leaf: Leaf, raw: Any) -> list[str]:
    """``a,b`` of the environment, or several flags, each of which may hold several entries unless it is a path."""
    if isinstance(raw, str):
        raw = raw.split(",")
    elif isinstance(raw, Sequence) and leaf.path not in (*PATHS, *JSON_TEXTS):
        raw = [piece for entry in raw for piece in (entry.split(",") if isinstance(entry, str) else [entry])]
    if not isinstance(raw, Sequence):
        raise InvalidValue(_complaint(leaf, raw))
    return [text for entry in raw if (text := _str(leaf, entry))]


def _choice(leaf: Leaf, raw: Any) -> str:
    word = str(raw).strip().lower()
    if word not in leaf.choices:
        raise InvalidValue(_complaint(leaf, raw))
    return word


def _secret(leaf: Leaf, raw: Any) -> Secret:
    if isinstance(raw, Secret):
        return raw
    if not isinstance(raw, str):
        raise InvalidValue(_complaint(leaf, raw))
    token = raw.strip()
    if not token.isascii() or not token.isprintable() or " " in token:
        raise InvalidValue(_complaint(leaf, raw))
    return Secret(token)


_CONVERT: dict[str, Callable[[Leaf, Any], Any]] = {
    "bool": _bool,
    "int": _int,
    "float": lambda leaf, raw: float(_number(leaf, raw, float)),
    "str": _str,
    "list": _list,
    "choice": _choice,
    "secret": _secret,
}
