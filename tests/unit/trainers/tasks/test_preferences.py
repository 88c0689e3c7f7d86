"""Preferences are counted as all records are, and settings that do not go with them are refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop.configs.errors import ModelError, SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.preview.gathering import DataPreview, Wish, gather
from pitstop.trainers.data.reading import ReadOptions
from pitstop.trainers.tasks.preferences import PreferenceRecords
from support.chat_templates import assistant, user
from support.json_lines import write_rows

Q, A, B = user("Q"), assistant("A"), assistant("B")
MORE = [Q, A, user("Q2"), {**B, "weight": 0}, user("Q3"), assistant("C")]
USED: list[tuple[dict[str, Any], int]] = [
    ({"prompt": "Q", "chosen": "A", "rejected": "B"}, 2),
    ({"chosen": [Q, A], "rejected": [Q, B]}, 2),
    ({"chosen": MORE, "rejected": [Q, B]}, 4),  # of which one is left out
    ({"input": {"messages": [Q]}, "preferred_output": [A], "non_preferred_output": [B]}, 2),
    ({"prompt": "Q", "completion": "A", "label": False}, 1),
]
LONG = ({"prompt": "Q", "chosen": "long " * 80, "rejected": "B"}, 2)
MALFORMED: list[tuple[dict[str, Any], int]] = [
    ({"prompt": "Q", "chosen": "A", "rejected": "A"}, 2),
    ({"chosen": "yes", "rejected": "no"}, 2),
    ({"prompt": "Q", "completion": "A", "label": "?"}, 1),
    ({"text": "A text."}, 0),
    ({"prompt": "Q", "chosen": "A", "rejected": "B", "tools": [{"name": "add"}]}, 2),  # which the template does not render
]


def _gather(tokenizer: Any, path: Path, rows: list[dict[str, Any]]) -> DataPreview:
    write_rows(path, rows)
    return gather(str(path), PreferenceRecords(tokenizer), ReadOptions(max_length=100, packing=False), Wish(count=100))


@given(rows=st.lists(st.sampled_from([*USED, LONG, *MALFORMED]), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
def test_records_and_answers_add_up(tokenizer: Any, tmp_path: Path, rows: list[tuple[dict[str, Any], int]]) -> None:
    data = _gather(tokenizer, tmp_path / "a.jsonl", [row for row, _ in rows])
    read, answers = data.counts.read, data.counts.answers
    assert (read.read, read.left_out, read.malformed) == (len(rows), rows.count(LONG), sum(row in MALFORMED for row in rows))
    assert answers.read == sum(count for _, count in rows)
    assert answers.left_out == 2 * rows.count(LONG) + rows.count(USED[2])
    assert answers.malformed == sum(row[1] for row in rows if row in MALFORMED)
    examples = [example for record in data.records for example in record.outcome.examples]
    assert data.counts.tokens == sum(example.input_ids.size for example in examples)
    assert data.counts.supervised_tokens == sum(int(example.supervised.sum()) for example in examples)


def test_messages_for_a_base_without_template_stop(tokenizer: Any, tmp_path: Path) -> None:
    tokenizer.chat_template = None
    assert _gather(tokenizer, tmp_path / "a.jsonl", [USED[0][0]]).counts.used == 1
    with pytest.raises(ModelError, match="has no chat template"):
        _gather(tokenizer, tmp_path / "a.jsonl", [USED[1][0]])


def test_the_longer_answer_counts_and_labels_are_told(tokenizer: Any, tmp_path: Path) -> None:
    judged = [{"prompt": "Q", "completion": "A", "label": label} for label in (1, 0, 1)]
    data = _gather(tokenizer, tmp_path / "a.jsonl", [*judged, LONG[0], {**LONG[0], "chosen": "B", "rejected": LONG[0]["chosen"]}])
    assert data.counts.read.left_out == 2
    assert {(notice.subject, notice.count) for notice in data.counts.notices if "judged" in notice.reason} == {
        ("good", 2),
        ("bad", 1),
    }
    assert data.figures.duplicates == 1  # good twice; the same answer judged to be bad is another example


@pytest.mark.parametrize("changes", [{"learn": "last"}, {"learn": "everything"}, {"too_long": "left"}])
def test_settings_of_conversations_are_refused(tokenizer: Any, changes: dict[str, Any]) -> None:
    task = PreferenceRecords(tokenizer, replace(Settings(), data=replace(Settings().data, **changes)))
    with pytest.raises(SettingsError, match="does not go with --shape preference"):
        _ = task.normal_form
