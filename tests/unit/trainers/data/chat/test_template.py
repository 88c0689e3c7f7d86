"""A chat template that asks for the date is told the day that the run keeps; marks travel with what it tags."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pitstop.trainers.data.chat.conversation import Conversation
from pitstop.trainers.data.chat.template import CLOSING, OPENING, ChatTemplate, MessageForm, dated
from pitstop.trainers.data.records import BadRecord
from support.chat_templates import TWO, byte_tokenizer, user, wheel_templates
from support.tokenizers_of_kinds import tokenizer_of

DAY = date(2026, 1, 5)  # a Monday, with zeros to drop
CHAT = [{"role": "user", "content": "Aspirin?"}, {"role": "assistant", "content": "Yes."}]


def _written(template: str, day: date = DAY) -> str:
    return ChatTemplate(tokenizer_of("byte-level", template), day).render(CHAT, generation_prompt=False)


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("llama3_2", "Today Date: 05 Jan 2026"),
        ("gptoss", "Current date: 2026-01-05"),
        ("muse_glimmer", "Current date: 2026-01-05."),
    ],
)
def test_templates_of_models_are_told_the_day_and_are_otherwise_as_transformers_renders_them(name: str, line: str) -> None:
    tokenizer = tokenizer_of("byte-level", wheel_templates()[name])
    template = ChatTemplate(tokenizer, DAY)
    assert template.asks_for_date and template.day == DAY
    for prompt in (True, False):
        rendered = template.render(CHAT, generation_prompt=prompt)
        assert line in rendered
        today = ChatTemplate(tokenizer)
        assert today.day == datetime.now().date()
        as_transformers = tokenizer.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=prompt)
        assert today.render(CHAT, generation_prompt=prompt) == as_transformers
    assert tokenizer.chat_template == wheel_templates()[name], "the macro is never the tokenizer's, which is saved"


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


# What it tags, looks at and is given ------------------------------------------------------------------------------------


def _template(source: str) -> ChatTemplate:
    return ChatTemplate(byte_tokenizer(), source=source)


def _one(text: str) -> Conversation:
    return Conversation([user(text)], [False])


@pytest.mark.parametrize("name", [name for name in wheel_templates() if name.endswith("_training")])
def test_without_its_marks_a_tagged_rendering_is_the_ordinary_one(name: str) -> None:
    template = _template(wheel_templates()[name])
    template.form = MessageForm(parts=name.startswith(("idefics", "smolvlm", "llava")))
    count = len(TWO.messages)
    marked = template.render_marked(TWO, count, {})
    assert marked.replace(OPENING, "").replace(CLOSING, "") == template.render_first(TWO, count, {})
    assert marked.count(OPENING) == marked.count(CLOSING) >= 2 and template.has_tags


@pytest.mark.parametrize(
    ("tagged", "marked"),
    [
        ("a {% generation %} b {% endgeneration %} c", "a [ b ] c"),
        ("a {%- generation -%} b {%- endgeneration -%} c", "a[b]c"),
        ("a\n{% generation %}\nb\n{% endgeneration %}\nc", "a\n[b\n]c"),
        ("{# {% generation %} #}a", "a"),
        ("{% macro m() %}{% generation %}b{% endgeneration %}{% endmacro %}a{{ m() }}c", "a[b]c"),
        ("{% set x %}{% generation %}b{% endgeneration %}{% endset %}a{{ x }}{{ x }}", "a[b][b]"),
    ],
)
def test_marks_travel_with_the_text_and_leave_white_space_to_the_tags(tagged: str, marked: str) -> None:
    template = _template(tagged)
    text = template.render_marked(_one("x"), 1, {})
    assert text.replace(OPENING, "[").replace(CLOSING, "]") == marked
    assert text.replace(OPENING, "").replace(CLOSING, "") == template.render_first(_one("x"), 1, {})


def test_a_tag_in_a_comment_is_none() -> None:
    assert not _template("{# adds {% generation %} #}a").has_tags
    assert _template("{%- generation %}a{% endgeneration %}").has_tags


def test_variables_are_the_options_of_a_template() -> None:
    source = (
        "{% set own = 1 %}{% for m in messages %}{% generation %}{{ m.content }}{% endgeneration %}{% endfor %}"
        "{{ enable_thinking }}{{ own }}{{ raise_exception }}{{ bos_token }}{% if tools %}{{ strftime_now('%Y') }}{% endif %}"
    )
    assert _template(source).variables == {"enable_thinking"}


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ("a\n{% for %}", "Expected an expression, got 'end of statement block' (line 2)"),
        ("{{ mood }}\n{{ messages | shout }}", "No filter named 'shout'. (line 2)"),
        ("{{ mood }}{% break %}{% generation %}a{% endgeneration %}", None),
    ],
)
def test_what_is_no_template_has_a_fault_and_no_variables(source: str, fault: str | None) -> None:
    template = _template(source)
    assert template.fault == fault
    assert template.variables == (frozenset() if fault else {"mood"})


def test_options_tools_and_documents_reach_the_template() -> None:
    template = _template("{{ mood }} {{ tools | length }} {{ documents | length }}")
    conversation = Conversation([user("x")], [False], tools=[{"a": 1}], documents=[{"b": 1}, {"c": 1}])
    assert template.render_first(conversation, 1, {"mood": "calm"}) == "calm 1 2"


def test_a_form_changes_what_a_template_is_given() -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": "ä"}}}
    form = MessageForm(parts=True, arguments_as_text=True, empty_content=True, thinking=True)
    assert form.of({"role": "assistant", "tool_calls": [call], "reasoning_content": "R"}) == {
        "role": "assistant",
        "reasoning_content": "R",
        "thinking": "R",
        "content": [{"type": "text", "text": ""}],
        "tool_calls": [{**call, "function": {"name": "add", "arguments": '{"a": "ä"}'}}],
    }
    assert call["function"] == {"name": "add", "arguments": {"a": "ä"}}


def test_what_a_template_stumbles_over_is_a_bad_record() -> None:
    with pytest.raises(BadRecord, match="the chat template refuses it: no"):
        _template("{{ raise_exception('no') }}").render([user("x")], generation_prompt=False)
