"""The shipped medical-NER records are well formed, and the pairs derived from them are in step."""

from __future__ import annotations

import json
import re
from importlib.resources import files
from typing import Any

import pytest

from pitstop.examples.medical_ner.render import (
    ENTITY_TYPES,
    PAIRS_FROM_RECORDS,
    completion,
    prompt,
    render,
    render_lines,
    write_pairs,
)

DATA = files("pitstop.examples.medical_ner")
COUNTS = {"records_train.jsonl": 100, "records_held_out.jsonl": 20, "train.jsonl": 200, "held_out.jsonl": 40}


def rows(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def all_records() -> list[dict[str, Any]]:
    return rows("records_train.jsonl") + rows("records_held_out.jsonl")


def marked(name: str) -> set[tuple[str, str]]:
    return {(kind, item.casefold()) for row in rows(name) for kind in ENTITY_TYPES for item in row["entities"][kind]}


@pytest.mark.parametrize("name", COUNTS)
def test_files_have_the_stated_number_of_rows(name: str) -> None:
    assert len(rows(name)) == COUNTS[name]


@pytest.mark.parametrize("record", all_records(), ids=lambda record: record["id"])
def test_record_has_the_ner_shape_and_marks_what_its_text_says(record: dict[str, Any]) -> None:
    assert set(record) == {"id", "text", "entities"} and set(record["entities"]) == set(ENTITY_TYPES)
    assert 15 <= len(record["text"].split()) <= 45
    for items in record["entities"].values():
        assert len({item.casefold() for item in items}) == len(items)
        positions = [re.search(rf"(?<!\w){re.escape(item)}(?!\w)", record["text"]) for item in items]
        assert all(positions), items
        starts = [match.start() for match in positions if match]
        assert starts == sorted(starts)


def test_ids_and_texts_are_unique_over_both_files() -> None:
    records = all_records()
    assert len({record["id"] for record in records}) == len(records)
    assert len({record["text"].casefold() for record in records}) == len(records)


def test_held_out_records_mark_nothing_that_training_records_mark() -> None:
    assert not marked("records_train.jsonl") & marked("records_held_out.jsonl")


@pytest.mark.parametrize("kind", ENTITY_TYPES)
@pytest.mark.parametrize("name", ["records_train.jsonl", "records_held_out.jsonl"])
def test_some_records_have_no_entity_of_a_type(name: str, kind: str) -> None:
    assert any(not row["entities"][kind] for row in rows(name))


@pytest.mark.parametrize(("pairs", "records"), PAIRS_FROM_RECORDS.items())
def test_pairs_are_in_step_with_the_records(pairs: str, records: str) -> None:
    derived = render_lines((DATA / records).read_text(encoding="utf-8").splitlines())
    assert derived == (DATA / pairs).read_text(encoding="utf-8"), "run: python -m pitstop.examples.medical_ner.render"


def test_a_record_becomes_one_pair_for_each_type() -> None:
    record = {"id": "x", "text": "Aspirin and ibuprofen.", "entities": {"chemical": ["Aspirin", "ibuprofen"], "disease": []}}
    chemical, disease = render(record)
    assert (chemical["id"], chemical["entity_type"]) == ("x-chemical", "chemical")
    assert chemical["completion"] == "- Aspirin\n- ibuprofen"
    assert disease["completion"] == completion([]) == "- none"
    assert disease["prompt"] == prompt(record["text"], "disease") and disease["prompt"].endswith(record["text"])


def test_write_pairs_derives_both_files(tmp_path: Any) -> None:
    for name in PAIRS_FROM_RECORDS.values():
        (tmp_path / name).write_bytes((DATA / name).read_bytes())
    write_pairs(tmp_path)
    for name in PAIRS_FROM_RECORDS:
        assert (tmp_path / name).read_bytes() == (DATA / name).read_bytes()
