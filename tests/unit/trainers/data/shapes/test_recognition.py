"""Which shape a record has; where there are two readings, the user is asked."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.shapes.recognition import Shape, recognise, with_question

MESSAGES = [{"role": "system", "content": "S"}, {"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]


def _refusal(fields: dict[str, Any], setting: str = "auto") -> str:
    with pytest.raises(BadRecord) as caught:
        recognise(fields, setting)
    return f"{caught.value} · {caught.value.hint}" if caught.value.hint else str(caught.value)


@pytest.mark.parametrize(
    ("fields", "shape"),
    [
        ({"messages": MESSAGES, "prompt": " Q ", "chosen": MESSAGES, "rejected": MESSAGES}, Shape("messages", ("messages",))),
        ({"messages": MESSAGES, "prompt": "", "completion": ""}, Shape("messages", ("messages",))),
        ({"conversations": MESSAGES, "id": "7"}, Shape("messages", ("conversations",))),
        ({"prompt": MESSAGES[:2], "completion": MESSAGES[2:]}, Shape("lists", ("prompt", "completion"))),
        ({"instruction": "i", "output": "o", "text": "i o"}, Shape("pair", ("instruction", "output"))),
        ({"instruction": "i", "output": "o", "response": ""}, Shape("pair", ("instruction", "output"))),
        ({"question": "q", "answer": ""}, Shape("pair", ("question", "answer"))),
        ({"prompt": "", "completion": "c"}, Shape("pair", ("prompt", "completion"))),
        ({"query": "q", "answer": "a", "label": True}, Shape("pair", ("query", "answer"))),
        ({"text": "t", "source": "s"}, Shape("text", ("text",))),
    ],
)
def test_the_shape_of_a_record(fields: dict[str, Any], shape: Shape) -> None:
    assert recognise(fields, "auto") == shape


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        (
            {"messages": MESSAGES, "prompt": "p", "completion": "c"},
            "can be read as messages and as prompt+completion"
            " · Choose with --shape messages or --shape prompt, or name the fields with --column.",
        ),
        ({"messages": MESSAGES, "conversations": MESSAGES}, "can be read as messages and as conversations · Name the fields"),
        (
            {"messages": MESSAGES, "text": "t"},
            "can be read as messages and as text · Choose with --shape messages or --shape text",
        ),
        ({"messages": MESSAGES, "prompt": "another"}, "can be read as messages and as prompt"),
        ({"instruction": "i", "output": "o", "response": "r"}, "can be read as instruction+output and as instruction+response"),
        ({"prompt": "p", "question": "q", "response": "r"}, "can be read as prompt+response and as question+response"),
        ({"prompt": "p", "completion": "c", "text": "t"}, "can be read as prompt+completion and as text"),
        ({"prompt": "p", "completion": "c", "chosen": "a", "rejected": "b"}, "as prompt+completion and as chosen and rejected"),
        (
            {"question": "q", "final": "f"},
            "no known record shape; its fields: final, question"
            " · Name them, for example --column prompt=question --column completion=final.",
        ),
        ({"body": "t"}, "no known record shape; its fields: body · Name it, for example --column text=body."),
        ({"q": "x", "target": "y", "id": 1}, "--column completion=target"),
        ({}, "no known record shape; its fields: none"),
        ({"prompt": None, "completion": "c"}, "no known record shape; its fields: completion"),
        (
            {"prompt": "p", "chosen": "a", "rejected": "b"},
            "is a preference record · --column completion=chosen learns the chosen answers; preferences need a task for them.",
        ),
    ],
)
def test_what_the_user_has_to_decide(fields: dict[str, Any], reason: str) -> None:
    assert reason in _refusal(fields)


def test_a_setting_decides() -> None:
    fields = {"messages": MESSAGES, "prompt": "p", "completion": "c", "text": "t"}
    assert recognise(fields, "messages").kind == "messages"
    assert recognise({**fields, "text": "c"}, "prompt").kind == "pair"
    assert recognise(fields, "text").kind == "text"
    assert "is a preference record" in _refusal({"chosen": "a", "rejected": "b"}, "preference")
    assert "not of the shape 'messages'; its fields: completion, prompt" in _refusal(
        {"prompt": "p", "completion": "c"}, "messages"
    )


def test_a_question_that_is_made_takes_the_only_answer() -> None:
    assert with_question({"output": "o", "answer": ""}, "prompt") == Shape("pair", ("prompt", "output"))
    with pytest.raises(BadRecord, match=r"prompt\+response and as prompt\+output"):
        with_question({"output": "o", "response": "r"}, "prompt")
    with pytest.raises(BadRecord, match="its fields: context"):
        with_question({"context": "c"}, "prompt")
