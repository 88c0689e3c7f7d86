"""From --dataset to a data set: nothing is cut, everything is counted, and what cannot be used is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.counts import Counts, Tally
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.tasks.sft import SftTask
from support.json_lines import write_rows


def _write(path: Path, *rows: Any) -> str:
    return str(write_rows(path, rows))


def _pair(completion: str) -> dict[str, str]:
    return {"prompt": "p", "completion": completion}


@pytest.fixture
def task(tokenizer: Any) -> SftTask:
    """The sft task of the tiny model."""
    return SftTask(tokenizer)


def test_records_that_do_not_fit_are_counted_and_never_cut(task: SftTask, tmp_path: Path) -> None:
    rows = [_pair("- a" * n) for n in (1, 2, 30, 3)]
    whole = load_dataset([_write(tmp_path / "a.jsonl", *rows)], task, ReadOptions(max_length=500, packing=False))
    longest = sorted(len(e) for e in whole.examples)[-2]
    data = load_dataset([str(tmp_path / "a.jsonl")], task, ReadOptions(max_length=longest, packing=False))
    assert data.counts.too_long == 1 and data.counts.used == 3 and data.counts.records == 4
    assert [e.input_ids.tolist() for e in data.examples] == [whole.examples[i].input_ids.tolist() for i in (0, 1, 3)]
    shorter = load_dataset([str(tmp_path / "a.jsonl")], task, ReadOptions(max_length=longest - 1, packing=False))
    assert shorter.counts.too_long == 2


def test_counts(task: SftTask, tmp_path: Path) -> None:
    first = _write(tmp_path / "a.jsonl", _pair("- a"), "{", {"x": 1}, _pair("- a" * 100))
    second = _write(tmp_path / "b.jsonl", _pair("- b"))
    data = load_dataset([first, second], task, ReadOptions(max_length=64, packing=True, skip_bad_rows=True))
    lengths = [len(e) for e in data.examples]
    assert data.counts == Counts(
        records=5,
        used=2,
        too_long=1,
        bad=2,
        bad_reasons=data.counts.bad_reasons,
        tokens=sum(lengths),
        supervised_tokens=sum(int(e.supervised.sum()) for e in data.examples),
        read=Tally(used=2, left_out=1, malformed=2),
        answers=Tally(used=2, left_out=1),
        notices=data.counts.notices,
        options=(("{}", 2),),
    )
    assert [(notice.count, notice.place, notice.remedy) for notice in data.counts.notices] == [
        (1, f"{first} line 2", ""),
        (1, f"{first} line 3", "Name it, for example --column text=x."),
        (1, f"{first} line 4", "Raise --max-length, or shorten them with --too-long left or right."),
    ]
    assert [reason.split(": ")[0] for reason in data.counts.bad_reasons] == [f"{first} line 2", f"{first} line 3"]


def test_a_bad_record_stops_with_file_line_and_reason(task: SftTask, tmp_path: Path) -> None:
    path = _write(tmp_path / "a.jsonl", _pair("- a"), _pair(" "))
    with pytest.raises(DataError) as caught:
        load_dataset([path], task, ReadOptions(max_length=64, packing=True))
    assert str(caught.value) == f"{path} line 2: the completion is empty"


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "the data set is empty"),
        ([_pair("- a" * 100)] * 2, "all 2 usable records are longer than MAX_LENGTH = 64 tokens"),
        (["{", "{"], "every row is malformed; the first: {path} line 1: not valid JSON"),
    ],
)
def test_nothing_left_to_train_on(task: SftTask, tmp_path: Path, rows: list[Any], message: str) -> None:
    path = _write(tmp_path / "a.jsonl", *rows)
    with pytest.raises(DataError) as caught:
        load_dataset([path], task, ReadOptions(max_length=64, packing=True, skip_bad_rows=True))
    assert message.replace("{path}", path) in str(caught.value)
    if "longer" in message:
        assert caught.value.hint == "Raise --max-length, or shorten them with --too-long left or right."


def test_the_first_records_of_each_data_set_are_read_malformed_ones_included(task: SftTask, tmp_path: Path) -> None:
    paths = [
        _write(tmp_path / f"{name}.jsonl", _pair("- a"), "{", _pair("- b"), {"prompt": "p", "completion": ""}, _pair("- c"))
        for name in "ab"
    ]
    options = ReadOptions(max_length=64, packing=True, skip_bad_rows=True)
    for limit, used, malformed in ((1, 1, 0), (2, 1, 1), (3, 2, 1), (4, 2, 2), (5, 3, 2), (9, 3, 2)):
        counts = load_dataset(paths, task, replace(options, max_records=limit)).counts
        assert counts.read == Tally(2 * used, 0, 2 * malformed)
