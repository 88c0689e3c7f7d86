"""Special tokens in the texts of messages, which the tokenizer takes for what a chat template writes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any


class ControlTokens:
    """Finds ``tokens`` in texts, quickly where there are none."""

    def __init__(self, tokens: Iterable[str]) -> None:
        self.tokens = longest_first = sorted({token for token in tokens if token.strip()}, key=len, reverse=True)
        self._starts = tuple({token[:2] for token in longest_first})
        self._pattern = re.compile("|".join(re.escape(token) for token in longest_first) or "(?!)")

    @classmethod
    def of(cls, tokenizer: Any) -> ControlTokens:
        """Those of a tokenizer."""
        added = (str(token) for token in tokenizer.added_tokens_decoder.values() if token.special)
        return cls([*tokenizer.all_special_tokens, *added])

    def named_in(self, template: str) -> ControlTokens:
        """Those of them that stand in the source of a chat template."""
        return ControlTokens(token for token in self.tokens if token in template)

    def first_in(self, text: str) -> str | None:
        """The first of them in ``text``; None where there is none."""
        for start in self._starts:
            if start in text:
                match = self._pattern.search(text)
                return match[0] if match else None
        return None
