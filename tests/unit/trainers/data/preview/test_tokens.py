"""Tokens as text: all of them, in one line, with what is learnt marked."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop.trainers.data.chat.renderer import ChatRenderer
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.preview.tokens import in_short, marked, stretches, token_texts


def _rendered(tokenizer: Any, prompt: str, completion: str) -> Example:
    chat = ChatRenderer(tokenizer)
    return chat.encode(chat.pair(prompt, completion))


def _example(ids: list[int], learnt: list[bool]) -> Example:
    return Example(np.array(ids, dtype=np.int32), np.array(learnt, dtype=bool))


def test_what_is_learnt_stands_in_brackets_and_line_breaks_are_arrows(tokenizer: Any) -> None:
    example = _rendered(tokenizer, "Aspirin?\tx\ry", "Yes.\n\x1b[31mNo.")
    assert marked(token_texts(example, tokenizer)) == (
        "<|start|>user↵Aspirin?⇥x\\x0dy<|end|>↵<|start|>assistant↵⟦Yes.↵\\x1b[31mNo.<|end|>⟧"
    )


def test_stretches_of_learnt_and_other_tokens() -> None:
    assert stretches(np.array([False, False, True, True, False, True])) == [(0, 2), (2, 4), (4, 5), (5, 6)]
    assert stretches(np.array([True])) == [(0, 1)] and stretches(np.array([], dtype=bool)) == []


@given(text=st.text(min_size=1, max_size=40), cuts=st.integers(0, 2**40))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_character_is_lost_between_stretches(tokenizer: Any, text: str, cuts: int) -> None:
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    example = _example(ids, [bool(cuts >> number & 1) for number in range(len(ids))])
    parts = token_texts(example, tokenizer)
    assert [token for part in parts for token in part.ids] == ids
    together = "".join(part.text for part in parts)
    if "\ufffd" not in together:  # no stretch ends within a character
        assert together == tokenizer.decode(ids)


def test_each_token_by_itself_and_a_part_of_a_character_as_the_vocabulary_has_it(tokenizer: Any) -> None:
    ids = tokenizer("a é", add_special_tokens=False)["input_ids"]
    parts = token_texts(_example(ids, [False] * len(ids)), tokenizer, single=True)
    assert [part.ids for part in parts] == [(token,) for token in ids]
    assert [part.text for part in parts] == ["a", " ", "Ã", "©"]


def test_a_tokenizer_that_drops_spaces_in_front_keeps_them_between_stretches() -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({"▁the": 0, "▁sky": 1, "▁is": 2, "▁blue": 3}, unk_token="▁the"))
    words.pre_tokenizer, words.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words)
    example = _example([0, 1, 2, 3], [False, False, True, True])
    assert marked(token_texts(example, tokenizer)) == "the sky⟦ is blue⟧"
    assert [part.text for part in token_texts(example, tokenizer, single=True)] == ["the", " sky", " is", " blue"]


def test_of_a_long_stretch_the_middle_is_counted(tokenizer: Any) -> None:
    ids = tokenizer.convert_tokens_to_ids(list("abcdefghij"))
    parts = token_texts(_example(ids, [False] * 8 + [True] * 2), tokenizer, longest=4)
    assert marked(parts) == "ab … 4 tokens … gh⟦ij⟧"


def test_in_short_has_something_of_each_stretch(tokenizer: Any) -> None:
    example = _rendered(tokenizer, "Long. " * 200, "Answer. " * 200)
    line = in_short(example, tokenizer, 200)
    assert len(line) <= 200 and line.startswith("<|start|>user") and "⟦" in line and line.endswith("<|end|>⟧")
    short = _rendered(tokenizer, "a", "b")
    assert in_short(short, tokenizer, 200) == marked(token_texts(short, tokenizer))


def test_in_short_shows_no_secret(tokenizer: Any) -> None:
    secret = "hf_" + "AbCd1234" * 4
    ids = np.array(tokenizer(f"the key {secret}")["input_ids"], dtype=np.int32)
    assert secret not in in_short(Example(ids, np.ones(len(ids), dtype=bool)), tokenizer, 500)
