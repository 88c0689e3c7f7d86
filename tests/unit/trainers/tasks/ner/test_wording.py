"""The words of entity extraction: questions, answers, and names of types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.tasks.ner.scores import parse_items
from pitstop.trainers.tasks.ner.wording import UnusableItem, completion, distinct, prompt, type_name


@pytest.mark.parametrize(
    ("written", "name"),
    [
        ("Chemical", "chemical"),
        ("Cell-Line", "cell_line"),
        ("cell line", "cell_line"),
        ("X_y ", "x_y"),
        ("Ärzte", "ärzte"),
        ("-", ""),
    ],
)
def test_a_type_has_one_name_however_it_is_spelt(written: str, name: str) -> None:
    assert type_name(written) == name


def test_a_known_type_is_explained_and_another_is_named() -> None:
    assert "every disease (illness, injury, symptom or side effect) that the text names" in prompt("t", "disease")
    assert prompt("t", "cell_line").startswith("List every cell line that the text names")


def test_a_template_is_filled_in_once_and_keeps_other_braces() -> None:
    assert prompt("a {type} {x}", "cell_line", "{type}|{text}|{other}") == "cell line|a {type} {x}|{other}"


@given(st.lists(st.text()))
def test_whatever_can_be_named_is_read_back_from_the_answer(items: list[str]) -> None:
    nameable = []
    for item in items:
        try:
            nameable += distinct([item])
        except UnusableItem:
            assert parse_items(f"- {' '.join(item.split())}") == []
    kept = distinct(nameable)
    assert len({item.casefold() for item in kept}) == len(kept) and set(kept) <= set(nameable)
    read = parse_items(completion(kept))
    assert len(read) <= len(kept) and (len(read) > 0) == (len(kept) > 0)
    assert parse_items(completion(read)) == read
