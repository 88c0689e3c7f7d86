"""Tools and calls of any dialect are a list of functions with arguments as objects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.shapes.tools import calls_of, tools_of, without_nulls

ADD = {"name": "add", "parameters": {"type": "object"}}
TOOL = {"type": "function", "function": ADD}


@pytest.mark.parametrize(
    "value",
    [[TOOL], json.dumps([TOOL]), [json.dumps(TOOL)], [ADD], [json.dumps(ADD)], [{"function": ADD}]],
)
def test_tools_in_any_form_are_one_list(value: Any) -> None:
    assert tools_of(value) == [TOOL]


def test_no_tools_are_none() -> None:
    assert tools_of([]) == tools_of("[]") == []


@pytest.mark.parametrize("call", [{"type": "function", "function": {"name": "add"}}, {"name": "add", "arguments": ""}])
def test_a_call_without_arguments_has_none(call: Any) -> None:
    assert calls_of([call], 1) == [{"type": "function", "function": {"name": "add", "arguments": {}}}]


def test_arguments_are_objects_and_the_number_of_a_call_stays() -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a": [1, null]}'}}
    normal = {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": [1, None]}}}
    assert calls_of([call], 1) == calls_of(json.dumps([call]), 1) == calls_of(call, 1) == [normal]


@pytest.mark.parametrize(
    ("read", "value", "reason"),
    [
        (tools_of, {"name": "add"}, "'tools' is not a list of tools"),
        (tools_of, [{"type": "function"}], "'tools' 1 has no function with a name"),
        (tools_of, ["add"], "'tools' is text and not valid JSON"),
        (lambda value: calls_of(value, 2), [{"name": "add", "arguments": "{a"}], "the arguments of 'add' are not JSON"),
        (lambda value: calls_of(value, 2), [{"name": "add", "arguments": "[1]"}], "the arguments of 'add' are no JSON object"),
        (lambda value: calls_of(value, 2), [{"arguments": {}}], "message 2 has a tool call without a name"),
        (lambda value: calls_of(value, 2), [3], "message 2 has a tool call without a name"),
    ],
)
def test_what_is_no_tool_or_call_has_its_reason(read: Any, value: Any, reason: str) -> None:
    with pytest.raises(BadRecord, match=reason.replace("[", r"\[")):
        read(value)


def test_null_keys_go_at_any_depth_and_items_of_lists_stay() -> None:
    assert without_nulls({"a": None, "b": [None, {"c": None, "d": 0}]}) == {"b": [None, {"d": 0}]}
