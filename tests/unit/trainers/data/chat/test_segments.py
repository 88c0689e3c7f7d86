"""The normal form as texts: what is learnt of it, and what goes to the template."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.trainers.data.chat.conversation import Conversation, Document, TextPair
from pitstop.trainers.data.chat.segments import segments_of_form
from pitstop.trainers.data.chat.template import ChatTemplate
from pitstop.trainers.data.records import BadRecord

BASE = (
    "{% if tools %}{{ tools[0].function.name }}|{% endif %}{% if documents %}{{ documents[0].text }}|{% endif %}{{ mood }}"
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% for c in m.tool_calls %}{{ c.function.arguments | tojson }}"
    "{% endfor %}<|end|>{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
TWO = [
    {"role": "user", "content": "Q1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "Q2"},
    {"role": "assistant", "content": "A2"},
]


def _marked(tokenizer: Any, form: Any, template: str = BASE) -> str:
    tokenizer.chat_template = template
    return "".join(f"⟦{text}⟧" if learnt else text for text, learnt in segments_of_form(form, ChatTemplate(tokenizer)))


def test_learnt_answers_begin_behind_the_generation_prompt(tokenizer: Any) -> None:
    first = "<|user|>Q1<|end|><|assistant|>"
    both = _marked(tokenizer, Conversation(TWO, [False, True, False, True]))
    assert both == first + "⟦A1<|end|>⟧<|user|>Q2<|end|><|assistant|>⟦A2<|end|>⟧"
    last = _marked(tokenizer, Conversation(TWO, [False, False, False, True]))
    assert last == first + "A1<|end|><|user|>Q2<|end|><|assistant|>⟦A2<|end|>⟧"


def test_tools_documents_options_and_calls_go_to_the_template(tokenizer: Any) -> None:
    call = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}
    tool = {"type": "function", "function": {"name": "add"}}
    messages = [TWO[0], {"role": "assistant", "tool_calls": [call]}]
    form = Conversation(messages, [False, True], [tool], [{"text": "d"}], {"mood": "glad"})
    assert _marked(tokenizer, form) == 'add|d|glad<|user|>Q1<|end|><|assistant|>⟦{"a": 1}<|end|>⟧'


def test_pairs_and_documents_stay_as_they_stand(tokenizer: Any) -> None:
    assert _marked(tokenizer, TextPair("Q ", "A")) == "Q ⟦A⟧"
    assert _marked(tokenizer, Document("all")) == "⟦all⟧"


def test_a_template_that_hides_where_an_answer_starts_is_not_guessed_at(tokenizer: Any) -> None:
    hiding = "{% for m in messages %}{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}##{% endif %}"
    with pytest.raises(BadRecord, match="cannot be told apart"):
        _marked(tokenizer, Conversation(TWO, [False, True, False, True]), hiding)
