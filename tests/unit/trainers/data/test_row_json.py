"""JSON of one row: the reason of whatever the parser cannot take, and the rows of a list without parsing them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.data.row_json import MAX_DEPTH, check_depth, parse_json, row_texts

PLAIN = st.none() | st.booleans() | st.integers() | st.text()
VALUES = st.recursive(
    PLAIN, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=12
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"n": ' + "9" * 5000 + "}", "JSON that cannot be used: Exceeds the limit (4300 digits) for integer string conversion: value has 5000 digits"),
        ('{"a":' * 100_000, f"JSON nested more than {MAX_DEPTH} deep"),
        ("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), f"JSON nested more than {MAX_DEPTH} deep"),
        ('{"a": 1', "not valid JSON: Expecting ',' delimiter at column 8"),
        ('"\udcff"', "not UTF-8 text"),
        ("", "not valid JSON: Expecting value at column 1"),
        ('{"a": [{"b": 1, "b": 1}]}', "JSON that cannot be used: the key 'b' stands twice in one object"),
    ],
    ids=["digits", "depth", "one too deep", "cut off", "bytes", "nothing", "a key twice"],
)  # fmt: skip
def test_whatever_the_parser_raises_is_a_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError) as caught:
        parse_json(text)
    assert str(caught.value) == reason


def test_the_limit_of_depth_does_not_depend_on_the_caller() -> None:
    text = '{"a": ' * MAX_DEPTH + "1" + "}" * MAX_DEPTH

    def deeper(frames: int) -> Any:
        return deeper(frames - 1) if frames else parse_json(text)

    assert deeper(500) == parse_json(text)
    with pytest.raises(ValueError, match="nested"):
        check_depth([parse_json(text)])


@given(st.lists(VALUES, max_size=5), st.sampled_from([None, 0, 2]), st.booleans())
def test_the_rows_of_a_list_are_its_members(rows: list[Any], indent: int | None, inside: bool) -> None:
    content = {"x": [1, {"data": [2]}], "data": rows, "y": "]}"} if inside else rows
    assert [json.loads(row) for row in row_texts(json.dumps(content, indent=indent))] == rows


@pytest.mark.parametrize("text", ["{}", '{"data": 3}', "3", "", "[1, 2", '{"data": [1}'])
def test_what_has_no_list_has_no_rows(text: str) -> None:
    with pytest.raises(ValueError):
        list(row_texts(text))
