"""Letters of candidates: the tokens that they are behind a prompt."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from string import ascii_uppercase
from typing import Any

import pytest

from pitstop.configs.errors import ModelError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.records import Record
from pitstop.trainers.tasks.rank.task import RankTask


def _record(history: Sequence[str], candidates: Sequence[str], answer: int) -> Record:
    return Record({"history": list(history), "candidates": list(candidates), "answer": answer}, "here")


class Sentencepieces:
    """Like Llama 2's: a word that begins a text gets a mark in front, and what follows a newline does not."""

    chat_template = None
    bos_token_id = None
    eos_token_id, unk_token_id = 1, 0
    added_tokens_decoder: dict[int, Any] = {}  # noqa: RUF012
    all_special_ids = (0, 1)

    def __init__(self, *, joins: bool = False) -> None:
        self.joins = joins
        self.known: dict[str, int] = {}

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, list[int]]:
        pieces = ["▁" + text[:1], *text[1:]] if text else []
        if self.joins and pieces[-1] in ascii_uppercase and len(pieces) > 1:
            pieces[-2:] = ["".join(pieces[-2:])]
        return {"input_ids": [self.known.setdefault(piece, 2 + len(self.known)) for piece in pieces]}

    def decode(self, ids: Sequence[int], **_: Any) -> str:
        names = {number: piece for piece, number in self.known.items()}
        return "".join(names.get(number, "") for number in ids).replace("▁", "")


def test_letters_are_the_tokens_behind_the_prompt_and_not_bare_ones(rank_settings: Callable[..., Settings]) -> None:
    tokenizer = Sentencepieces()
    task = RankTask(tokenizer, rank_settings())
    (example,) = task.examples(_record(["One"], ["Two", "Three"], 1))
    letter = int(example.input_ids[-2])
    assert letter == tokenizer.known["B"] != tokenizer("B")["input_ids"][0]
    assert example.input_ids[-1] == tokenizer.eos_token_id


def test_letters_that_melt_into_the_prompt_are_refused(rank_settings: Callable[..., Settings]) -> None:
    with pytest.raises(ModelError, match="melts into the prompt"):
        RankTask(Sentencepieces(joins=True), rank_settings())


def test_letters_that_are_one_token_are_refused(tokenizer: Any, rank_settings: Callable[..., Settings]) -> None:
    class Lower:
        """Knows no capitals."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __call__(self, text: str, **options: Any) -> Any:
            return tokenizer("".join("a" if c in ascii_uppercase else c for c in text), **options)

    with pytest.raises(ModelError, match="not one token each"):
        RankTask(Lower(), rank_settings())


def test_what_a_template_puts_before_an_answer_stands_before_the_letter(
    tokenizer: Any, rank_settings: Callable[..., Settings]
) -> None:
    tokenizer.chat_template = tokenizer.chat_template.replace(
        "{{ message['content'] }}", "{% if message['role'] == 'assistant' %}ok: {% endif %}{{ message['content'] }}"
    )
    (example,) = RankTask(tokenizer, rank_settings()).examples(_record(["One"], ["Two", "Three"], 1))
    assert tokenizer.decode(example.input_ids.tolist()).endswith("<|start|>assistant\nok: B<|end|>")
    assert tokenizer.decode(example.input_ids[-2:].tolist()).strip() == "B<|end|>"
