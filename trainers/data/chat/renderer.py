"""The chat renderer: records and messages as token ids, and which of them are learnt.

Every task of text renders through it, and so does generation: a prompt's tokens are those that training saw.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from functools import cached_property
from typing import Any

from pitstop.trainers.data.chat.conversation import Form, RenderedExample, Stretch
from pitstop.trainers.data.chat.first_version import Fields, FirstTokens, Segment, segments_of
from pitstop.trainers.data.chat.segments import segments_of_form
from pitstop.trainers.data.chat.template import ChatTemplate, Message
from pitstop.trainers.data.chat.tokens import Tokens, special_tokens
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord


class ChatRenderer:
    """Turns the fields of a record or its normal form, or the messages of a conversation, into token ids by the tokenizer's chat template.

    A tokenizer without a template has prompt and completion one after the other. Whatever cannot be rendered raises ``BadRecord``.
    ``version`` is the rendering's: 1 tokenises each segment by itself, as runs of earlier versions do. ``day`` is what a template that
    asks for the date is told, by default today.
    """

    def __init__(self, tokenizer: Any, *, version: int = 2, day: date | None = None) -> None:
        self.tokenizer = tokenizer
        self.template = ChatTemplate(tokenizer, day)
        self.tokens = Tokens(tokenizer)
        self._first = FirstTokens(tokenizer) if version == 1 else None
        self._ends = tuple(special_tokens(tokenizer).values())

    def encode(self, fields: Fields | Form) -> Example:
        """Tokenise one record. Raises ``BadRecord`` with the reason it cannot be used."""
        example = self.encode_all([fields])[0]
        if isinstance(example, BadRecord):
            raise example
        return example

    def encode_all(self, records: Sequence[Fields | Form]) -> list[Example | BadRecord]:
        """The example of each record, or why it has none, with a few calls of the tokenizer for all."""
        rendered = [self._segments(fields) for fields in records]
        segments = [item for item in rendered if not isinstance(item, BadRecord)]
        if self._first is not None:
            examples = iter(self._first.examples_of(segments))
        else:
            examples = iter(self.tokens.examples_of([self._closed(item) for item in segments]))
        return [item if isinstance(item, BadRecord) else next(examples) for item in rendered]

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids that ``prompt`` has in front of a completion: what generation starts from."""
        return self.opening_ids(self.turn(prompt, "x")[0])

    def opening_ids(self, text: str) -> list[int]:
        """The token ids of a text that begins a conversation as the template renders it, with its BOS."""
        return self.tokens.prompt_ids(text)

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids in front of the assistant's next turn, each earlier turn tokenised as training did.

        The last message is the user's. Raises ``BadRecord`` where there is no chat template, or it refuses them.
        """
        context = segments_of({"messages": [*messages, {"role": "assistant", "content": "x"}]}, self.template)[:-1]
        return self._first.context_ids(context) if self._first else self.opening_ids("".join(text for text, _ in context))

    def turn(self, prompt: str, completion: str) -> tuple[str, str]:
        """The text in front of an answer, and what becomes of ``completion`` behind it, with whatever the template adds."""
        (prefix, _), (answer, _) = segments_of({"prompt": prompt, "completion": completion}, self.template)
        return prefix, answer

    @cached_property
    def end_id(self) -> int:
        """The token that training puts behind an assistant's last turn: the template's, or the end of sequence."""
        return int(self.encode({"prompt": "x", "completion": "x"}).input_ids[-1])

    def _segments(self, fields: Fields | Form) -> list[Segment] | BadRecord:
        try:
            if isinstance(fields, Mapping):
                return segments_of(fields, self.template)
            return segments_of_form(fields, self.template)
        except BadRecord as error:
            return error

    def _closed(self, segments: Sequence[Segment]) -> RenderedExample:
        """An answer is learnt up to and with its end token; what a template puts behind the last one is dropped.

        A last one that ends without any special token gets the tokenizer's end of sequence.
        """
        stretches: list[Stretch] = []
        for text, learnt in segments:
            ended = text.rstrip()
            if learnt and ended.endswith(self._ends):
                stretches += [Stretch(ended, True), Stretch(text[len(ended) :], False)]
            else:
                stretches.append(Stretch(text, learnt))
        if stretches[-1].learnt:
            return RenderedExample(stretches, add_eos=True)
        return RenderedExample(stretches[:-1])
