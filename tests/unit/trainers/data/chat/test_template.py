"""A chat template that asks for the date is told the day that the run keeps."""

from __future__ import annotations

from datetime import date, datetime
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitstop.trainers.data.chat.template import ChatTemplate, dated
from support.tokenizers_of_kinds import tokenizer_of

DAY = date(2026, 1, 5)  # a Monday, with zeros to drop
CHAT = [{"role": "user", "content": "Aspirin?"}, {"role": "assistant", "content": "Yes."}]


def _written(template: str, day: date = DAY) -> str:
    return ChatTemplate(tokenizer_of("byte-level", template), day).render(CHAT, generation_prompt=False)


def _shipped(name: str) -> str:
    return files("trl").joinpath("chat_templates", f"{name}.jinja").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("llama3_2", "Today Date: 05 Jan 2026"),
        ("gptoss", "Current date: 2026-01-05"),
        ("muse_glimmer", "Current date: 2026-01-05."),
    ],
)
def test_templates_of_models_are_told_the_day_and_are_otherwise_as_transformers_renders_them(name: str, line: str) -> None:
    tokenizer = tokenizer_of("byte-level", _shipped(name))
    template = ChatTemplate(tokenizer, DAY)
    assert template.asks_for_date and template.day == DAY
    for prompt in (True, False):
        rendered = template.render(CHAT, generation_prompt=prompt)
        assert line in rendered
        today = ChatTemplate(tokenizer)
        assert today.day == datetime.now().date()
        as_transformers = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=prompt)
        assert today.render(CHAT, generation_prompt=prompt) == as_transformers
    assert tokenizer.chat_template == _shipped(name), "the macro is never the tokenizer's, which is saved"


@pytest.mark.parametrize(
    ("template", "written"),
    [
        ("{{ strftime_now('%d %b %Y, 100%% %A') }}", "05 Jan 2026, 100% Monday"),
        ("{{ strftime_now('%-d.%-m.%y %H:%M') }}", "5.1.26 00:00"),
        ("{{ strftime_now('%' + 'Y') }}", "2026"),
        ("{% set now = strftime_now %}{{ now('%Y')|int + 1 }}", "2027"),
        ("{% macro head() %}{{ strftime_now('%F') }}{% endmacro %}{{ head() }}", "2026-01-05"),
        ("{% if strftime_now is defined %}{{ strftime_now('%j') }}{% endif %}", "005"),
        ("\n  {% if true %}\n  a{% endif %} {{ strftime_now('%m') }}", "\n  a 01"),
        ("  {{ strftime_now('%m') }}", "  01"),
    ],
)
def test_whatever_a_template_asks_for_is_of_that_day(template: str, written: str) -> None:
    assert _written(template) == written


@settings(deadline=None, max_examples=50)
@given(
    day=st.dates(date(1970, 1, 1), date(2100, 1, 1)),
    words=st.lists(
        st.sampled_from(["%Y", "%m", "%d", "%-d", "%B", "%a", "%j", "%%", "%U", " ", ".", "T"]), min_size=1, max_size=6
    ),
)
def test_directives_are_those_of_strftime(day: date, words: list[str]) -> None:
    form = "".join(words)
    assert _written(f"{{{{ strftime_now('{form}') }}}}", day) == datetime(day.year, day.month, day.day).strftime(form)


def test_a_template_that_does_not_ask_has_no_day() -> None:
    template = ChatTemplate(tokenizer_of("byte-level", "{{ messages[0].content }}"), DAY)
    assert not template.asks_for_date and template.day is None and template.draws is None
    assert ChatTemplate(tokenizer_of("byte-level"), DAY).digest is None
    assert dated("x", DAY).endswith("\nx")


@pytest.mark.parametrize(
    ("template", "drawn"),
    [("{{ ['a', 'b'] | random }}", "random"), ("{{ lipsum(1) }}", "lipsum"), ("{{ 'random' }} | randomly", None)],
)
def test_a_template_that_draws_is_told_from_one_that_does_not(template: str, drawn: Any) -> None:
    assert ChatTemplate(tokenizer_of("byte-level", template)).draws == drawn


def test_of_several_templates_the_default_one_is_asked() -> None:
    tokenizer = tokenizer_of("byte-level")
    tokenizer.chat_template = {"default": "{{ strftime_now('%Y') }}", "tool_use": "{{ messages }}"}
    assert ChatTemplate(tokenizer, DAY).render(CHAT, generation_prompt=False) == "2026"
