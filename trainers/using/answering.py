"""Answers of opened checkpoints to prompts: many at a time, or one that is followed as it grows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pitstop.configs.errors import DataError
from pitstop.trainers.data.prompts import room_for_prompt, tokenised
from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.machine.memory_pieces import Pieces
from pitstop.trainers.models.generation import Answer, Sampling, answer_batch, answer_in_pieces, batches
from pitstop.trainers.tasks.text import TextTask
from pitstop.trainers.using.opened import OpenModel

Turn = dict[str, str]
"""A message of a conversation: ``role`` and ``content``."""


@dataclass(frozen=True)
class Answering:
    """How to answer; greedy without ``sampling``."""

    max_new_tokens: int = 256
    batch_size: int = 8
    sampling: Sampling | None = None


def answer(
    opened: OpenModel, prompts: Sequence[str], options: Answering, tell: Callable[[int], None] = lambda count: None
) -> list[Answer]:
    """Answers in the order of ``prompts``; ``tell`` hears how many are done. ``DataError`` for a prompt that does not fit.

    Raises ``ResourceError`` where memory runs out with a batch of one.
    """
    return answer_ids(opened, _prompt_ids(opened, prompts, options), options, tell)


def answer_ids(
    opened: OpenModel, ids: Sequence[Sequence[int]], options: Answering, tell: Callable[[int], None] = lambda count: None
) -> list[Answer]:
    """As ``answer``, for prompts that are token ids already."""
    _check_tokens(opened, ids)
    answers: dict[int, Answer] = {}
    pieces = Pieces(options.batch_size, "Ask for fewer new tokens with --max-new-tokens, or give a shorter prompt.")
    decoding: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "sampling": options.sampling}
    with opened.ready() as model:
        for members in batches(ids, options.batch_size):
            answers |= answer_in_pieces(model, opened.tokenizer, {i: ids[i] for i in members}, pieces, **decoding)
            tell(len(answers))
    return [answers[i] for i in range(len(ids))]


def follow(opened: OpenModel, prompt: str, options: Answering, show: Callable[[str], None], *, number: int = 0) -> Answer:
    """Answer one prompt and give ``show`` each piece of the text as soon as it is certain."""
    return _follow(opened, _prompt_ids(opened, [prompt], options)[0], options, show, number)


def _prompt_ids(opened: OpenModel, prompts: Sequence[str], options: Answering) -> list[list[int]]:
    task = opened.task
    assert isinstance(task, TextTask)
    return tokenised(prompts, task.prompt_ids, longest=room_for_prompt(opened.model, options.max_new_tokens), noun="prompt")


def follow_conversation(opened: OpenModel, turns: Sequence[Turn], options: Answering, show: Callable[[str], None]) -> Answer:
    """As ``follow``, for a conversation that ends with the user's turn. ``DataError`` where it does not fit or cannot be rendered."""
    assert isinstance(opened.task, TextTask)
    try:
        ids = opened.task.chat.conversation_ids(turns)
    except BadRecord as error:
        raise DataError(f"{error}.", hint="Without --multi-turn each prompt stands by itself.") from error
    longest = room_for_prompt(opened.model, options.max_new_tokens)
    if longest is not None and len(ids) > longest:
        raise DataError(
            f"The conversation is {len(ids):,} tokens long, and there is room for {longest:,}.", hint="/new begins another one."
        )
    return _follow(opened, ids, options, show, len(turns))


def _follow(opened: OpenModel, ids: Sequence[int], options: Answering, show: Callable[[str], None], number: int) -> Answer:
    _check_tokens(opened, [ids])
    text = GrowingText(opened.tokenizer, show)
    decoding: dict[str, Any] = {"max_new_tokens": options.max_new_tokens, "sampling": options.sampling}
    with opened.ready() as model:
        answers: Mapping[int, Answer] = answer_batch(model, opened.tokenizer, {number: ids}, watch=text.extend, **decoding)
    text.finish(answers[number].text)
    return answers[number]


def _check_tokens(opened: OpenModel, prompts: Sequence[Sequence[int]]) -> None:
    for number, ids in enumerate(prompts, start=1):
        opened.limits.check_ids(ids, f"prompt {number}")


class GrowingText:
    """The part of an answer's text that later tokens cannot change, shown as it grows."""

    def __init__(self, tokenizer: Any, show: Callable[[str], None]) -> None:
        self.tokenizer, self.show, self.shown = tokenizer, show, ""

    def extend(self, ids: Sequence[int]) -> None:
        """Show what is certain of ``ids``: not a character whose bytes are not all there, nor spaces that might be dropped."""
        text = self.tokenizer.decode(ids, skip_special_tokens=True).rstrip("\ufffd").rstrip()
        if text.startswith(self.shown):
            self._show(text)

    def finish(self, text: str) -> None:
        """Show the rest of the whole text."""
        if text.startswith(self.shown):
            self._show(text)

    def _show(self, text: str) -> None:
        if len(text) > len(self.shown):
            self.show(text[len(self.shown) :])
            self.shown = text
