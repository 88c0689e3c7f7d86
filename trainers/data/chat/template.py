"""A tokenizer's chat template: what it renders, and on which day."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from functools import cached_property
from types import MappingProxyType
from typing import Any

from pitstop.trainers.data.records import BadRecord

Message = Mapping[str, Any]
"""``role`` and ``content``, and what else a template may write of it."""

_TODAY = "strftime_now"
_DRAWN = re.compile(r"\|\s*random\b|\blipsum\s*\(")
_DIRECTIVE = re.compile(r"%[-_0^#]?[A-Za-z]")


class ChatTemplate:
    """Renders messages by the template of ``tokenizer``, which stays as it is.

    A template that asks for the date is told ``day``, at midnight; by default the day on which it was first asked for here.
    """

    def __init__(self, tokenizer: Any, day: date | None = None) -> None:
        self._tokenizer, self._day = tokenizer, day

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
        """The template itself: of several the one named ``default``. None where the tokenizer has none."""
        return None if self._tokenizer.chat_template is None else str(self._tokenizer.get_chat_template())

    @property
    def in_words(self) -> str:
        """Which template it is, for people: the beginning of the SHA-256 of its text, and the day that it is told."""
        if self.text is None:
            return "none: questions and answers stand one behind the other"
        day = (
            ""
            if not self.asks_for_date
            else ", with the date of the start"
            if self.day is None
            else f", with the date {self.day}"
        )
        return f"the tokenizer's, {hashlib.sha256(self.text.encode()).hexdigest()[:12]}{day}"

    def render(
        self,
        messages: Sequence[Message],
        *,
        generation_prompt: bool,
        tools: Sequence[Any] = (),
        documents: Sequence[Any] = (),
        options: Mapping[str, Any] = MappingProxyType({}),
    ) -> str:
        """The conversation as the template writes it. ``BadRecord`` for whatever a template, which is a program, stumbles over in it."""
        from jinja2 import TemplateError

        template = dated(self.text or "", self.day) if self.day is not None else None
        try:
            return str(
                self._tokenizer.apply_chat_template(
                    list(messages),
                    tools=list(tools) or None,
                    documents=list(documents) or None,
                    chat_template=template,
                    tokenize=False,
                    add_generation_prompt=generation_prompt,
                    **options,
                )
            )
        except (TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError) as error:
            raise BadRecord(f"the chat template refuses it: {error}") from error


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
