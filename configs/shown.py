"""Values as they are shown: text that cannot control a terminal, sizes and durations in words, numbers that JSON can hold."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

# C0 and C1 controls, DEL, line and paragraph separators, marks that turn the direction of writing, lone surrogates (bytes of
# a file name that are no UTF-8).
_UNSHOWN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_UNSHOWN_IN_TEXT = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)


def printable(text: str, *, lines: bool = False) -> str:
    r"""``text`` with every character that would control the terminal spelt out, such as ``\x1b``; ``lines`` keeps ``\n`` and ``\t``."""
    if text.isprintable() and text.isascii():
        return text
    return (_UNSHOWN_IN_TEXT if lines else _UNSHOWN).sub(_spelt, text)


def json_safe(document: str) -> str:
    r"""A JSON document with the characters that ``json.dumps`` leaves as they are, and terminals do not, written as ``\u009b``."""
    if document.isascii() and "\x7f" not in document:
        return document
    return _UNSHOWN_IN_TEXT.sub(lambda match: f"\\u{ord(match[0]):04x}", document)


def _spelt(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def human_size(size: float) -> str:
    """Bytes in the unit a person would choose, in powers of 1,024: ``0 B``, ``9.4 MiB``, ``1.2 GiB``."""
    value = float(size)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(value) < 1024:
            return f"{value:.0f} B" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1024
    return f"{value:.1f} TiB"


def human_duration(seconds: float) -> str:
    """Seconds as a person would say them: ``0.4 s``, ``42 s``, ``3 min 05 s``, ``2 h 07 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def finite(value: Any) -> Any:
    """Replace what JSON cannot hold: NaN and infinities by None, tuples by lists."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value
