"""The chat renderer: records and messages as token ids, and which of them are learnt.

Every task of text renders through it, and so does generation: a prompt's tokens are those that training saw.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import date
from functools import cached_property
from typing import Any

from pitstop.configs.errors import SettingsError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.chat.added_tokens import AddedTokens, stop_tokens
from pitstop.trainers.data.chat.conversation import Conversation, Form, Message, RenderedExample, Stretch, TextPair
from pitstop.trainers.data.chat.first_version import Fields, FirstTokens, Segment, segments_of
from pitstop.trainers.data.chat.options import RenderingOptions
from pitstop.trainers.data.chat.rendering import ConversationRenderer, Rendering
from pitstop.trainers.data.chat.template import NO_TEMPLATE, ChatTemplate
from pitstop.trainers.data.chat.tokens import Tokens
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord

_DEFAULT_OPTIONS = RenderingOptions()
_ANSWER = "pitstop answers"


@dataclass(frozen=True)
class Encoded:
    """The examples of a record; the reasons for which answers of it are not learnt, each with their number; and what else there is to
    tell.
    """

    examples: Sequence[Example]
    unlearnt: Sequence[Notice] = ()
    notices: Sequence[Notice] = ()


class ChatRenderer:
    """Turns records, or the messages of a conversation, into token ids by the tokenizer's chat template.

    A tokenizer without a template has prompt and completion one after the other. Whatever cannot be rendered raises ``BadRecord``.
    ``version`` is the rendering's: 2 takes records in their normal form, 1 their fields, and tokenises each segment by itself, as runs
    of earlier versions do. ``day`` is what a template that asks for the date is told, by default today; ``origin`` says where the
    template is from.
    """

    def __init__(
        self,
        tokenizer: Any,
        *,
        version: int = 2,
        day: date | None = None,
        options: RenderingOptions = _DEFAULT_OPTIONS,
        origin: str = "the tokenizer's",
    ) -> None:
        self.tokenizer, self.options = tokenizer, options
        self.template = ChatTemplate(tokenizer, day, origin=origin)
        self.tokens = Tokens(tokenizer)
        self._added = AddedTokens.of(tokenizer)
        self._first = FirstTokens(tokenizer) if version == 1 else None
        self.stops = stop_tokens(tokenizer)
        self._by_source: dict[str, ConversationRenderer] = {}

    def encode(self, record: Fields | Form) -> Example:
        """Tokenise a record of one example. Raises ``BadRecord`` with the reason it cannot be used."""
        (example,) = self.examples(record)
        return example

    def examples(self, record: Fields | Form) -> list[Example]:
        """The examples of a record. Raises ``BadRecord`` with the reason it has none."""
        encoded = self.encode_all([record])[0]
        if isinstance(encoded, BadRecord):
            raise encoded
        return list(encoded.examples)

    def encode_all(self, records: Sequence[Fields | Form]) -> list[Encoded | BadRecord]:
        """The examples of each record, or why it has none, with a few calls of the tokenizer for all."""
        if self._first is not None:
            return self._encode_first(self._first, records)
        rendered = [self._rendered(record) for record in records]
        texts = [example for item in rendered if not isinstance(item, BadRecord) for example in item.examples]
        examples = iter(self.tokens.examples_of(texts))
        return [
            item if isinstance(item, BadRecord) else _encoded(item, [next(examples) for _ in item.examples]) for item in rendered
        ]

    def pair(self, prompt: str, completion: str) -> Fields | Form:
        """A question and its answer as a record. Raises ``BadRecord`` for an empty answer."""
        if self._first is not None:
            return {"prompt": prompt, "completion": completion}
        if not completion.strip():
            raise BadRecord("the completion is empty")
        if self.template.text is None:
            return TextPair(prompt, completion)
        return Conversation([{"role": "user", "content": prompt}, {"role": "assistant", "content": completion}], [False, True])

    def prompt_ids(self, prompt: str) -> list[int]:
        """The token ids that ``prompt`` has in front of a completion: what generation starts from."""
        if self.options.asked is not None:
            return self.conversation_ids([{"role": "user", "content": prompt}])
        return self.opening_ids(self.turn(prompt, "x")[0])

    def opening_ids(self, text: str) -> list[int]:
        """The token ids of a text that begins a conversation as the template renders it, with its BOS."""
        return self.tokens.prompt_ids(text)

    def conversation_ids(self, messages: Sequence[Message]) -> list[int]:
        """The token ids in front of the assistant's next turn, each earlier turn tokenised as training did.

        The last message is the user's. Raises ``BadRecord`` where there is no chat template, or it refuses them.
        """
        if self._first is not None:
            answered = {"messages": [*messages, {"role": "assistant", "content": "x"}]}
            return self._first.context_ids(segments_of(answered, self.template)[:-1])
        conversation = Conversation(messages, [False] * len(messages))
        return self.opening_ids(self._renderer_of(conversation).prompt(conversation))

    def turn(self, prompt: str, completion: str) -> tuple[str, str]:
        """The text in front of an answer, and what becomes of ``completion`` behind it, with whatever the template adds."""
        pair = self.pair(prompt, completion)
        if isinstance(pair, Mapping):
            (prefix, _), (answer, _) = segments_of(pair, self.template)
            return prefix, answer
        (rendered,) = self._render(pair).examples
        texts = [stretch.text for stretch in rendered.stretches]
        start = next(number for number, stretch in enumerate(rendered.stretches) if stretch.learnt)
        return "".join(texts[:start]), "".join(texts[start:])

    @cached_property
    def end_id(self) -> int:
        """The token that training puts behind an assistant's last turn: the template's, or the end of sequence."""
        return int(self.encode(self.pair("x", "x")).input_ids[-1])

    def template_notices(self) -> list[Notice]:
        """What is to be told of the templates that were used."""
        return [notice for renderer in self._by_source.values() for notice in renderer.template_notices()]

    def render_alike(self, conversations: Sequence[Conversation]) -> tuple[str, Rendering]:
        """The prompt of conversations that part at an answer, and one example of each. Raises ``BadRecord``."""
        return self._renderer_of(conversations[0]).render_alike(conversations)

    def closed(self, prompt: str, text: str) -> RenderedExample:
        """``text`` behind ``prompt`` as they stand, learnt up to and with its end token.

        One that ends without any gets the tokenizer's end of sequence.
        """
        own, end = self._added.end_of(text)
        stretches = [Stretch(prompt, learnt=False), Stretch(text[:end], learnt=True)]
        return RenderedExample(stretches if prompt else stretches[1:], add_eos=own == end)

    def end_notices(self) -> list[Notice]:
        """What is to be told where the template ends answers in ordinary text: that nothing stops there."""
        try:
            messages = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": _ANSWER}]
            tail = self.template.render(messages, generation_prompt=False).rpartition(_ANSWER)[2].strip()
        except BadRecord:  # each record says why
            return []
        own, end = self._added.end_of(tail)
        if not tail or own < end:
            return []
        count = len(self.tokenizer(tail, add_special_tokens=False)["input_ids"])
        tokens = f"{count} token{'s' if count > 1 else ''}"
        return [Notice("{subject}", f"{tail!r} is {tokens} here; generation stops at {self.tokenizer.eos_token!r} behind it")]

    def check_options(self) -> None:
        """Raises ``SettingsError`` for options that the template does not know, and for any where there is none."""
        if self.template.text is not None:
            self.options.check(self.template)
        elif (options := replace(self.options, asked=None)) != _DEFAULT_OPTIONS:
            changed = next(item.name for item in fields(options) if getattr(options, item.name) != item.default)
            raise SettingsError(
                f"The tokenizer has no chat template, which the setting of {changed.replace('_', ' ')} is for.",
                hint="Leave it out.",
            )

    def _encode_first(self, first: FirstTokens, records: Sequence[Fields | Form]) -> list[Encoded | BadRecord]:
        rendered: list[list[Segment] | BadRecord] = []
        for record in records:
            assert isinstance(record, Mapping)
            try:
                rendered.append(segments_of(record, self.template))
            except BadRecord as error:
                rendered.append(error)
        examples = iter(first.examples_of([item for item in rendered if not isinstance(item, BadRecord)]))
        encoded = [item if isinstance(item, BadRecord) else next(examples) for item in rendered]
        return [item if isinstance(item, BadRecord) else Encoded([item]) for item in encoded]

    def _rendered(self, record: Fields | Form) -> Rendering | BadRecord:
        assert not isinstance(record, Mapping)
        try:
            return self._render(record)
        except BadRecord as error:
            return error

    def _render(self, form: Form) -> Rendering:
        if isinstance(form, Conversation):
            return self._renderer_of(form).render(form)
        if isinstance(form, TextPair):
            return Rendering([self.closed(form.prompt, form.completion)])
        return Rendering([replace(self.closed("", form.text), answers=0)])

    def _renderer_of(self, conversation: Conversation) -> ConversationRenderer:
        """Of several templates ``tool_use`` serves conversations with tools, ``default`` the others."""
        if self.template.text is None:
            raise BadRecord(NO_TEMPLATE)
        source = str(self.tokenizer.get_chat_template(tools=list(conversation.tools) or None))
        if source not in self._by_source:
            template = ChatTemplate(self.tokenizer, self.template.day, source=source)
            self._by_source[source] = ConversationRenderer(template, self._added, self.options, stops=self.stops)
        return self._by_source[source]


def _encoded(rendering: Rendering, examples: Sequence[Example | BadRecord]) -> Encoded | BadRecord:
    """The examples of a record with their answers, or the first error of one."""
    counted = []
    for rendered, example in zip(rendering.examples, examples, strict=True):
        if isinstance(example, BadRecord):
            return example
        counted.append(replace(example, answers=rendered.answers, options=_as_json(rendered.options)))
    return Encoded(counted, rendering.unlearnt, rendering.notices)


def _as_json(options: Mapping[str, Any] | None) -> str:
    if options is None:
        return ""
    return json.dumps(options, ensure_ascii=False, sort_keys=True, default=str) if options else "{}"
