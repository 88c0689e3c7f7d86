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
from support.tokenizers_of_kinds import tokenizer_of


def _record(history: Sequence[str], candidates: Sequence[str], answer: int) -> Record:
    return Record({"history": list(history), "candidates": list(candidates), "answer": answer}, "here")


def test_letters_are_the_tokens_behind_the_prompt_and_not_bare_ones(rank_settings: Callable[..., Settings]) -> None:
    tokenizer = tokenizer_of("metaspace first")
    task = RankTask(tokenizer, rank_settings())
    (example,) = task.examples(_record(["One"], ["Two", "Three"], 1))
    assert tokenizer.convert_ids_to_tokens(example.input_ids[-2:].tolist()) == ["B", "</s>"]
    assert tokenizer.tokenize("B")[0].startswith("▁")


def test_a_letter_that_would_melt_into_the_prompt_stands_behind_it_as_it_is(rank_settings: Callable[..., Settings]) -> None:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    characters = {character: number for number, character in enumerate(["<s>", "</s>", *map(chr, range(10, 127))])}
    backend = Tokenizer(models.BPE({**characters, "\nB": len(characters)}, [("\n", "B")]))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<s>", eos_token="</s>")
    assert tokenizer.tokenize(":\nB") == [":", "\nB"]
    (example,) = RankTask(tokenizer, rank_settings()).examples(_record(["One"], ["Two", "Three"], 1))
    assert tokenizer.convert_ids_to_tokens(example.input_ids[-4:].tolist()) == [":", "\n", "B", "</s>"]


def test_letters_that_are_one_token_are_refused(tokenizer: Any, rank_settings: Callable[..., Settings]) -> None:
    class Lower:
        """Knows no capitals."""

        def __getattr__(self, name: str) -> Any:
            return getattr(tokenizer, name)

        def __len__(self) -> int:
            return len(tokenizer)

        def __call__(self, texts: str | list[str], **options: Any) -> Any:
            lower = str.maketrans(ascii_uppercase, "a" * 26)
            return tokenizer(texts.translate(lower) if isinstance(texts, str) else [t.translate(lower) for t in texts], **options)

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
