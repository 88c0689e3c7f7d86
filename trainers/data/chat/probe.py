"""What a template renders at all: rare words stand in for each thing that a record may say, and are looked for in what comes out."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import product
from typing import Any

from pitstop.trainers.data.chat.added_tokens import AddedTokens, common_prefix
from pitstop.trainers.data.chat.conversation import Conversation, Message
from pitstop.trainers.data.chat.learnt import unmarked
from pitstop.trainers.data.chat.options import thinking_variable
from pitstop.trainers.data.chat.template import ChatTemplate, MessageForm
from pitstop.trainers.data.chat.thought import opens_thought
from pitstop.trainers.data.records import BadRecord

_QUESTION, _ANSWER, _SECOND_QUESTION = "quorvex", "brindolf", "wumbrell"
_SYSTEM, _THOUGHT, _RESULT = "sablethorn", "mizzlewick", "tarnhollow"
_TOOL = {
    "type": "function",
    "function": {
        "name": "fennimore",
        "description": "grovelark",
        "parameters": {
            "type": "object",
            "properties": {"ospridge": {"type": "string", "description": "a word"}},
            "required": ["ospridge"],
        },
    },
}
_CALL = {"id": "call00001", "type": "function", "function": {"name": "fennimore", "arguments": {"ospridge": "yarrowby"}}}
_USER = {"role": "user", "content": _QUESTION}
_SYSTEM_MESSAGE = {"role": "system", "content": _SYSTEM}
_REPLY = {"role": "assistant", "content": _ANSWER}
_CALLS = {"role": "assistant", "tool_calls": [_CALL]}
_TOOL_RESULT = {"role": "tool", "name": "fennimore", "tool_call_id": "call00001", "content": _RESULT}


_THINKING_FIELD = re.compile(r"\bthinking\b")
"""The name of a thought in templates of gpt-oss, which newer versions of transformers fill in and older ones do not."""


_SENTENCE = 4
"""Words; fewer are a heading, or a date."""


class Probe:
    """What ``template`` renders; each thing is tried when it is first asked about, behind a system message where nothing renders without.

    Making one sets the form in which the template takes messages.
    """

    def __init__(self, template: ChatTemplate, tokens: AddedTokens) -> None:
        self.template, self.tokens = template, tokens
        self._find_text_form()

    def _find_text_form(self) -> None:
        """Text as it is where that comes out, as a part where only that does.

        Where neither does, ``text`` is false; a template that refuses even this says of each record why.
        """
        self.text = False
        thinking = _THINKING_FIELD.search(self.template.text or "") is not None
        for self._lead, parts in product(([], [_SYSTEM_MESSAGE]), (False, True)):
            self.template.form = MessageForm(parts=parts, thinking=thinking)
            if self._renders([_USER, _REPLY], _QUESTION, _ANSWER):
                self.text = True
                return
        self.template.form = MessageForm(thinking=thinking)
        try:
            self._render([_USER, _REPLY])
        except BadRecord:
            self.text = True

    @cached_property
    def system(self) -> bool:
        """Whether a system text comes out."""
        messages = [_USER, _REPLY] if self._lead else [_SYSTEM_MESSAGE, _USER, _REPLY]
        return self._renders(messages, _SYSTEM, _QUESTION, _ANSWER)

    @cached_property
    def tools(self) -> bool:
        """Whether a tool's name, description and parameter come out."""
        return self._renders([_USER, _REPLY], "fennimore", "grovelark", "ospridge", tools=[_TOOL])

    @cached_property
    def calls(self) -> bool:
        """Whether a call's name, key and value come out, in the form that is found for it."""
        form = self.template.form
        for as_text, empty in product((False, True), repeat=2):
            self.template.form = replace(form, arguments_as_text=as_text, empty_content=empty)
            try:
                rendering = self._render([_USER, _CALLS])
            except BadRecord:
                continue
            if all(word in rendering for word in ("fennimore", "ospridge", "yarrowby")):
                return True
            break  # it took them, and they vanished
        self.template.form = form
        return False

    @cached_property
    def results(self) -> bool:
        """Whether what a tool gave comes out behind a call."""
        return self._renders([_USER, *self._called, _TOOL_RESULT, _REPLY], _RESULT)

    @property
    def _called(self) -> list[Message]:
        return [_CALLS if self.calls else _REPLY]

    @cached_property
    def thought(self) -> bool:
        """Whether the thought of a last answer comes out, with the template's own options or asked for a thought."""
        messages = [_USER, {**_REPLY, "reasoning_content": _THOUGHT}]
        variable = thinking_variable(self.template)
        return self._renders(messages, _THOUGHT) or (
            variable is not None and self._renders(messages, _THOUGHT, options={variable: True})
        )

    @cached_property
    def cue_opens_thought(self) -> bool:
        """Whether the generation prompt ends in a thought that is opened."""
        try:
            prompt = self.template.render([*self._lead, _USER], generation_prompt=True)
        except BadRecord:
            return False
        return opens_thought(prompt[prompt.rfind("<think>") :]) if "<think>" in prompt else False

    @cached_property
    def tagged_elsewhere(self) -> str:
        """What the template tags as generated that is no answer, in words; nothing where all tags stand around answers or are ignored."""
        if not self.template.has_tags:
            return ""
        messages: list[Message] = [_USER, _REPLY, {"role": "user", "content": _SECOND_QUESTION}, _REPLY]
        if self.system and not self._lead:
            messages = [_SYSTEM_MESSAGE, *messages]
        spans = self._tagged(messages)
        if any(_QUESTION in text or _SECOND_QUESTION in text for _, text in spans):
            return "questions"
        if any(_SYSTEM in text for _, text in spans):
            return "the system text"
        if any(_QUESTION not in before for before, _ in spans):
            return "text in front of the first question"
        if self.results and any(_RESULT in text for _, text in self._tagged([_USER, *self._called, _TOOL_RESULT, _REPLY])):
            return "what tools give"
        return ""

    def _tagged(self, messages: Sequence[Message]) -> list[tuple[str, str]]:
        """Texts that are tagged, each behind all that stands before it; none where the tags change what is written."""
        conversation = Conversation([*self._lead, *messages], [False] * (len(self._lead) + len(messages)))
        try:
            text, spans = unmarked(self.template.render_marked(conversation, len(conversation.messages), {}))
            is_alike = text == self._render(messages)
        except BadRecord:
            return []
        return [(text[:start], text[start:stop]) for start, stop in spans if text[start:stop].strip()] if is_alike else []

    @cached_property
    def own_system_text(self) -> str:
        """What the template puts in front of a first question and not of a second one, without its tokens; nothing where that is no sentence."""
        try:
            rendering = self.template.render(
                [_USER, _REPLY, {"role": "user", "content": _SECOND_QUESTION}], generation_prompt=False
            )
        except BadRecord:
            return ""
        if not all(word in rendering for word in (_QUESTION, _ANSWER, _SECOND_QUESTION)):
            return ""
        first = rendering[: rendering.index(_QUESTION)]
        second = rendering[rendering.index(_ANSWER) + len(_ANSWER) : rendering.index(_SECOND_QUESTION)]
        header = common_prefix(first[::-1], second[::-1])
        text = " ".join(self.tokens.without(first[: len(first) - header]).split()).removeprefix("system ")
        return text if len(text.split()) >= _SENTENCE else ""

    def _renders(
        self, messages: Sequence[Message], *words: str, tools: Sequence[Any] = (), options: Mapping[str, Any] | None = None
    ) -> bool:
        try:
            rendering = self._render(messages, tools, options)
        except BadRecord:
            return False
        return all(word in rendering for word in words)

    def _render(self, messages: Sequence[Message], tools: Sequence[Any] = (), options: Mapping[str, Any] | None = None) -> str:
        return self.template.render([*self._lead, *messages], generation_prompt=False, tools=tools, options=options or {})
