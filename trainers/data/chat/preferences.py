"""Questions with a better and a worse answer as token ids: the question once, and both answers behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pitstop.trainers.data.chat.conversation import Conversation, Preference, TextPair
from pitstop.trainers.data.chat.renderer import ChatRenderer, Encoded
from pitstop.trainers.data.chat.rendering import Rendering
from pitstop.trainers.data.example import Example, PreferenceExample
from pitstop.trainers.data.records import BadRecord


@dataclass(frozen=True)
class _Rendered:
    """A preference, its prompt, and the rendering with an example of each of its answers."""

    form: Preference
    prompt: str
    rendering: Rendering


def encode_preferences(chat: ChatRenderer, forms: Sequence[Preference]) -> list[Encoded | BadRecord]:
    """The example of each, or why it has none, with a few calls of the tokenizer for all."""
    rendered = [_rendered(chat, form) for form in forms]
    texts = [example for item in rendered if isinstance(item, _Rendered) for example in item.rendering.examples]
    examples = iter(chat.tokens.examples_of(texts))
    encoded: list[Encoded | BadRecord] = []
    for item in rendered:
        if isinstance(item, _Rendered):
            sides = [next(examples) for _ in item.rendering.examples]  # also those of a record that has no example
            encoded.append(_encoded(chat, item, sides))
        else:
            encoded.append(item)
    return encoded


def _rendered(chat: ChatRenderer, form: Preference) -> _Rendered | BadRecord:
    try:
        conversations = [answer for answer in form.answers if isinstance(answer, Conversation)]
        if conversations:
            return _Rendered(form, *chat.render_alike(conversations))
        pairs = [answer for answer in form.answers if isinstance(answer, TextPair)]
        examples = [chat.closed(pair.prompt, pair.completion) for pair in pairs]
        return _Rendered(form, pairs[0].prompt, Rendering(examples))
    except BadRecord as error:
        return error


def _encoded(chat: ChatRenderer, item: _Rendered, sides: Sequence[Example | BadRecord]) -> Encoded | BadRecord:
    ready: list[Example] = []
    for side in sides:
        if isinstance(side, BadRecord):
            return side
        ready.append(side)
    prompt = chat.opening_ids(item.prompt)
    start = len(prompt)
    if any(side.input_ids[:start].tolist() != prompt or side.supervised[:start].any() for side in ready):
        return BadRecord("its prompt has other tokens in front of its answers")
    if len(ready) == 2 and np.array_equal(ready[0].input_ids, ready[1].input_ids):
        return BadRecord("the two answers have the same tokens")
    example = PreferenceExample(
        np.concatenate([ready[0].input_ids, *(side.input_ids[start:] for side in ready[1:])]),
        np.concatenate([ready[0].supervised, *(side.supervised[start:] for side in ready[1:])]),
        answers=sum(rendered.answers for rendered in item.rendering.examples),
        prompt_length=start,
        chosen_length=0 if item.form.chosen is None else ready[0].input_ids.size - start,
        margin=item.form.margin,
    )
    return Encoded([example], item.rendering.unlearnt, item.rendering.notices)
