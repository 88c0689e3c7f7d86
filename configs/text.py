"""Text that comes from files, made safe to show: a name in a pulled run must not move the cursor or set a title."""

from __future__ import annotations

import re

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
