"""Which fields of a record are a question with a better and a worse answer, and where the question ends that both answers begin with."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pitstop.trainers.data.chat.conversation import Message
from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.shapes.messages import MessageReader, RecordAccount, as_objects
from pitstop.trainers.data.shapes.paths import Fields, is_absent
from pitstop.trainers.data.shapes.recognition import ANSWERS_OF, MESSAGE_FIELDS, Kind, Shape, recognise
from pitstop.trainers.data.shapes.roles import ASSISTANT, USER
from pitstop.trainers.data.shapes.tools import from_json_text

CHOSEN, REJECTED = "chosen", "rejected"
LABELS = ("label", "kto_tag")
EQUAL = "the two answers are equal"

_OPENAI = ("input", "preferred_output", "non_preferred_output")
_JUDGEMENTS = {"true": True, "1": True, "1.0": True, "false": False, "0": False, "0.0": False}
_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")


@dataclass(frozen=True)
class PreferenceFields:
    """The fields of a preference in one form: ``fields`` has each answer under its own name, and what it follows under ``question``.

    ``kind`` is ``pair`` for texts, ``lists`` for messages. ``used`` are fields of the record that are in it, ``unused`` parts of these that
    are not.
    """

    fields: Mapping[str, Any]
    kind: Kind
    question: str
    used: Sequence[str] = ()
    unused: Sequence[str] = ()


def preference_shape(fields: Fields) -> Shape:
    """The fields that make a record a preference. Raises ``BadRecord`` where there are none, or two ways to read it."""
    present = {name: value for name, value in fields.items() if not is_absent(value)}
    shapes: list[Shape] = []
    if CHOSEN in fields and REJECTED in fields:
        shapes.append(Shape("preference", (*_question_of(present), CHOSEN, REJECTED)))
    if all(name in present for name in _OPENAI):
        shapes.append(Shape("preference", _OPENAI))
    labels = [name for name in LABELS if name in present]
    if labels and "completion" in fields:
        pair = recognise(fields, "prompt")
        shapes.append(Shape("preference", (*pair.fields, *labels)))
    if not shapes:
        names = ", ".join(sorted(present)) or "none"
        raise BadRecord(
            f"not of the shape 'preference'; its fields: {names}",
            hint="Name them: --column chosen=FIELD and --column rejected=FIELD, or --column completion=FIELD and --column label=FIELD.",
        )
    if len(shapes) > 1:
        raise BadRecord(f"can be read as {shapes[0]} and as {shapes[1]}", hint="Leave one out, for example with --column label=.")
    return shapes[0]


def _question_of(present: Fields) -> tuple[str, ...]:
    """The field of the question: one of those with a text or messages, or the messages that single answers follow."""
    names = [name for name in ANSWERS_OF if name in present]
    if len(names) > 1:
        raise BadRecord(
            f"has both '{names[0]}' and '{names[1]}' in front of its answers", hint=f"Leave one out: --column {names[1]}="
        )
    if all(_is_single(present.get(name)) for name in (CHOSEN, REJECTED)):
        lists = [name for name in MESSAGE_FIELDS if name in present]
        if len(lists) > 1 or (lists and names):
            rival = [*lists, *names][1]
            raise BadRecord(
                f"has both '{lists[0]}' and '{rival}' in front of its answers", hint=f"Leave one out: --column {rival}="
            )
        names = names or lists
    return tuple(names)


def _is_single(value: Any) -> bool:
    return isinstance(value, Mapping) or (isinstance(value, list) and len(value) == 1 and isinstance(value[0], Mapping))


def answers_in(fields: Fields) -> int:
    """How many answers a malformed record has, as far as that can be told."""
    if CHOSEN in fields or REJECTED in fields:
        return sum(not is_absent(fields.get(name)) for name in (CHOSEN, REJECTED))
    return sum(not is_absent(fields.get(name)) for name in (*_OPENAI[1:], "completion"))


def judgement(fields: Fields, shape: Shape) -> bool | None:
    """Whether the answer of a record was judged to be good; None for a pair of answers. Raises ``BadRecord``."""
    labels = [name for name in shape.fields if name in LABELS]
    values = [_JUDGEMENTS.get(str(fields[name]).strip().lower()) for name in labels]
    for name, value in zip(labels, values, strict=True):
        if value is None:
            raise BadRecord(f"its {name} is {fields[name]!r}", hint="Only true and false, or 1 and 0, are known.")
        if value is not values[0]:
            raise BadRecord(
                f"has '{labels[0]}' and '{name}', which say different things", hint=f"Leave one out: --column {name}="
            )
    return values[0] if values else None


def margin(fields: Fields) -> float | None:
    """By how much one answer is better; None where the record does not say. Raises ``BadRecord``."""
    value = fields.get("margin")
    if value is None or value == "":
        return None
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise BadRecord(f"its margin is {value!r}, which is no number", hint="Leave it out: --column margin=")
    return number


class AnswerParting:
    """Parts the answers of a record from what they follow; ``reader`` reads its messages."""

    def __init__(self, reader: MessageReader) -> None:
        self._reader = reader

    def part(self, fields: Fields, shape: Shape) -> PreferenceFields:
        """The answers under ``chosen`` and ``rejected``, and the question that both follow. Raises ``BadRecord``."""
        if shape.fields == _OPENAI:
            return self._openai(fields)
        answers = {name: _parsed(fields[name], name) for name in (CHOSEN, REJECTED)}
        for name, answer in answers.items():
            if is_absent(answer) or (isinstance(answer, str) and not answer.strip()) or answer == []:
                raise BadRecord(f"'{name}' is empty")
        if isinstance(answers[CHOSEN], str) is not isinstance(answers[REJECTED], str):
            text, messages = (CHOSEN, REJECTED) if isinstance(answers[CHOSEN], str) else (REJECTED, CHOSEN)
            raise BadRecord(f"'{messages}' is a list of messages and '{text}' is text", hint="Give both in one form.")
        question = shape.fields[0] if len(shape.fields) > 2 else ""
        if isinstance(answers[CHOSEN], str):
            return self._texts({**fields, **answers}, question)
        return self._lists({**fields, **answers}, question)

    def _openai(self, fields: Fields) -> PreferenceFields:
        """``input`` holds the messages and tools, the outputs are lists of messages."""
        request = from_json_text(fields["input"], "input")
        if not isinstance(request, Mapping) or is_absent(request.get("messages")):
            raise BadRecord("'input' is not an object with 'messages'")
        tools = request.get("tools")
        if not is_absent(tools) and fields.get("tools") not in (None, "", [], tools):
            raise BadRecord("has 'tools' and other ones in 'input'", hint="Leave one out: --column tools=")
        extras = {} if is_absent(tools) else {"tools": tools}
        outputs = {name: _parsed(fields[field], field) for name, field in zip((CHOSEN, REJECTED), _OPENAI[1:], strict=True)}
        parted = self._lists({**fields, **extras, **outputs, "prompt": request["messages"]}, "prompt")
        unused = [
            f"input.{name}" for name, value in request.items() if name not in ("messages", "tools") and not is_absent(value)
        ]
        return PreferenceFields(parted.fields, parted.kind, parted.question, _OPENAI, unused)

    # Texts ---------------------------------------------------------------------------------------------------------------

    def _texts(self, fields: dict[str, Any], question: str) -> PreferenceFields:
        chosen, rejected = fields[CHOSEN], fields[REJECTED]
        if chosen == rejected:
            raise BadRecord(EQUAL)
        turns = {CHOSEN: _turns(chosen), REJECTED: _turns(rejected)}
        if turns[CHOSEN] and turns[REJECTED]:
            return self._lists({**fields, **turns}, question)
        if question:
            if isinstance(_parsed(fields[question], question), list | Mapping):
                raise BadRecord(f"'{question}' is a list of messages and '{CHOSEN}' is text", hint="Give both in one form.")
            return PreferenceFields(fields, "pair", question, (question,))
        common = chosen[: _shared(chosen, rejected)]
        end = max((match.start() for match in re.finditer(r"\s+", common)), default=0)
        if not common[:end].strip():
            raise _nothing_in_common()
        return PreferenceFields(
            {**fields, "prompt": common[:end], CHOSEN: chosen[end:], REJECTED: rejected[end:]}, "pair", "prompt"
        )

    # Messages ------------------------------------------------------------------------------------------------------------

    def _lists(self, fields: dict[str, Any], question: str) -> PreferenceFields:
        raw = {name: as_objects(fields[name], name) for name in (CHOSEN, REJECTED)}
        read = {name: self._read(raw[name], name) for name in raw}
        content = _parsed(fields[question], question) if question else ""
        if all(messages[0]["role"] == ASSISTANT for messages in read.values()) and content:
            _check_apart(read[CHOSEN], read[REJECTED])
            prompt = [{"role": USER, "content": content}] if isinstance(content, str) else content
            return PreferenceFields({**fields, **raw, question: prompt}, "lists", question, (question,))
        end = _end_of_question(read[CHOSEN], read[REJECTED])
        used = [question] if content and self._is_question(content, question, read[CHOSEN][:end]) else []
        parted = {"prompt": raw[CHOSEN][:end], CHOSEN: raw[CHOSEN][end:], REJECTED: raw[REJECTED][end:]}
        return PreferenceFields({**fields, **parted}, "lists", "prompt", used)

    def _read(self, raw: Any, name: str) -> list[Message]:
        return self._reader.read(raw, name, RecordAccount())[0]

    def _is_question(self, content: Any, name: str, front: Sequence[Message]) -> bool:
        """Whether ``content`` is the last question of the messages in front of the answers. Messages have to be all of these."""
        if isinstance(content, str):
            texts = [message.get("content", "") for message in front if message["role"] == USER]
            return bool(texts) and str(texts[-1]).strip() == content.strip()
        if self._read(content, name) != list(front):
            raise BadRecord(f"'{name}' has other messages than its answers begin with", hint=f"Leave it out: --column {name}=")
        return True


def _check_apart(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """How many messages the two begin with alike. Raises ``BadRecord`` where nothing comes behind these in one of them."""
    shared = _shared(chosen, rejected)
    if shared == len(chosen) == len(rejected):
        raise BadRecord(EQUAL)
    if shared in (len(chosen), len(rejected)):
        shorter, longer = (CHOSEN, REJECTED) if shared == len(chosen) else (REJECTED, CHOSEN)
        raise BadRecord(f"'{shorter}' is the beginning of '{longer}'")
    return shared


def _end_of_question(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """How many messages are the question: the longest run that both begin with and that ends in front of an answer in both."""
    for end in range(_check_apart(chosen, rejected), 0, -1):
        if chosen[end]["role"] == rejected[end]["role"] == ASSISTANT and chosen[end - 1]["role"] != ASSISTANT:
            return end
    raise _nothing_in_common()


def _shared(first: Sequence[Any], second: Sequence[Any]) -> int:
    """How many items the two begin with alike."""
    shorter = min(len(first), len(second))
    return next((number for number in range(shorter) if first[number] != second[number]), shorter)


def _nothing_in_common() -> BadRecord:
    return BadRecord("its answers have nothing in common to begin with", hint="Give 'prompt', for example --column prompt=FIELD.")


def _parsed(value: Any, name: str) -> Any:
    """Messages where a text is the JSON of some, as a cell of a CSV file is; JSON of anything else may be an answer."""
    if not isinstance(value, str) or value.lstrip()[:1] not in ("[", "{"):
        return value
    try:
        parsed = from_json_text(value, name)
    except BadRecord:
        return value
    messages = parsed if isinstance(parsed, list) else [parsed]
    return (
        parsed
        if messages and all(isinstance(item, Mapping) and ("role" in item or "from" in item) for item in messages)
        else value
    )


def _turns(text: str) -> list[Mapping[str, Any]]:
    """The messages of a text in which a human and an assistant take turns; none for any other text."""
    _, *parts = _TURN.split(text.lstrip())
    if not parts or parts[0] != "Human" or not text.lstrip().startswith("Human:"):
        return []
    return [
        {"role": USER if speaker == "Human" else ASSISTANT, "content": text.strip()}
        for speaker, text in zip(parts[::2], parts[1::2], strict=True)
    ]
