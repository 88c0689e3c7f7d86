"""Preferences as two conversations behind one question, with an account of what is not used."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.trainers.data.chat.conversation import Conversation, Preference, TextPair
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.data.shapes.normal_form import ShapeOptions
from pitstop.trainers.data.shapes.preference_form import PreferenceForm
from support.chat_templates import assistant, system, user

Q, A, B = user("Q"), assistant("A"), assistant("B")
TOOL = {"type": "function", "function": {"name": "add"}}


def _read(fields: dict[str, Any], template: str | None = "", **options: Any) -> tuple[Preference, list[str]]:
    form, rows = PreferenceForm(ShapeOptions(**options), template), BadRows(skip=True)
    preference = form.read_preference(Record(fields, "a line 1"), rows)
    form.conclude(rows)
    return preference, [str(notice) for notice in rows.notices]


def _messages(form: Any) -> list[Any]:
    assert isinstance(form, Conversation)
    return list(form.messages)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": "Q", "chosen": "A", "rejected": "B"},
        {"instruction": "Q", "chosen": "A", "rejected": "B"},
        {"prompt": [Q], "chosen": [A], "rejected": [B]},
        {"chosen": [Q, A], "rejected": [Q, B]},
        {"conversations": [{"from": "human", "value": "Q"}], "chosen": {"from": "gpt", "value": "A"}, "rejected": B},
        {"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [B]},
        {"chosen": "Human: Q\n\nAssistant: A", "rejected": "Human: Q\n\nAssistant: B"},
    ],
)
def test_every_form_is_the_same_preference(fields: dict[str, Any]) -> None:
    preference, told = _read(fields)
    assert _messages(preference.chosen) == [Q, A] and _messages(preference.rejected) == [Q, B]
    assert all(isinstance(answer, Conversation) and list(answer.learnt) == [False, True] for answer in preference.answers)
    assert told == []


def test_what_stands_beside_goes_to_both() -> None:
    fields = {"system": "S", "question": "Q", "context": "C", "chosen": "A", "rejected": "B", "tools": [TOOL], "margin": "0.5"}
    preference, told = _read(fields)
    assert _messages(preference.chosen) == [system("S"), user("Q\n\nC"), A]
    assert _messages(preference.rejected) == [system("S"), user("Q\n\nC"), B]
    assert [list(answer.tools) for answer in preference.answers if isinstance(answer, Conversation)] == [[TOOL]] * 2
    assert (preference.margin, told) == (0.5, [])


def test_tools_of_an_input_and_what_else_is_in_there() -> None:
    fields = {
        "input": {"messages": [Q], "tools": [TOOL], "parallel_tool_calls": True},
        "preferred_output": [A],
        "non_preferred_output": [B],
    }
    preference, told = _read(fields)
    assert isinstance(preference.rejected, Conversation) and list(preference.rejected.tools) == [TOOL]
    assert told == ['1 record has a field "input.parallel_tool_calls" that is not used: a line 1.']


def test_fields_that_are_not_used_are_told_once() -> None:
    unused = {"score_chosen": 1.0, "messages": [Q, A], "reasoning": "R"}
    _, told = _read({"prompt": "another", "chosen": [Q, A], "rejected": [Q, B], **unused})
    assert [line.split('"')[1] for line in told] == ["prompt", "score_chosen", "messages", "reasoning"]
    _, told = _read({"prompt": "Q", "chosen": [Q, A], "rejected": [Q, B]})
    assert told == []


def test_a_judged_answer_is_the_chosen_or_the_rejected_one() -> None:
    good, _ = _read({"prompt": "Q", "completion": "A", "label": True})
    bad, _ = _read({"prompt": [Q], "completion": [A], "kto_tag": 0})
    assert _messages(good.chosen) == _messages(bad.rejected) == [Q, A] and good.rejected is bad.chosen is None


def test_earlier_exchanges_are_part_of_the_question() -> None:
    history = [["Q0", "A0"]]
    for fields in ({"chosen": "A", "rejected": "B"}, {"completion": "A", "label": 1}):
        preference, _ = _read({"prompt": "Q", "history": history, **fields})
        assert _messages(preference.chosen) == [user("Q0"), assistant("A0"), Q, A]
        assert isinstance(preference.chosen, Conversation) and preference.chosen.learnt == [False, False, False, True]


def test_without_a_chat_template_texts_follow_each_other() -> None:
    preference, _ = _read({"chosen": "It is 12", "rejected": "It is 13"}, None)
    assert preference == Preference(TextPair("It is", " 12"), TextPair("It is", " 13"))


def test_the_settings_of_fields_hold() -> None:
    preference, _ = _read(
        {"q": "Q", "yes": "A", "no": "B"},
        columns={"chosen": "yes", "rejected": "no"},
        prompt_template="{q}!",
        system_prompt="S",
    )
    assert _messages(preference.chosen) == [system("S"), user("Q!"), A]
    _, told = _read({"chosen": [system("X"), Q, A], "rejected": [system("X"), Q, B]}, system_prompt="S")
    assert told[0].startswith("1 record keeps its own system message")


def test_a_first_answer_that_is_not_to_be_learnt_leaves_no_preference() -> None:
    rejected = [Q, {**B, "weight": 0}, user("Q2"), assistant("C")]
    with pytest.raises(BadRecord, match="do not follow the same messages") as caught:
        _read({"chosen": [Q, A], "rejected": rejected})
    assert caught.value.answers == 2
