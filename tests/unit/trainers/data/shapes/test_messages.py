"""Messages of any dialect become those that chat templates take; what they cannot say is refused by its number."""

from __future__ import annotations

from datetime import date
from typing import Any

import pytest

from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.shapes.messages import MessageReader, RecordAccount, learnt_answers, tell_calls
from pitstop.trainers.data.shapes.roles import known_roles

USER = {"role": "user", "content": "Q1"}
CALL = {"type": "function", "function": {"name": "add", "arguments": {"a": 1}}}


def _read(
    *messages: Any, template: str = "", roles: dict[str, str] | None = None, account: RecordAccount | None = None
) -> list[Any]:
    reader = MessageReader(known_roles(template, roles or {}), template)
    return list(reader.read(list(messages), "messages", account or RecordAccount())[0])


def _refusal(*messages: Any) -> str:
    with pytest.raises(BadRecord) as caught:
        _read(*messages)
    return f"{caught.value} · {caught.value.hint}" if caught.value.hint else str(caught.value)


def test_a_message_of_chat_apis_stays_the_object_it_is() -> None:
    assert _read(USER)[0] is USER


@pytest.mark.parametrize(
    ("message", "normal"),
    [
        ({"from": "Human", "value": "Q1"}, USER),
        ({"from": "human", "role": "human", "content": "Q1", "value": "Q1"}, USER),
        ({"role": "User", "content": "Q1", "name": None}, USER),
        ({"role": "user", "content": [{"type": "input_text", "text": "Q"}, {"type": "text", "text": "1"}]}, USER),
        ({"role": "user", "content": "Q1", "name": "Ann"}, {**USER, "name": "Ann"}),
        (
            {"role": "assistant", "content": "A", "reasoning": "R", "weight": 1.0},
            {"role": "assistant", "content": "A", "reasoning_content": "R"},
        ),
        ({"role": "assistant", "content": None, "tool_calls": [CALL]}, {"role": "assistant", "tool_calls": [CALL]}),
        ({"role": "assistant", "content": "", "tool_calls": [CALL]}, {"role": "assistant", "tool_calls": [CALL]}),
        ({"role": "assistant", "content": "A", "tool_calls": []}, {"role": "assistant", "content": "A"}),
        (
            {"role": "assistant", "function_call": {"name": "add", "arguments": '{"a": 1}'}},
            {"role": "assistant", "tool_calls": [CALL]},
        ),
        (
            {"from": "function_call", "value": '{"name": "add", "arguments": {"a": 1}}'},
            {"role": "assistant", "tool_calls": [CALL]},
        ),
        (
            {"role": "tool_call", "content": [{"name": "add", "arguments": {"a": 1}}] * 2},
            {"role": "assistant", "tool_calls": [CALL, CALL]},
        ),
        ({"from": "observation", "value": 3}, {"role": "tool", "content": "3"}),
        ({"role": "function", "name": "add", "content": {"sum": 3}}, {"role": "tool", "name": "add", "content": '{"sum": 3}'}),
        ({"role": "tool", "tool_call_id": "c1", "content": [1, 2]}, {"role": "tool", "tool_call_id": "c1", "content": "[1, 2]"}),
    ],
)
def test_a_message_in_its_normal_form(message: dict[str, Any], normal: dict[str, Any]) -> None:
    assert _read(message) == [normal]


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"role": "user"}, "message 1 has neither text nor tool calls"),
        ({"role": "assistant", "content": None}, "message 1 has neither text nor tool calls"),
        ({"role": "user", "content": ["a"]}, "message 1 has neither text nor tool calls"),
        ({"content": "x"}, "message 1 has no role"),
        ({"role": 3, "content": "x"}, "message 1 has no role"),
        ({"role": "user", "content": "x", "value": "y"}, "message 1 has 'content' and 'value', which say different things"),
        ({"role": "user", "from": "gpt", "content": "x"}, "message 1 has 'role' and 'from', which say different things"),
        (
            {"role": "critic", "content": "x"},
            "message 1 has the role 'critic' · Map it: --role critic=assistant, or --role critic=critic to pass it on.",
        ),
        ({"role": "assistant", "content": "x", "weight": 0.5}, "message 1 has the weight 0.5 · Only 0 and 1 are known."),
        ({"role": "assistant", "content": "x", "train": "no"}, "message 1 has the train 'no' · Only 0 and 1 are known."),
        ({"role": "user", "content": "x", "weight": 1}, "message 1 has the weight 1 and is no answer · Only answers are learnt."),
        ({"role": "assistant", "content": "x", "weight": 1, "train": False}, "message 1 has weight 1 and train False"),
        (
            {"role": "user", "content": [{"type": "image_url", "image_url": {}}]},
            "message 1 has a part of type 'image_url'; Pitstop trains on text · --skip-bad-rows leaves such records out.",
        ),
        ({"role": "user", "content": [{"type": "text"}]}, "message 1 has a part without text"),
        ({"role": "assistant", "content": "x", "thinking": 3}, "message 1 has a thought that is no text"),
        ({"role": "function_call", "content": "add"}, "'tool_calls' is text and not valid JSON"),
    ],
)
def test_a_message_that_cannot_be_used_has_its_reason(message: dict[str, Any], reason: str) -> None:
    assert reason in _refusal(message)


