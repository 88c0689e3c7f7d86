"""The templates that Pitstop ships: what they write, and that generation starts where they learn."""

from __future__ import annotations

import pytest

from pitstop.trainers.data.chat.conversation import Conversation
from pitstop.trainers.data.chat.options import RenderingOptions
from pitstop.trainers.data.chat.rendering import ConversationRenderer
from pitstop.trainers.data.chat.shipped import SHIPPED
from pitstop.trainers.data.records import BadRecord
from support.chat_templates import LOOP, SYSTEM_TWO, THINK, TWO, byte_tokenizer, conversation, renderer_of, shown, user


def _renderer(name: str) -> ConversationRenderer:
    return renderer_of(byte_tokenizer(), SHIPPED[name], RenderingOptions())


CHATML_TWO = (
    "<|im_start|>user↵Q1<|im_end|>↵<|im_start|>assistant↵⟦A1<|im_end|>⟧↵"
    "<|im_start|>user↵Q2<|im_end|>↵<|im_start|>assistant↵⟦A2<|im_end|>⟧"
)


@pytest.mark.parametrize(
    ("name", "messages", "text"),
    [
        pytest.param(
            "plain", SYSTEM_TWO, "S↵↵User: Q1↵↵Assistant:⟦ A1</s>⟧↵↵User: Q2↵↵Assistant:⟦ A2</s>⟧", id="4, its second half"
        ),
        pytest.param("plain", TWO, "User: Q1↵↵Assistant:⟦ A1</s>⟧↵↵User: Q2↵↵Assistant:⟦ A2</s>⟧", id="plain, no system text"),
        pytest.param("chatml", TWO, CHATML_TWO, id="chatml"),
        pytest.param("chatml", SYSTEM_TWO, "<|im_start|>system↵S<|im_end|>↵" + CHATML_TWO, id="chatml, a system text"),
    ],
)
def test_what_is_learnt(name: str, messages: Conversation, text: str) -> None:
    rendering = _renderer(name).render(messages)
    assert (shown(rendering.examples), rendering.unlearnt, rendering.notices) == (text, [], [])


@pytest.mark.parametrize(
    ("name", "prompt"),
    [("plain", "User: Q1\n\nAssistant:"), ("chatml", "<|im_start|>user\nQ1<|im_end|>\n<|im_start|>assistant\n")],
)
def test_generation_starts_where_answers_are_learnt(name: str, prompt: str) -> None:
    assert _renderer(name).prompt(conversation(user("Q1"))) == prompt


@pytest.mark.parametrize("name", SHIPPED)
def test_what_they_do_not_write_is_refused(name: str) -> None:
    with pytest.raises(BadRecord, match="does not render tool"):
        _renderer(name).render(LOOP)
    with pytest.raises(BadRecord, match="--reasoning"):
        _renderer(name).render(THINK)
