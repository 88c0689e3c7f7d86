"""Tools and calls in the one form that chat templates take: a list of functions, arguments as objects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.row_json import parse_json


def without_nulls(value: Any) -> Any:
    """``value`` without the keys that are null, however deep; items of lists stay.

    A table of structs has every key of every row, so null stands for a key that is not there.
    """
    if isinstance(value, Mapping):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def from_json_text(value: Any, name: str) -> Any:
    """What ``value`` holds where it is a text: JSON, as a cell of a CSV file has it. Raises ``BadRecord``."""
    if not isinstance(value, str):
        return value
    try:
        return parse_json(value)
    except ValueError as error:
        raise BadRecord(f"'{name}' is text and {error}") from None


def tools_of(value: Any, name: str = "tools") -> list[Mapping[str, Any]]:
    """The tools of a record as a list: of a list, the JSON text of one, or a list of JSON texts. Raises ``BadRecord``."""
    listed = from_json_text(value, name)
    if not isinstance(listed, list):
        raise BadRecord(f"'{name}' is not a list of tools")
    tools = [from_json_text(tool, name) for tool in listed]
    return [_tool(tool, name, number) for number, tool in enumerate(tools, start=1)]


def _tool(tool: Any, name: str, number: int) -> Mapping[str, Any]:
    if isinstance(tool, Mapping) and isinstance(tool.get("function"), Mapping):
        return tool if "type" in tool else {"type": "function", **tool}
    if isinstance(tool, Mapping) and isinstance(tool.get("name"), str):
        return {"type": "function", "function": tool}
    raise BadRecord(f"'{name}' {number} has no function with a name")


def calls_of(value: Any, number: int) -> list[Mapping[str, Any]]:
    """The calls of message ``number``, each ``{"type": "function", "function": {"name", "arguments"}}``. Raises ``BadRecord``.

    ``value`` is a list of calls or of bare functions, a single one, or the JSON text of either.
    """
    listed = from_json_text(value, "tool_calls")
    calls = listed if isinstance(listed, list) else [listed]
    return [_call(from_json_text(call, "tool_calls"), number) for call in calls]


def _call(call: Any, number: int) -> Mapping[str, Any]:
    function = call.get("function", call) if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str) or not function["name"]:
        raise BadRecord(f"message {number} has a tool call without a name")
    function = {**function, "arguments": _arguments(function.get("arguments"), function["name"])}
    extra = {key: value for key, value in call.items() if key not in ("type", "function")} if "function" in call else {}
    return {"type": "function", **extra, "function": function}


def _arguments(value: Any, name: str) -> Mapping[str, Any]:
    if value is None or (isinstance(value, str) and not value.strip()):
        return {}
    if isinstance(value, str):
        try:
            value = parse_json(value)
        except ValueError:
            raise BadRecord(f"the arguments of '{name}' are not JSON") from None
    if not isinstance(value, Mapping):
        raise BadRecord(f"the arguments of '{name}' are no JSON object")
    return value