def test_roles_are_mapped_and_passed_on() -> None:
    message = {"role": "Critic", "content": "x"}
    assert _read(message, roles={"critic": "assistant"}) == [{"role": "assistant", "content": "x"}]
    assert _read(message, roles={"critic": "gpt"}) == [{"role": "assistant", "content": "x"}]
    assert _read(message, roles={"critic": "critic"}) == [{"role": "critic", "content": "x"}]
    developer = {"role": "developer", "content": "x"}
    assert _read(developer) == [{"role": "system", "content": "x"}]
    assert _read(developer, template="{% if m.role == 'developer' %}") == [developer]


def test_keys_that_the_template_names_go_to_it_and_others_are_told() -> None:
    account = RecordAccount()
    message = {**USER, "mood": "glad", "id": 7, "empty": None}
    assert _read(message, template="{{ m.mood }}", account=account) == [{**USER, "mood": "glad"}]
    assert account.unused == ["messages.id"]


def test_calls_and_results_that_miss_each_other_are_told() -> None:
    call, result = {"role": "assistant", "tool_calls": [CALL, CALL]}, {"role": "tool", "content": "3"}
    for messages, expected in (
        ([USER, call, result, result, USER, call], []),
        ([USER, call, result, USER], ["1 tool call has no result"]),
        ([USER, call, USER], ["2 tool calls have no result"]),
        ([USER, result, call, result, result, result], ["1 tool result has no call"] * 2),
    ):
        account = RecordAccount()
        tell_calls(messages, account)
        assert [str(notice).rstrip(".") for notice in account.notices] == expected


def test_an_answer_with_calls_alone_is_learnt() -> None:
    call = {"role": "assistant", "tool_calls": [CALL]}
    assert learnt_answers([USER, call], [True, True], RecordAccount(), only_last=False) == [False, True]


@pytest.mark.parametrize(
    ("template", "is_named"),
    [
        ("{% for m in messages %}{{ m.mood }}{% endfor %}", True),
        ("{{ messages[0]['mood'] }}", True),
        ('{{ messages[0].get("mood", "") }}', True),
        ("{% if 'mood' not in m %}x{% endif %}", True),
        ("{{ messages | map(attribute='mood') | join }}", True),
        ("moods{{ m.moody }}<|mood|>{% if m.role == 'mood' %}{% endif %}{{ loop.mood }}", False),
    ],
)
def test_a_key_of_a_message_goes_to_the_template_only_where_that_names_it_as_a_key(template: str, is_named: bool) -> None:
    account = RecordAccount()
    [message] = _read({**USER, "mood": "glad"}, template=template, account=account)
    assert message.get("mood") == ("glad" if is_named else None)
    assert account.unused == ([] if is_named else ["messages.mood"])


def test_a_result_of_a_table_may_hold_a_date() -> None:
    assert _read({"role": "tool", "content": {"day": date(2026, 1, 2)}})[0]["content"] == '{"day": "2026-01-02"}'
