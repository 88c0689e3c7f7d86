"""Prompts of stage two: the history, the lettered candidates, and the token that each letter is in that place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from string import ascii_uppercase
from typing import Any

from pitstop.configs.errors import ModelError
from pitstop.trainers.data.chat.renderer import ChatRenderer

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


def prompt(history: Sequence[str], candidates: Sequence[str]) -> str:
    """What the model is asked: the titles of the history, the oldest first, and up to 26 candidates."""
    titles = "\n".join(history)
    offered = "\n".join(f"{letter}. {title}" for letter, title in zip(ascii_uppercase, candidates, strict=False))
    return (
        f"A user's history, oldest first:\n{titles}\n\nCandidates:\n{offered}\n\n"
        "Which candidate comes next in this history? Answer with its letter."
    )


@dataclass(frozen=True)
class Letters:
    """Token ids: ``lead`` between the prompt and the letter (mostly none), ``ids`` of the letters A, B, …, and the ``end``.

    ``frame`` is the text before and behind what the model is asked.
    """

    frame: tuple[str, str]
    lead: tuple[int, ...]
    ids: tuple[int, ...]
    end: int


def find_letters(chat: ChatRenderer, count: int) -> Letters:
    """The first ``count`` letters as the tokenizer makes them behind a prompt, where they often differ from a bare letter's.

    Raises ``ModelError`` where a letter is not one token of its own there.
    """
    question = prompt(["x"], ["y", "z"])
    frame = _frame(chat, question)
    prefix = question.join(frame)
    tails = []
    for letter in ascii_uppercase[:count]:
        answer = chat.turn(question, letter)[1]
        place = answer.find(letter)
        if place < 0:
            raise _no_letters(f"the letter {letter} does not stand in an answer of it")
        tails.append(chat.tokens.answer_ids(prefix, answer[: place + 1]))
    leads, ids = {tuple(tail[:-1]) for tail in tails}, tuple(tail[-1] for tail in tails)
    if len(leads) > 1 or len(set(ids)) < count:
        raise _no_letters("they are not one token each")
    return Letters(frame, leads.pop(), ids, chat.end_id)


def _frame(chat: ChatRenderer, question: str) -> tuple[str, str]:
    """What stands around a question: the chat template's text, or without one a line that asks for the answer.

    Templates cost more time than tokenising, so one is rendered once. Raises ``ModelError`` where it changes what it is given.
    """
    if chat.template.text is None:
        return "", "\n\nAnswer:\n"
    head, middle, tail = chat.turn(question, "A")[0].partition(question)
    if not middle:
        raise _no_letters("the chat template changes the text of a prompt")
    return head, tail


def _ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _no_letters(reason: str) -> ModelError:
    return ModelError(
        f"The tokenizer cannot tell the letters of candidates apart: {reason}.",
        hint="Take another base model for rank: candidates are scored by the tokens of their letters.",
    )


def shorten(tokenizer: Any, title: str, max_tokens: int) -> str:
    """The title's first ``max_tokens`` tokens, without half a character at its end."""
    ids = _ids(tokenizer, title)
    if len(ids) <= max_tokens:
        return title
    return str(tokenizer.decode(ids[:max_tokens], clean_up_tokenization_spaces=False)).rstrip(_REPLACEMENT).strip()
