"""Where texts end, and where two of them part, without a token being cut."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.data.chat.added_tokens import AddedTokens, stop_tokens
from pitstop.trainers.data.chat.renderer import ChatRenderer
from support.chat_templates import TWO, byte_tokenizer, wheel_templates
from support.tokenizers_of_kinds import tokenizer_of

TOKENS = AddedTokens(["<think>", "</think>", "<|end|>"], ["<|end|>", "</s>"])


@pytest.mark.parametrize(
    ("text", "own", "end"),
    [
        ("A1<|end|>", 2, 9),
        ("A1<|end|>\n", 2, 9),
        ("A1 <|end|>\n</s> \n", 2, 15),
        ("A1", 2, 2),
        ("A1\n", 3, 3),
        ("A1</think>", 10, 10),
        ("<|end|>", 0, 7),
        ("", 0, 0),
        ("x <|end|> y", 11, 11),
    ],
)
def test_the_end_is_the_closing_run_of_special_tokens_and_white_space(text: str, own: int, end: int) -> None:
    assert TOKENS.end_of(text) == (own, end)


@pytest.mark.parametrize(
    ("left", "right", "length"),
    [
        ("ab<think>", "ab</think>", 2),
        ("ab<think>x", "ab<think>y", 9),
        ("ab<", "ab<|end|>", 2),
        ("ab<thi", "ab<thx", 5),
        ("same", "same", 4),
        ("same", "same and more", 4),
        ("<|end|><|end|>", "<|end|></s>", 7),
        ("", "x", 0),
    ],
)
def test_a_common_prefix_ends_inside_no_added_token(left: str, right: str, length: int) -> None:
    assert TOKENS.common(left, right) == TOKENS.common(right, left) == length


@given(st.lists(st.sampled_from(["a", "<", "<think>", "<|end|>", "</s>", "|end|>"]), max_size=6), st.data())
def test_a_common_prefix_is_common_and_of_tokens_that_both_have(pieces: list[str], data: st.DataObject) -> None:
    left = "".join(pieces)
    right = left[: data.draw(st.integers(0, len(left)))] + data.draw(st.sampled_from(["", "x", "<think>", "d|>"]))
    length = TOKENS.common(left, right)
    assert left[:length] == right[:length]
    for token in TOKENS.added:
        for start in range(max(0, length - len(token) + 1), length):
            assert not left.startswith(token, start) and not right.startswith(token, start)


def test_of_a_tokenizer_they_are_its_own(tokenizer: Any) -> None:
    assert {"<|start|>", "<|end|>", "<pad>"} == AddedTokens.of(tokenizer).special
    tokens = AddedTokens.of(byte_tokenizer())
    assert "<think>" in tokens.added - tokens.special and "<|im_end|>" in tokens.special


def test_the_unknown_token_ends_nothing() -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"<unk>": 0, "<end>": 1}, unk_token="<unk>"))
    assert AddedTokens.of(PreTrainedTokenizerFast(tokenizer_object=words, unk_token="<unk>", eos_token="<end>")).special == {
        "<end>"
    }


def test_the_special_token_at_a_place_is_found() -> None:
    assert TOKENS.begins("A1<|end|>x", 2) == "<|end|>"
    assert TOKENS.begins("A1<think>", 2) == TOKENS.begins("A1", 2) == ""


@pytest.mark.parametrize(
    ("config", "stops"),
    [
        ('{"eos_token_id": [1, 0]}', {"<|end|>", "<|start|>"}),
        ('{"eos_token_id": 1}', {"<|end|>"}),
        ('{"eos_token_id": [99999, true, -1, "x"]}', set()),
        ("[]", set()),
        ("{", set()),
    ],
)
def test_stops_are_those_of_the_generation_config_beside_the_tokenizer(
    tokenizer: Any, tmp_path: Path, config: str, stops: set[str]
) -> None:
    tokenizer.name_or_path = str(tmp_path)
    assert stop_tokens(tokenizer) == set()
    (tmp_path / "generation_config.json").write_text(config)
    assert stop_tokens(tokenizer) == stops


def test_an_earlier_answer_learns_the_stop_that_follows_it(tmp_path: Path) -> None:
    """Oracle 34, with the tokens of the task."""
    tokenizer = tokenizer_of("byte-level", wheel_templates()["glm4moe"])
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|user|>", "<|assistant|>"]})
    tokenizer.name_or_path = str(tmp_path)
    (number,) = tokenizer.convert_tokens_to_ids(["<|user|>"])
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [number]}))
    example = ChatRenderer(tokenizer).encode(TWO)
    learnt = tokenizer.decode(example.input_ids[example.supervised].tolist())
    assert learnt.startswith("\n<think></think>\nA1<|user|>\n<think></think>\nA2")
