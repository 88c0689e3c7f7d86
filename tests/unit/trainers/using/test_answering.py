"""Answers as they are shown while they grow."""

from __future__ import annotations

from typing import Any

from pitstop.trainers.using.answering import GrowingText


def test_of_a_growing_answer_only_what_is_certain_is_shown(tokenizer: Any) -> None:
    ids = tokenizer("naïve – ok", add_special_tokens=False)["input_ids"]
    shown: list[str] = []
    growing = GrowingText(tokenizer, shown.append)
    for count in range(1, len(ids) + 1):
        growing.extend(ids[:count])
        assert "\ufffd" not in "".join(shown)
    growing.finish("naïve – ok")
    assert "".join(shown) == "naïve – ok" and len(shown) > 3
