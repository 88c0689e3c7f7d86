"""All of a data set is read, counted as training counts it, and the right records are kept."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop.configs.notices import Notice
from pitstop.trainers.data.preview.gathering import DataPreview, Wish, gather
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.data.records import BadRows, Record
from pitstop.trainers.tasks.sft import SftTask
from support.json_lines import write_rows

PAIR = {"prompt": "p", "completion": "c"}
LONG = {"prompt": "p", "completion": "c " * 200}
ROWS: list[Any] = [PAIR, {"text": "A text."}, "{", LONG, {"x": 1}, {"x": 2}, {**PAIR, "prompt": "long " * 8}]


def _gather(tokenizer: Any, path: Path, rows: list[Any], wish: Wish, task: SftTask | None = None) -> DataPreview:
    write_rows(path, rows)
    return gather(str(path), task or SftTask(tokenizer), ReadOptions(max_length=100, packing=False), wish)


def _places(data: DataPreview) -> list[int]:
    return [int(record.outcome.place.rpartition(" ")[2]) for record in data.records]


def test_the_first_records_the_sums_and_the_shapes(tokenizer: Any, tmp_path: Path) -> None:
    data = _gather(tokenizer, tmp_path / "a.jsonl", ROWS, Wish(count=2))
    assert _places(data) == [1, 2] and [record.shape for record in data.records] == ["prompt+completion", "text"]
    read = data.counts.read
    assert (read.read, read.used, read.left_out, read.malformed) == (7, 3, 1, 3)
    assert data.shapes == {"prompt+completion": 3, "text": 1}
    assert [(notice.count, notice.place[-6:]) for notice in data.counts.notices][:2] == [(1, "line 3"), (2, "line 5")]


def test_the_counts_are_those_of_training(tokenizer: Any, tmp_path: Path) -> None:
    data = _gather(tokenizer, tmp_path / "a.jsonl", ROWS, Wish())
    trained = load_dataset([data.spec], SftTask(tokenizer), ReadOptions(max_length=100, packing=False, skip_bad_rows=True))
    assert data.counts == trained.counts


@given(rows=st.lists(st.sampled_from(ROWS), min_size=1, max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20, deadline=None)
def test_every_record_is_used_left_out_or_malformed(tokenizer: Any, tmp_path: Path, rows: list[Any]) -> None:
    data = _gather(tokenizer, tmp_path / "a.jsonl", rows, Wish(count=100))
    read = data.counts.read
    assert read.read == len(rows) == len(data.records)
    assert read.malformed == sum(row in ("{", {"x": 1}, {"x": 2}) for row in rows)
    assert read.left_out == rows.count(LONG)


def test_a_record_by_its_number(tokenizer: Any, tmp_path: Path) -> None:
    rows = ["", *ROWS]  # empty lines count, as they do in messages
    assert _places(_gather(tokenizer, tmp_path / "a.jsonl", rows, Wish(number=4))) == [4]
    assert _places(_gather(tokenizer, tmp_path / "a.jsonl", rows, Wish(number=5))) == [5]
    assert _places(_gather(tokenizer, tmp_path / "a.jsonl", rows, Wish(number=88))) == []


def test_odd_records(tokenizer: Any, tmp_path: Path) -> None:
    mostly_learnt = {"prompt": "", "completion": "c" * 90}
    rows = [{"prompt": "p", "completion": "c d e"}, *ROWS, {"x": 3}]
    data = _gather(tokenizer, tmp_path / "a.jsonl", rows, Wish(odd=True))
    assert _places(data) == [4, 6, 5, 2]
    longest, least = data.records[2], data.records[3]
    assert longest.reasons[0].startswith("the longest, ") and least.reasons == ("the fewest learnt tokens, 2",)
    tokenizer.chat_template = None
    data = _gather(tokenizer, tmp_path / "a.jsonl", [PAIR, mostly_learnt, {"text": "t"}], Wish(odd=True))
    assert any("% of its tokens are learnt, the most" in reason for record in data.records for reason in record.reasons)
    assert [record.shape for record in data.records if "the most" in str(record.reasons)] == ["prompt+completion"]


class _Telling(SftTask):
    """Tells something of every second record."""

    def examples_of(self, records: Any, bad_rows: BadRows) -> Any:
        for record in records:
            if record.fields.get("odd"):
                bad_rows.notices.add(
                    Notice("{count} [record is|records are] odd in {subject}", record.fields["odd"], place=record.place)
                )
        return super().examples_of(records, bad_rows)


def test_the_first_record_of_each_notice_is_odd(tokenizer: Any, tmp_path: Path) -> None:
    rows = [{**PAIR, "odd": odd} for odd in ("", "a", "b", "a")]
    data = _gather(tokenizer, tmp_path / "a.jsonl", rows, Wish(odd=True), _Telling(tokenizer))
    assert [(record.outcome.place[-6:], record.reasons[0]) for record in data.records[:2]] == [
        ("line 2", "1 record is odd in a"),
        ("line 3", "1 record is odd in b"),
    ]
    assert [(notice.subject, notice.count) for notice in data.counts.notices][:2] == [("a", 2), ("b", 1)]


def test_a_directory_that_has_the_number_twice_shows_both(tokenizer: Any, tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps(PAIR) + "\n")
    data = gather(str(tmp_path), SftTask(tokenizer), ReadOptions(max_length=100, packing=False), Wish(number=1))
    assert [Path(record.outcome.place).name for record in data.records] == ["a.jsonl line 1", "b.jsonl line 1"]


def test_what_cannot_be_read_at_all_is_an_error(tokenizer: Any, tmp_path: Path) -> None:
    from pitstop.configs.errors import DataError

    with pytest.raises(DataError, match="no such file"):
        gather(str(tmp_path / "none.jsonl"), SftTask(tokenizer), ReadOptions(max_length=100, packing=False), Wish())
    assert SftTask(tokenizer).shape(Record({"x": 1}, "")) == ""
