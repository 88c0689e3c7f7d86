"""Which of the known shapes a record has. Two readings are refused: what decides is a setting, not the order of a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.shapes.paths import Fields, is_absent

Kind = Literal["messages", "lists", "pair", "text", "preference"]

MESSAGE_FIELDS = ("messages", "conversations")
ANSWERS_OF = {
    "prompt": ("completion", "response"),
    "instruction": ("output", "response", "completion"),
    "question": ("answer", "response"),
    "query": ("response", "answer"),
}
"""The field of a question, and the fields that may hold its answer."""
ANSWER_FIELDS = tuple(dict.fromkeys(name for names in ANSWERS_OF.values() for name in names))
_LIKE_A_QUESTION = ("question", "prompt", "instruction", "query", "input", "user", "human", "source")
_LIKE_AN_ANSWER = ("answer", "completion", "response", "output", "final", "target", "assistant", "reply")


@dataclass(frozen=True)
class Shape:
    """How a record is read: ``fields`` hold its messages, its question and answer, or its text."""

    kind: Kind
    fields: tuple[str, ...]

    def __str__(self) -> str:
        return "+".join(self.fields)


def recognise(fields: Fields, setting: str) -> Shape:
    """The shape of a record; ``setting`` is ``--shape``. Raises ``BadRecord`` with what the user has to decide."""
    present = {name: value for name, value in fields.items() if not is_absent(value)}
    shapes = [shape for shape in _readings(present) if setting in ("auto", _word(shape))] or _without_text(fields, setting)
    has_preference = "chosen" in present and "rejected" in present
    if setting == "preference" or (not shapes and has_preference and setting == "auto"):
        raise _preference()
    if not shapes:
        raise BadRecord("'text' is empty") if fields.get("text") == "" else _unknown(present, setting)
    first, rivals = shapes[0], shapes[1:]
    if first.kind == "pair" and [shape.kind for shape in rivals] == ["text"] and _holds_answer(present, first):
        rivals = []
    if rivals:
        raise _ambiguous(first, str(rivals[0]), _word(rivals[0]))
    if setting == "auto" and first.kind == "messages" and not _is_first_question(present.get("prompt"), present[first.fields[0]]):
        raise _ambiguous(first, "prompt", "prompt")
    if setting == "auto" and first.kind != "messages" and has_preference:
        raise _ambiguous(first, "chosen and rejected", "preference")
    return first


def with_question(fields: Fields, question: str) -> Shape:
    """The shape of a record whose question is made by a template: ``question``, and the answer that there is."""
    answers = [name for name in ANSWER_FIELDS if not is_absent(fields.get(name))] or [
        name for name in ANSWER_FIELDS if fields.get(name) is not None
    ]
    if not answers:
        raise _unknown({name: value for name, value in fields.items() if not is_absent(value)}, "prompt")
    shapes = [Shape("pair", (question, name)) for name in answers]
    if len(shapes) > 1:
        raise _ambiguous(shapes[0], str(shapes[1]), "prompt")
    return shapes[0]


def _readings(present: Fields) -> list[Shape]:
    """Every shape that the fields fit, the first of which may win."""
    shapes = [Shape("messages", (name,)) for name in MESSAGE_FIELDS if name in present]
    shapes += _pairs(present)
    return shapes + ([Shape("text", ("text",))] if "text" in present else [])


def _pairs(present: Fields) -> list[Shape]:
    return [
        Shape("lists" if _is_list(present[question]) or _is_list(present[answer]) else "pair", (question, answer))
        for question, answers in ANSWERS_OF.items()
        if question in present
        for answer in answers
        if answer in present
    ]


def _without_text(fields: Fields, setting: str) -> list[Shape]:
    """Pairs of which the question or the answer is an empty text: that is a fault of the answer, not of the shape."""
    shapes = _pairs({name: value for name, value in fields.items() if value is not None}) if setting in ("auto", "prompt") else []
    with_either = [shape for shape in shapes if any(not is_absent(fields[name]) for name in shape.fields)]
    return (with_either or shapes)[:1]


def _is_list(value: Any) -> bool:
    return isinstance(value, list | Mapping)


def _word(shape: Shape) -> str:
    """What ``--shape`` calls it."""
    return "prompt" if shape.kind in ("lists", "pair") else shape.kind


def _holds_answer(present: Fields, pair: Shape) -> bool:
    text, answer = present["text"], present[pair.fields[1]]
    return isinstance(text, str) and isinstance(answer, str) and answer.strip() in text


def _is_first_question(prompt: Any, messages: Any) -> bool:
    """Whether ``prompt``, if it is there, is what the first message of a user says."""
    if not isinstance(prompt, str) or not isinstance(messages, list):
        return is_absent(prompt) or not isinstance(messages, list)
    for message in messages:
        text = message.get("content", message.get("value")) if isinstance(message, Mapping) else message
        role = message.get("role", message.get("from")) if isinstance(message, Mapping) else "user"
        if isinstance(text, str) and role != "system":
            return text.strip() == prompt.strip()
    return False


def _ambiguous(first: Shape, second: str, word: str) -> BadRecord:
    choice = f"Choose with --shape {_word(first)} or --shape {word}, or name" if word != _word(first) else "Name"
    return BadRecord(f"can be read as {first} and as {second}", hint=f"{choice} the fields with --column.")


def _preference() -> BadRecord:
    return BadRecord(
        "is a preference record",
        hint="--column completion=chosen learns the chosen answers; preferences need a task for them.",
    )


def _unknown(present: Fields, setting: str) -> BadRecord:
    names = sorted(present)
    shape = "no known record shape" if setting == "auto" else f"not of the shape '{setting}'"
    return BadRecord(f"{shape}; its fields: {', '.join(names) or 'none'}", hint=_advice(names))


def _advice(names: list[str]) -> str:
    """How the fields could be named, by what they are called."""
    if not names:
        return ""
    if len(names) == 1:
        return f"Name it, for example --column text={names[0]}."
    answer = _like(names, _LIKE_AN_ANSWER)
    question = _like([name for name in names if name != answer], _LIKE_A_QUESTION)
    answer = answer or next(name for name in names if name != question)
    question = question or next(name for name in names if name != answer)
    return f"Name them, for example --column prompt={question} --column completion={answer}."


def _like(names: list[str], words: tuple[str, ...]) -> str | None:
    return next((name for word in words for name in names if word in name.lower()), None)
