"""Messages in the form that chat templates take, whatever a data set calls their parts."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pitstop.configs.notices import Notice
from pitstop.trainers.data.chat.conversation import Message
from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.shapes.paths import is_absent
from pitstop.trainers.data.shapes.roles import ASSISTANT, CALL, TOOL, USER
from pitstop.trainers.data.shapes.tools import calls_of, from_json_text

WEIGHTLESS = "{count} [answer has|answers have] the weight 0 and [is|are] not learnt"
OPENING = "{count} [answer opens a conversation|answers open conversations] and [is|are] not learnt"
EMPTY = "{count} [answer is|answers are] empty and [is|are] not learnt"
NOT_LAST = "{count} [answer is|answers are] not the last of [its|their] record and [is|are] not learnt"
UNANSWERED = "{count} [record ends|records end] with a message that nothing answers; it is not used"
CALL_WITHOUT_RESULT = "{count} tool [call has|calls have] no result"
RESULT_WITHOUT_CALL = "{count} tool [result has|results have] no call"

_WEIGHTS = ("weight", "train", "loss")
THOUGHT_FIELDS = ("reasoning_content", "reasoning", "thinking")
_TEXT_PARTS = ("text", "input_text", "output_text")
_KNOWN = frozenset({"role", "from", "content", "value", "tool_calls", "function_call", *_WEIGHTS, *THOUGHT_FIELDS})
_PASSED_ON = frozenset({"name", "tool_call_id"})
_PLAIN = {"role", "content"}


@dataclass
class RecordAccount:
    """What there is to tell of one record: answers that are not learnt, other decisions, and keys of messages that are not used.

    ``counts`` are names of what is counted over the data set, of records that are used.
    """

    unlearnt: list[Notice] = field(default_factory=list)
    notices: list[Notice] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)
    counts: list[str] = field(default_factory=list)


class MessageReader:
    """Reads lists of messages. ``roles`` are the known ones by name, ``template`` is the source of the chat template."""

    def __init__(self, roles: Mapping[str, str], template: str) -> None:
        self._roles, self._template = roles, template
        self._plain = [name for name, role in roles.items() if name == role and role != CALL]
        self._named: dict[str, bool] = {}

    def read(self, raw: Any, name: str, account: RecordAccount) -> tuple[list[Message], list[bool | None]]:
        """The messages under the field ``name``, and which of them may be learnt. Raises ``BadRecord``."""
        messages: list[Message] = []
        weights: list[bool | None] = []
        for number, message in enumerate(as_objects(from_json_text(raw, name), name), start=1):
            if message.keys() == _PLAIN and isinstance(message["content"], str) and message["role"] in self._plain:
                messages.append(message)
                weights.append(True)
            else:
                read, is_learnt = self._message(message, number, account)
                messages.append(read)
                weights.append(is_learnt)
        return messages, weights

    def _message(self, message: Mapping[str, Any], number: int, account: RecordAccount) -> tuple[Message, bool]:
        role = self._role(message, number)
        calls = [] if is_absent(message.get("tool_calls")) else calls_of(message["tool_calls"], number)
        if not is_absent(message.get("function_call")):
            calls += calls_of(message["function_call"], number)
        content = _content_value(message, number)
        if role == CALL:
            role, calls, content = ASSISTANT, calls + calls_of(content, number), None
        text = _text(content, role, bool(calls), number)
        read: dict[str, Any] = {"role": role} | ({} if text is None else {"content": text})
        if thought := _thought(message, number):
            read["reasoning_content"] = thought
        if calls:
            read["tool_calls"] = calls
        for key, value in message.items():
            if key not in _KNOWN and value is not None:
                if key in _PASSED_ON or self._names(key):
                    read[key] = value
                else:
                    account.unused.append(f"messages.{key}")
        return read, _weight(message, role, number)

    def _names(self, key: str) -> bool:
        """Whether the template names a key of messages: as ``.key``, ``['key']``, ``get('key'``, ``'key' in`` or an attribute of a filter."""
        if key not in self._named:
            word = re.escape(key)
            uses = rf"""(?<!\bloop)\.\s*{word}\b|[\[(]\s*(?:attribute\s*=\s*)?['"]{word}['"]|['"]{word}['"]\s+(?:not\s+)?in\b"""
            self._named[key] = re.search(uses, self._template) is not None
        return self._named[key]

    def _role(self, message: Mapping[str, Any], number: int) -> str:
        named = _one_of(message, ("role", "from"), number)
        if not isinstance(named, str) or not named:
            raise BadRecord(f"message {number} has no role")
        role = self._roles.get(named.casefold())
        if role is None:
            raise BadRecord(
                f"message {number} has the role '{named}'",
                hint=f"Map it: --role {named}=assistant, or --role {named}={named} to pass it on.",
            )
        return role


def as_objects(value: Any, name: str) -> list[Mapping[str, Any]]:
    """The messages of a field as objects: texts take turns, the user first, and ``{input, output}`` is a question with its answer.

    ``value`` is a list of them or a single one. Raises ``BadRecord``.
    """
    listed = [value] if isinstance(value, Mapping) else value
    if not isinstance(listed, list) or not listed:
        raise BadRecord(f"'{name}' is not a list with at least one message")
    if all(isinstance(item, str) for item in listed):
        return [{"role": ASSISTANT if number % 2 else USER, "content": text} for number, text in enumerate(listed)]
    for number, item in enumerate(listed, start=1):
        if not isinstance(item, Mapping):
            raise BadRecord(f"message {number} is not an object but {type(item).__name__}")
    if all("input" in item and "output" in item and "role" not in item and "from" not in item for item in listed):
        return [{"role": role, "content": item[key]} for item in listed for role, key in ((USER, "input"), (ASSISTANT, "output"))]
    return list(listed)


def _one_of(message: Mapping[str, Any], keys: Sequence[str], number: int) -> Any:
    """The value of the key that the message has. Raises ``BadRecord`` for two that say different things."""
    values = [message[key] for key in keys if not is_absent(message.get(key))]
    if any(value != values[0] for value in values):
        named = " and ".join(f"'{key}'" for key in keys if not is_absent(message.get(key)))
        raise BadRecord(f"message {number} has {named}, which say different things")
    return values[0] if values else None


def _content_value(message: Mapping[str, Any], number: int) -> Any:
    content = _one_of(message, ("content", "value"), number)
    return message.get("content", message.get("value")) if content is None else content


def _text(content: Any, role: str, has_calls: bool, number: int) -> str | None:
    """The text of a message; None where it has tool calls alone. A tool's result may be any JSON value."""
    if isinstance(content, str):
        return None if has_calls and not content else content
    if isinstance(content, list) and content and all(isinstance(part, Mapping) and "type" in part for part in content):
        return "".join(_part_text(part, number) for part in content)
    if role == TOOL and content is not None:
        return json.dumps(content, ensure_ascii=False, default=str)  # a table has dates, too
    if content in (None, []) and has_calls:
        return None
    raise BadRecord(f"message {number} has neither text nor tool calls")


def _part_text(part: Mapping[str, Any], number: int) -> str:
    if part["type"] not in _TEXT_PARTS:
        raise BadRecord(
            f"message {number} has a part of type '{part['type']}'; Pitstop trains on text",
            hint="--skip-bad-rows leaves such records out.",
        )
    text = part.get("text", part.get("content"))
    if not isinstance(text, str):
        raise BadRecord(f"message {number} has a part without text")
    return text


def _thought(message: Mapping[str, Any], number: int) -> str:
    thought = _one_of(message, THOUGHT_FIELDS, number)
    if thought is not None and not isinstance(thought, str):
        raise BadRecord(f"message {number} has a thought that is no text")
    return thought or ""


def _weight(message: Mapping[str, Any], role: str, number: int) -> bool:
    """Whether a message may be learnt, as far as its own keys say. Raises ``BadRecord``."""
    weights = {key: message[key] for key in _WEIGHTS if message.get(key) is not None}
    for key, value in weights.items():
        if not isinstance(value, bool | int | float) or value not in (0, 1):
            raise BadRecord(f"message {number} has the {key} {value!r}", hint="Only 0 and 1 are known.")
        if value and role != ASSISTANT:
            raise BadRecord(f"message {number} has the {key} {value!r} and is no answer", hint="Only answers are learnt.")
    if len({bool(value) for value in weights.values()}) > 1:
        raise BadRecord(f"message {number} has {' and '.join(f'{key} {value!r}' for key, value in weights.items())}")
    return all(weights.values())


def learnt_answers(
    messages: Sequence[Message], weights: Sequence[bool | None], account: RecordAccount, *, only_last: bool
) -> list[bool]:
    """Which messages are answers to be learnt; what is not learnt is told, and counted by its reason.

    ``weights`` says of each message whether it may be learnt; None is part of a question, whoever wrote it.
    """
    learnt = []
    for number, (message, weight) in enumerate(zip(messages, weights, strict=True)):
        is_answer = message["role"] == ASSISTANT and weight is not None
        reason = None
        if is_answer and not weight:
            reason = WEIGHTLESS
        elif is_answer and number == 0:
            reason = OPENING
        elif is_answer and "tool_calls" not in message and not message["content"].strip():
            reason = EMPTY
        learnt.append(is_answer and reason is None)
        if reason is not None:
            account.unlearnt.append(Notice(reason))
    if only_last and sum(learnt) > 1:
        last = max(number for number, learn in enumerate(learnt) if learn)
        account.unlearnt.append(Notice(NOT_LAST, count=sum(learnt) - 1))
        learnt = [number == last for number in range(len(learnt))]
    return learnt


def tell_calls(messages: Sequence[Message], account: RecordAccount) -> None:
    """Count calls without a result, the last answer's aside, and results without a call."""
    waiting = 0
    for message in messages:
        if message["role"] == TOOL:
            if not waiting:
                account.notices.append(Notice(RESULT_WITHOUT_CALL))
            waiting = max(0, waiting - 1)
            continue
        if waiting:
            account.notices.append(Notice(CALL_WITHOUT_RESULT, count=waiting))
        waiting = len(message.get("tool_calls", ()))
