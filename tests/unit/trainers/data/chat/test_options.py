"""Options of the rendering, and what a template is tried with for an answer."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.configs.data_settings import DataSettings
from pitstop.configs.errors import SettingsError
from pitstop.trainers.data.chat.options import RenderingOptions, option_sets, thinking_variable
from pitstop.trainers.data.chat.template import ChatTemplate
from support.chat_templates import OWN, byte_tokenizer, wheel_templates


def _template(source: str) -> ChatTemplate:
    return ChatTemplate(byte_tokenizer(), source=source)


def test_they_are_those_of_the_settings() -> None:
    data = DataSettings(learn="everything", thinking="off", merge_turns=True, template_options=["effort=low", "deep=true"])
    assert RenderingOptions.of(data) == RenderingOptions(
        everything=True, thinking="off", merge_turns=True, template_options={"effort": "low", "deep": True}
    )
    assert RenderingOptions.of(DataSettings()) == RenderingOptions()


@pytest.mark.parametrize(
    ("variable", "chosen", "thinking", "has_thought", "sets"),
    [
        (None, {"a": 1}, "auto", True, [{"a": 1}]),
        ("thinking", {}, "auto", True, [{}, {"thinking": True}]),
        ("thinking", {"a": 1}, "auto", False, [{"a": 1}, {"a": 1, "thinking": False}]),
        ("thinking", {"thinking": True}, "auto", False, [{"thinking": True}]),
        ("thinking", {}, "on", False, [{"thinking": True}]),
        ("thinking", {}, "off", True, [{"thinking": False}]),
    ],
)
def test_a_template_is_tried_with_its_defaults_and_then_as_the_answer_is(
    variable: str | None, chosen: dict[str, Any], thinking: str, has_thought: bool, sets: list[dict[str, Any]]
) -> None:
    assert list(option_sets(variable, chosen, thinking, has_thought=has_thought)) == sets


def test_options_that_a_template_does_not_look_at_are_refused() -> None:
    qwen = _template(wheel_templates()["qwen3"])
    assert thinking_variable(qwen) == "enable_thinking"
    RenderingOptions(thinking="on", template_options={"enable_thinking": True}).check(qwen)
    with pytest.raises(SettingsError, match="--thinking on: the chat template has no option"):
        RenderingOptions(thinking="on").check(_template(OWN["base"]))
    with pytest.raises(SettingsError, match="the chat template uses no option 'mood'"):
        RenderingOptions(template_options={"mood": "calm"}).check(qwen)
