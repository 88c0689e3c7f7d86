"""The tokens of an example as text: decoded from their ids, so that what is shown is what the model gets."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pitstop.configs.secrets import mask
from pitstop.configs.shown import printable
from pitstop.trainers.data.example import Example, PreferenceExample

_CONTEXT = 8
"""Tokens in front of a stretch that are decoded with it: by themselves many tokenizers drop a space at the beginning."""

LEARNT = ("⟦", "⟧")
"""Stand around what is learnt where there are no colours."""


@dataclass(frozen=True)
class TokenText:
    """Neighbouring tokens that are all learnt, or none of them: their ids and text. Where some are left out, ``omitted`` counts them."""

    text: str
    learnt: bool
    ids: tuple[int, ...] = ()
    omitted: int = 0


def part_texts(
    example: Example, tokenizer: Any, *, single: bool = False, longest: int | None = None
) -> dict[str, list[TokenText]]:
    """The ``token_texts`` of an example by the names of its parts: a preference has a prompt and answers, any other one part without name."""
    if not isinstance(example, PreferenceExample):
        return {"": token_texts(example, tokenizer, single=single, longest=longest)}
    front = example.prompt_length
    prompt = Example(example.input_ids[:front], example.supervised[:front])
    parts = {"prompt": token_texts(prompt, tokenizer, single=single, longest=longest)}
    for name, side in example.sides.items():
        parts[name] = token_texts(side, tokenizer, single=single, longest=longest, front=front)
    return parts


def token_texts(
    example: Example, tokenizer: Any, *, single: bool = False, longest: int | None = None, front: int = 0
) -> list[TokenText]:
    """The example in stretches, or token by token (``single``), without the first ``front`` tokens.

    Of a stretch of more than ``longest`` tokens the middle is left out.
    """
    texts: list[TokenText] = []
    for first, end in stretches(example.supervised):
        start = max(first, front)
        if start >= end:
            continue
        learnt = bool(example.supervised[start])
        if longest is not None and end - start > longest:
            head = start + longest // 2
            tail = end - (longest - longest // 2)
            texts += _decoded(example, start, head, tokenizer, single)
            texts.append(TokenText("", learnt, omitted=tail - head))
            texts += _decoded(example, tail, end, tokenizer, single)
        else:
            texts += _decoded(example, start, end, tokenizer, single)
    return texts


def stretches(supervised: np.ndarray) -> list[tuple[int, int]]:
    """Begin and end of each run of tokens that are all learnt, or none of them."""
    changes = (np.flatnonzero(np.diff(supervised)) + 1).tolist()
    bounds = [0, *changes, len(supervised)]
    return [(start, end) for start, end in itertools.pairwise(bounds) if end > start]


def _decoded(example: Example, start: int, end: int, tokenizer: Any, single: bool) -> list[TokenText]:
    ids, learnt = example.input_ids.tolist(), bool(example.supervised[start])
    if not single:
        return [TokenText(_text(ids, start, end, tokenizer), learnt, tuple(ids[start:end]))]
    return [TokenText(_token(ids, number, tokenizer), learnt, (ids[number],)) for number in range(start, end)]


def _token(ids: Sequence[int], number: int, tokenizer: Any) -> str:
    """The text of one token; one that is a part of a character only, as the vocabulary writes it."""
    alone = _decode(ids[number : number + 1], tokenizer)
    if not alone or "\ufffd" in alone:
        return str(tokenizer.convert_ids_to_tokens(ids[number]))
    return _text(ids, number, number + 1, tokenizer)


def _text(ids: Sequence[int], start: int, end: int, tokenizer: Any) -> str:
    context = ids[max(0, start - _CONTEXT) : start]
    before = _decode(context, tokenizer)
    text = _decode([*context, *ids[start:end]], tokenizer)
    while not text.startswith(before):  # the context ends within a character
        before = before[:-1]
    return text[len(before) :]


def _decode(ids: Sequence[int], tokenizer: Any) -> str:
    return str(tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False)) if ids else ""


def shown(text: str) -> str:
    """``text`` in one line: line breaks as ↵, tabs as ⇥, and whatever would control a terminal spelt out."""
    return printable(text.replace("\n", "↵").replace("\t", "⇥"))


def marked(texts: Sequence[TokenText]) -> str:
    """All of ``texts`` in one line, what is learnt in ⟦ ⟧."""
    line, learnt = "", False
    for part in texts:
        if part.learnt != learnt:
            line += LEARNT[learnt]
            learnt = part.learnt
        line += f" … {part.omitted:,} tokens … " if part.omitted else shown(part.text)
    return line + (LEARNT[1] if learnt else "")


def in_short(example: Example, tokenizer: Any, characters: int) -> str:
    """The example as ``marked`` writes it, without secrets, in at most so many ``characters``: with less and less of each stretch."""
    line = mask(marked(token_texts(example, tokenizer)))
    longest = len(example)
    while len(line) > characters and longest > 2:
        longest = max(2, longest * 2 // 3)
        line = mask(marked(token_texts(example, tokenizer, longest=longest)))
    return line if len(line) <= characters else f"{line[: characters - 1]}…"
