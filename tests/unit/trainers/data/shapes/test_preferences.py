"""Where the question ends that two answers begin with, and which fields hold them; 54 is an oracle of the specification."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.shapes.messages import MessageReader
from pitstop.trainers.data.shapes.preferences import AnswerParting, judgement, margin, preference_shape
from pitstop.trainers.data.shapes.roles import known_roles
from support.chat_templates import assistant, system, user

Q, A, Q2, B = user("Q"), assistant("A"), user("Q2"), assistant("B")


def _parted(fields: dict[str, Any]) -> tuple[Any, Any, Any]:
    """The question, the chosen and the rejected answer."""
    parted = AnswerParting(MessageReader(known_roles("", {}), "")).part(fields, preference_shape(fields))
    return parted.fields[parted.question], parted.fields["chosen"], parted.fields["rejected"]


def _refusal(**fields: Any) -> str:
    with pytest.raises(BadRecord) as caught:
        _parted(fields)
    return f"{caught.value} · {caught.value.hint}" if caught.value.hint else str(caught.value)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("It is 12", "It is 13", ("It is", " 12", " 13")),
        ("The sky is blue.", "The sky is green.", ("The sky is", " blue.", " green.")),
        ("Q?\n\nyes", "Q?\n\nyeah", ("Q?", "\n\nyes", "\n\nyeah")),
    ],
)
def test_oracle_54_texts_part_at_the_white_space_behind_what_they_share(
    chosen: str, rejected: str, expected: tuple[str, str, str]
) -> None:
    assert _parted({"chosen": chosen, "rejected": rejected}) == expected


def test_oracle_54_what_cannot_be_parted_is_malformed() -> None:
    assert _refusal(chosen="same", rejected="same") == "the two answers are equal"
    nothing = "its answers have nothing in common to begin with · Give 'prompt', for example --column prompt=FIELD."
    assert _refusal(chosen="yes", rejected="no") == nothing
    assert _refusal(chosen=[Q, A], rejected=[Q2, A]) == nothing
    assert _refusal(chosen=[Q, A, Q2, B], rejected=[Q, A]) == "'rejected' is the beginning of 'chosen'"
    assert _refusal(chosen=[Q, A], rejected=[Q, A]) == "the two answers are equal"
    assert _refusal(prompt="Q", chosen="a", rejected="a") == "the two answers are equal"
    assert _refusal(prompt=[Q], chosen=[A], rejected=[A, Q2, B]) == "'chosen' is the beginning of 'rejected'"


def test_lists_part_at_the_last_answer_that_both_follow() -> None:
    assert _parted({"chosen": [system("S"), Q, A, Q2, B], "rejected": [system("S"), Q, A, Q2, assistant("C")]}) == (
        [system("S"), Q, A, Q2],
        [B],
        [assistant("C")],
    )
    # both say A to Q and go on with other questions: the answers begin with A
    assert _parted({"chosen": [Q, A, Q2, B], "rejected": [Q, A, user("Q3"), B]})[0] == [Q]
    # nor does a question end in an answer
    assert _parted({"chosen": [Q, A, B], "rejected": [Q, A, assistant("C")]}) == ([Q], [A, B], [A, assistant("C")])
    turns = [{"from": "human", "value": "Q"}, {"from": "gpt", "value": "A"}]
    assert _parted({"chosen": turns, "rejected": ["Q", "B"]}) == (turns[:1], turns[1:], [assistant("B")])


def test_a_question_stands_in_front_of_answers_that_begin_with_none() -> None:
    assert _parted({"prompt": "Q", "chosen": [A], "rejected": [B]}) == ([Q], [A], [B])
    assert _parted({"prompt": [Q], "chosen": A, "rejected": B}) == ([Q], [A], [B])
    assert _parted({"messages": [Q, A, Q2], "chosen": A, "rejected": B}) == ([Q, A, Q2], [A], [B])
    assert _parted({"prompt": [Q], "chosen": [Q, A], "rejected": [Q, B]}) == ([Q], [A], [B])
    assert _parted({"question": "Q", "chosen": "a", "rejected": "b"}) == ("Q", "a", "b")
    as_text = {"chosen": json.dumps([Q, A]), "rejected": json.dumps([Q, B])}
    assert _parted(as_text) == ([Q], [A], [B])
    # an answer that is JSON stays a text
    assert _parted({"prompt": "Q", "chosen": '{"a": 1}', "rejected": "[2]"}) == ("Q", '{"a": 1}', "[2]")


def test_turns_of_a_human_and_an_assistant_become_messages() -> None:
    begin = "\n\nHuman: Q\n\nAssistant: A\n\nsecond\n\nHuman: Q2\n\nAssistant:"
    question, chosen, rejected = _parted({"chosen": f"{begin} yes", "rejected": f"{begin} no"})
    assert question == [Q, assistant("A\n\nsecond"), Q2]
    assert (chosen, rejected) == ([assistant("yes")], [assistant("no")])


def test_input_and_outputs() -> None:
    fields = {"input": {"messages": [Q], "tools": []}, "preferred_output": [A], "non_preferred_output": [B]}
    assert _parted(fields) == ([Q], [A], [B])
    assert _refusal(**{**fields, "input": "{}"}) == "'input' is not an object with 'messages'"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"prompt": "Q", "chosen": "a", "rejected": " "}, "'rejected' is empty"),
        ({"prompt": "Q", "chosen": "a", "rejected": [B]}, "'rejected' is a list of messages and 'chosen' is text · Give both in one form."),
        ({"prompt": [Q], "chosen": "a", "rejected": "b"}, "'prompt' is a list of messages and 'chosen' is text · Give both in one form."),
        (
            {"prompt": [Q2], "chosen": [Q, A], "rejected": [Q, B]},
            "'prompt' has other messages than its answers begin with · Leave it out: --column prompt=",
        ),
        (
            {"prompt": "Q", "question": "Q", "chosen": "a", "rejected": "b"},
            "has both 'prompt' and 'question' in front of its answers · Leave one out: --column question=",
        ),
        (
            {"prompt": "Q", "chosen": "a", "rejected": "b", "completion": "c", "label": 1},
            "can be read as prompt+chosen+rejected and as prompt+completion+label · Leave one out, for example with --column label=.",
        ),
    ],
)  # fmt: skip
def test_what_is_malformed(fields: dict[str, Any], reason: str) -> None:
    assert _refusal(**fields) == reason


def test_a_question_that_is_neither_text_nor_messages_is_left_to_the_reader_of_texts() -> None:
    assert _parted({"prompt": 3, "chosen": "a", "rejected": "b"})[0] == 3


def test_other_records_are_told_what_to_name() -> None:
    refusal = _refusal(prompt="Q", completion="A")
    assert refusal.startswith("not of the shape 'preference'; its fields: completion, prompt · Name them: --column chosen=FIELD")


@pytest.mark.parametrize("value", [True, 1, 1.0, "true", "True", "1", False, 0, "false", "0"])
def test_labels(value: Any) -> None:
    for name in ("label", "kto_tag"):
        fields = {"prompt": "Q", "completion": "A", name: value}
        assert judgement(fields, preference_shape(fields)) is (value in (True, "true", "True", "1"))
    fields = {"prompt": "Q", "completion": "A", "label": "good"}
    with pytest.raises(BadRecord, match="its label is 'good'"):
        judgement(fields, preference_shape(fields))
    fields = {"prompt": "Q", "completion": "A", "label": True, "kto_tag": False}
    with pytest.raises(BadRecord, match="say different things"):
        judgement(fields, preference_shape(fields))


def test_margins() -> None:
    assert [margin({"margin": value}) for value in (2, 0.5, "0.5", None, "")] == [2.0, 0.5, 0.5, None, None]
    for value in ("much", True, float("nan"), [1]):
        with pytest.raises(BadRecord, match="which is no number"):
            margin({"margin": value})
