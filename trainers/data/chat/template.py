"""A chat template as a function: messages as text, with tools, documents and options, on a day that is given."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from functools import cached_property, lru_cache
from types import MappingProxyType
from typing import Any

from pitstop.trainers.data.chat.conversation import Conversation, Message
from pitstop.trainers.data.records import BadRecord

NO_TEMPLATE = "the model's tokenizer has no chat template; give prompt and completion instead"

OPENING, CLOSING = "\ue000", "\ue001"
"""Marks around what ``{% generation %}`` encloses: private characters that travel with the text."""

_TODAY = "strftime_now"
_DRAWN = re.compile(r"\|\s*random\b|\blipsum\s*\(")
_DIRECTIVE = re.compile(r"%[-_0^#]?[A-Za-z]")
_COMMENT = re.compile(r"\{#.*?#\}", re.DOTALL)
_TAG = re.compile(r"\{%([-+]?)\s*(end)?generation\s*([-+]?)%\}")
_GIVEN = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", "pad_token", "unk_token"}
)
_PROVIDED = frozenset({"raise_exception", "strftime_now", "namespace", "dict", "range", "cycler", "joiner", "lipsum"})


@dataclass(frozen=True)
class MessageForm:
    """The form in which a template takes messages: text as a list of parts, arguments of calls as JSON text, calls with empty content,
    thoughts under their older name as well.
    """

    parts: bool = False
    arguments_as_text: bool = False
    empty_content: bool = False
    thinking: bool = False

    def of(self, message: Message) -> Message:
        """``message`` in this form."""
        if self.thinking and "reasoning_content" in message:
            message = {"thinking": message["reasoning_content"], **message}
        calls = message.get("tool_calls")
        if calls and self.empty_content:
            message = {"content": "", **message}
        if calls and self.arguments_as_text:
            message = {**message, "tool_calls": [_with_text(call) for call in calls]}
        content = message.get("content")
        if self.parts and isinstance(content, str):
            message = {**message, "content": [{"type": "text", "text": content}]}
        return message


PLAIN_FORM = MessageForm()


def _with_text(call: Mapping[str, Any]) -> Mapping[str, Any]:
    function = call["function"]
    return {**call, "function": {**function, "arguments": json.dumps(function["arguments"], ensure_ascii=False)}}


class ChatTemplate:
    """Renders messages as ``tokenizer``, which stays as it is, does when it is served, by its template or by the text ``source``.

    A template that asks for the date is told ``day``, at midnight; by default the day on which it was first asked for here. ``form`` is
    how it takes messages, ``origin`` where it is from. Whatever a template, which is a program, stumbles over is a ``BadRecord``.
    """

    def __init__(
        self, tokenizer: Any, day: date | None = None, *, source: str | None = None, origin: str = "the tokenizer's"
    ) -> None:
        self._tokenizer, self._day, self._source, self._origin = tokenizer, day, source, origin
        self.form = PLAIN_FORM

    @property
    def asks_for_date(self) -> bool:
        """Whether what it renders depends on the day."""
        return _TODAY in (self.text or "")

    @cached_property
    def day(self) -> date | None:
        """What day the template is told; None where it does not ask."""
        return (self._day or datetime.now().date()) if self.asks_for_date else None

    @property
    def draws(self) -> str | None:
        """What the template draws at random with, so that it writes another text each time; None where it does not."""
        match = _DRAWN.search(self.text or "")
        return match[0].strip("| (") if match else None

    @property
    def digest(self) -> str | None:
        """SHA-256 of the template; None where there is none."""
        return None if self.text is None else hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def text(self) -> str | None:
        """The template itself: of several of the tokenizer's the one named ``default``. None where it has none."""
        if self._source is not None:
            return self._source
        return None if self._tokenizer.chat_template is None else str(self._tokenizer.get_chat_template())

    @property
    def in_words(self) -> str:
        """Which template it is, for people: the beginning of the SHA-256 of its text, and the day that it is told."""
        digest = self.digest
        if digest is None:
            return "none: questions and answers stand one behind the other"
        day = "" if self.day is None else f", with the date {self.day}"
        return f"{self._origin}, {digest[:12]}{day}"

    @cached_property
    def has_tags(self) -> bool:
        """Whether it tags what is generated."""
        return _TAG.search(_COMMENT.sub("", self.text or "")) is not None

    def names(self, word: str) -> bool:
        """Whether ``word`` stands in the template."""
        return word in (self.text or "")

    @property
    def fault(self) -> str | None:
        """Why it is no template, with the line; None where it is one."""
        return _parsed(self.text or "")[0]

    @property
    def variables(self) -> frozenset[str]:
        """The names that it looks at without setting them, beside what it is always given: its options. None of a text that is no template."""
        return _parsed(self.text or "")[1]

    def render(
        self,
        messages: Sequence[Message],
        *,
        generation_prompt: bool,
        tools: Sequence[Any] = (),
        documents: Sequence[Any] = (),
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The conversation as the template writes it."""
        return self._render(self._pinned, messages, generation_prompt, tools, documents, options)

    def render_first(
        self, conversation: Conversation, count: int, options: Mapping[str, Any], *, generation_prompt: bool = False
    ) -> str:
        """The first ``count`` messages of ``conversation``, with its tools and documents."""
        messages = conversation.messages[:count]
        return self._render(self._pinned, messages, generation_prompt, conversation.tools, conversation.documents, options)

    def render_marked(self, conversation: Conversation, count: int, options: Mapping[str, Any]) -> str:
        """As ``render_first``, with ``OPENING`` and ``CLOSING`` around what the template tags as generated."""
        messages = conversation.messages[:count]
        return self._render(self._marked, messages, False, conversation.tools, conversation.documents, options)

    @property
    def _pinned(self) -> str | None:
        return self._source if self.day is None else dated(self.text or "", self.day)

    @cached_property
    def _marked(self) -> str:
        return _TAG.sub(_with_mark, self._pinned or self.text or "")

    def _render(
        self,
        text: str | None,
        messages: Sequence[Message],
        generation_prompt: bool,
        tools: Sequence[Any],
        documents: Sequence[Any],
        options: Mapping[str, Any],
    ) -> str:
        from jinja2 import TemplateError

        if self.form != PLAIN_FORM:
            messages = [self.form.of(message) for message in messages]
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    documents=list(documents) or None,
                    chat_template=text,
                    tokenize=False,
                    add_generation_prompt=generation_prompt,
                    **options,
                )
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise BadRecord(f"the chat template refuses it: {error}") from error


@lru_cache
def _parsed(text: str) -> tuple[str | None, frozenset[str]]:
    """``fault`` and ``variables`` of a template, which takes tens of milliseconds of a long one."""
    from jinja2 import Environment, TemplateError, meta

    untagged = _TAG.sub(lambda tag: "{%" + tag[1] + (" endif " if tag[2] else " if true ") + tag[3] + "%}", text)
    try:
        tree = Environment(extensions=["jinja2.ext.loopcontrols"]).parse(untagged)
        return None, frozenset(meta.find_undeclared_variables(tree)) - _GIVEN - _PROVIDED
    except TemplateError as error:  # of the latter a filter that there is not
        return f"{error.message} (line {getattr(error, 'lineno', 1)})", frozenset()


def _with_mark(tag: re.Match[str]) -> str:
    """The tag with its mark inside; control of white space stays at the outer sides."""
    before, is_end, behind = tag.groups()
    if is_end:
        return f"{{%{before} if true %}}{CLOSING}{{% endif %}}{{% endgeneration {behind}%}}"
    return f"{{%{before} generation %}}{{% if true %}}{OPENING}{{% endif {behind}%}}"


@lru_cache
def dated(template: str, day: date) -> str:
    """``template`` with a macro in front that answers for ``strftime_now``, which says what day it is, at midnight of ``day``.

    A macro, since transformers hands a template neither functions nor dates; it replaces the directives that the template names, or
    any letter's where it names none. The line break behind it belongs to the tag (``trim_blocks``), so that the template begins a line.
    """
    midnight = datetime(day.year, day.month, day.day)
    directives = dict.fromkeys(_DIRECTIVE.findall(template)) or [
        f"%{letter}" for letter in "aAbBcdDeFgGhHIjmMnpPrRsStTuUVwWxXyYzZ"
    ]
    table = json.dumps({directive: midnight.strftime(directive) for directive in directives}, ensure_ascii=False)
    return (
        f"{{% macro {_TODAY}(format) %}}{{% for part in format.split('%%') %}}{{{{ '' if loop.first else '%' }}}}"
        f"{{% set dated = namespace(text=part) %}}{{% for directive, value in {table}.items() %}}"
        "{% set dated.text = dated.text.replace(directive, value) %}{% endfor %}{{ dated.text }}{% endfor %}{% endmacro %}\n"
    ) + template
