"""What templates render at all, over the wheel's originals: oracle 40 of the specification."""

from __future__ import annotations

from functools import cache

import pytest

from pitstop.trainers.data.chat.options import RenderingOptions
from pitstop.trainers.data.chat.probe import Probe
from pitstop.trainers.data.chat.template import PLAIN_FORM
from pitstop.trainers.data.records import BadRecord
from support.chat_templates import (
    LOOP,
    OWN,
    assistant,
    byte_tokenizer,
    conversation,
    renderer,
    renderer_of,
    user,
    wheel_templates,
)

ORIGINALS = [name for name in wheel_templates() if not name.endswith("_training")]
ONLY_PARTS = {"smolvlm", "idefics3", "llava_next"}
WITHOUT_TOOLS = {
    *("cohere", "cohere2", "deepseek_r1_distill", "deepseekv3", "gemma", "gemma3", "llama3", "phi3", "phi3_5", "qwen2_5_vl")
}
ONE = conversation(user("Q1"), assistant("A1"))


@cache
def _probe(name: str) -> Probe:
    return renderer(name).probe


def _without(thing: str) -> set[str]:
    """The originals of texts that do not render ``thing``."""
    return {name for name in ORIGINALS if name not in ONLY_PARTS and not getattr(_probe(name), thing)}


def test_oracle_40_tools_vanish() -> None:
    assert _without("tools") == WITHOUT_TOOLS


def test_oracle_40_calls_vanish() -> None:
    assert _without("calls") == WITHOUT_TOOLS - {"deepseekv3"} | {"lfm2"}


def test_oracle_40_results_vanish_or_are_refused() -> None:
    refusing = {"cohere", "gemma", "gemma3"}  # their roles have to alternate
    assert _without("results") == {"phi3", "phi3_5", "cohere2"} | refusing
    messages = [user("Q1"), assistant("A1"), {"role": "tool", "content": "3"}]
    for name in refusing:
        with pytest.raises(BadRecord, match="must alternate"):
            _probe(name).template.render(messages, generation_prompt=False)
    for name in ("phi3", "phi3_5", "cohere2"):
        assert "3" not in _probe(name).template.render(messages, generation_prompt=False)


def test_oracle_40_texts_go_as_parts_where_they_come_out_only_so() -> None:
    assert {name for name in ORIGINALS if _probe(name).template.form.parts} == ONLY_PARTS
    assert all(_probe(name).text for name in ORIGINALS)


@pytest.mark.parametrize("name", ["smolvlm", "idefics3"])
def test_oracle_40_these_write_nothing_of_a_plain_text(name: str) -> None:
    template = renderer(name).template
    assert template.form == PLAIN_FORM
    text = template.render(ONE.messages, generation_prompt=False)
    assert "Q1" not in text and "A1" not in text


def test_oracle_40_this_fails_on_a_plain_text() -> None:
    with pytest.raises(BadRecord, match="refuses it"):
        renderer("llava_next").template.render(ONE.messages, generation_prompt=False)


def test_oracle_40_a_call_that_would_vanish_is_malformed() -> None:
    with pytest.raises(BadRecord, match="the chat template does not render tool calls"):
        renderer("llama3").render(LOOP)


def test_oracle_40_a_conversation_as_parts() -> None:
    template = renderer("smolvlm").probe.template
    assert template.render(ONE.messages, generation_prompt=False) == (
        "<|im_start|>User: Q1<end_of_utterance>\nAssistant: A1<end_of_utterance>\n"
    )


# Tags ------------------------------------------------------------------------------------------------------------------------

_TAGGED = "{% generation %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endgeneration %}"
_TURN = "<|{{ m.role }}|>{{ m.content }}<|end|>"


def _with_tags(condition: str, front: str = "") -> str:
    """Turns, tagged where ``condition`` holds."""
    turn = f"{{% if {condition} %}}{_TAGGED}{{% else %}}{_TURN}{{% endif %}}"
    return front + "{% for m in messages %}" + turn + "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"


@pytest.mark.parametrize(
    ("template", "tagged"),
    [
        (_with_tags("true"), "questions"),
        (_with_tags("m.role == 'assistant' or loop.index > 3"), "questions"),
        (_with_tags("m.role != 'user'"), "the system text"),
        (_with_tags("m.role in ('assistant', 'tool')"), "what tools give"),
        (
            _with_tags("m.role == 'assistant'", "{% generation %}Be good.{% endgeneration %}"),
            "text in front of the first question",
        ),
        (_with_tags("m.role == 'assistant'", "{% generation %} {% endgeneration %}"), ""),
        (_with_tags("m.role == 'assistant'"), ""),
    ],
)
def test_what_is_tagged_and_no_answer_is_refused(template: str, tagged: str) -> None:
    rendering = renderer_of(byte_tokenizer(), template, RenderingOptions())
    assert rendering.probe.tagged_elsewhere == tagged
    if not tagged:
        assert rendering.render(ONE).examples
        return
    with pytest.raises(BadRecord, match=f"the chat template tags {tagged} as generated") as caught:
        rendering.render(ONE)
    assert "--chat-template" in caught.value.hint


def test_tags_of_the_wheel_stand_around_answers() -> None:
    tagged = [name for name in (*OWN, *wheel_templates()) if renderer(name).template.has_tags]
    assert len(tagged) > 30
    assert {name: words for name in tagged if (words := _probe(name).tagged_elsewhere)} == {}
