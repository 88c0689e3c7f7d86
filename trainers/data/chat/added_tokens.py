"""The texts that a tokenizer makes one token of: where an answer ends, and where two renderings may be parted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class AddedTokens:
    """``special`` tokens may end a turn; of all ``added`` ones none is ever cut."""

    def __init__(self, added: Iterable[str], special: Iterable[str]) -> None:
        self.special = frozenset(special)
        self.added = frozenset(added) | self.special
        self._special_lengths = _lengths(self.special)
        self._finals = frozenset(token[-1] for token in self.special)
        self._lengths = _lengths(self.added)
        self._initials = frozenset(token[0] for token in self.added)
        self._longest = max(self._lengths, default=0)

    @classmethod
    def of(cls, tokenizer: Any) -> AddedTokens:
        """Those of ``tokenizer``. The unknown token is none that ends a turn, unless it is the end of sequence as well."""
        decoder = tokenizer.added_tokens_decoder.values()
        special = {*tokenizer.all_special_tokens, *(token.content for token in decoder if token.special)}
        special -= {tokenizer.unk_token} - {tokenizer.eos_token}
        return cls((token.content for token in decoder if token.content), filter(None, special))

    def end_of(self, text: str) -> tuple[int, int]:
        """Where the own text of ``text`` stops, and where its end token does; equal where it has none.

        The end is the closing run of special tokens and white space. Without a special token in it, all of ``text`` is its own.
        """
        behind = 0
        position = len(text.rstrip())
        while length := self._special_before(text, position):
            behind = behind or position
            position -= length
            while position and text[position - 1].isspace():
                position -= 1
        return (position, behind) if behind else (len(text), len(text))

    def begins(self, text: str, position: int) -> str:
        """The special token that stands at ``position``, or nothing."""
        for length in self._special_lengths:
            if (token := text[position : position + length]) in self.special:
                return token
        return ""

    def common(self, left: str, right: str) -> int:
        """The length of the longest common prefix that ends inside no added token of either."""
        position = common_prefix(left, right)
        while (start := min(self._covering(left, position), self._covering(right, position))) < position:
            position = start
        return position

    def without(self, text: str) -> str:
        """``text`` with a space for each added token."""
        for token in sorted(self.added, key=len, reverse=True):
            text = text.replace(token, " ")
        return text

    def _special_before(self, text: str, position: int) -> int:
        if not position or text[position - 1] not in self._finals:
            return 0
        for length in self._special_lengths:
            if length <= position and text[position - length : position] in self.special:
                return length
        return 0

    def _covering(self, text: str, position: int) -> int:
        """Where an added token starts that ``position`` is inside of; ``position`` where there is none."""
        for start in range(max(0, position - self._longest + 1), min(position, len(text))):
            if text[start] in self._initials and any(
                position < start + length <= len(text) and text[start : start + length] in self.added for length in self._lengths
            ):
                return start
        return position


def stop_tokens(tokenizer: Any) -> frozenset[str]:
    """The texts of the tokens at which generation stops, as ``generation_config.json`` beside the tokenizer names them."""
    directory = getattr(tokenizer, "name_or_path", "")
    if not directory:
        return frozenset()
    try:
        config = json.loads((Path(directory) / "generation_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # there is none, or none that can be read
        return frozenset()
    ends = config.get("eos_token_id") if isinstance(config, dict) else None
    numbers = [end for end in (ends if isinstance(ends, list) else [ends]) if type(end) is int and 0 <= end < len(tokenizer)]
    return frozenset(tokenizer.convert_ids_to_tokens(numbers))


def _lengths(tokens: Iterable[str]) -> tuple[int, ...]:
    return tuple(sorted({len(token) for token in tokens}, reverse=True))


def common_prefix(left: str, right: str) -> int:
    """How many characters the two begin with alike."""
    low, high = 0, min(len(left), len(right))
    while low < high:
        middle = (low + high + 1) // 2
        if left[low:middle] == right[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
