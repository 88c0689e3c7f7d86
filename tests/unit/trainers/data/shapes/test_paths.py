"""A field is named by its own name first, then by a path; templates make a question of fields."""

from __future__ import annotations

import pytest

from pitstop.trainers.data.records import BadRecord
from pitstop.trainers.data.shapes.paths import ColumnMapping, FieldPath, PromptTemplate

FIELDS = {"q": "Q", "a.b": "flat", "a": {"b": ["x", {"c": "y"}]}, "n": None}


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("q", "Q"),
        ("a.b", "flat"),
        ("a.b[0]", "x"),
        ("a.b[1].c", "y"),
        ("a.b[-1].c", "y"),
        ("a.b[2]", None),
        ("q[0]", None),
        ("q.x", None),
        ("n", None),
        ("missing.b", None),
    ],
)
def test_a_path_leads_to_a_value(path: str, value: str | None) -> None:
    assert FieldPath(path).value_in(FIELDS) == value


def test_mapped_fields_take_new_names_and_leave_the_old() -> None:
    mapping = ColumnMapping({"prompt": "completion", "completion": "prompt", "source": ""})
    assert mapping.apply({"prompt": "a", "completion": "b", "source": "s", "id": 1}) == (
        {"prompt": "b", "completion": "a", "id": 1},
        [],
    )
    mapping = ColumnMapping({"prompt": "q"})
    assert mapping.apply({"q": "Q", "prompt": "P"}) == ({"prompt": "Q"}, ["prompt"])
    assert mapping.apply({"prompt": "P"}) == ({}, ["prompt"])
    assert mapping.missing_in({"x": 1}) == [mapping.paths["prompt"].text] == ["q"]


def test_a_template_writes_fields_as_text_and_as_json() -> None:
    template = PromptTemplate("{{{q}}} {a.b[1]} {n?}.")
    assert template.question(FIELDS) == '{Q} {"c": "y"} .'
    assert [path.text for path in template.paths] == ["q", "a.b[1]", "n"] and list(template.names_in(FIELDS)) == ["q", "a", "n"]
    assert all(path.leads_into(FIELDS) for path in template.paths) and not FieldPath("b.a").leads_into(FIELDS)
    with pytest.raises(BadRecord, match="no field 'n', which the prompt template names") as caught:
        PromptTemplate("{n}").question(FIELDS)
    assert caught.value.hint == "Write {n?} where it may be absent."
