"""Special tokens are found in texts, the longest that fits."""

from __future__ import annotations

from pitstop.trainers.data.shapes.control_tokens import ControlTokens


def test_the_first_and_longest_is_found() -> None:
    control = ControlTokens(["<s>", "<|end|>", "<|end|><|x|>", "", " "])
    assert control.first_in("a <|end|><|x|> <s>") == "<|end|><|x|>"
    assert control.first_in("a < s <|en") is None
    assert ControlTokens([]).first_in("<s>") is None
