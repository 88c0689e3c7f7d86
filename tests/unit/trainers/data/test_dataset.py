"""Data sets: nothing is cut, everything is counted, and any change shows in the fingerprint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.dataset import Counts, Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.tasks.sft import SftTask

Make = Callable[..., Dataset]


def _write(path: Path, *rows: Any) -> str:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)


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
    )
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


def test_packed_sequences_and_their_sums(make_dataset: Make, make_examples: Callable[..., list[Example]]) -> None:
    examples = make_examples([1 + n for n in range(1, 8)])
    data = make_dataset(examples, max_length=10, packing=True)
    assert sorted(id(e) for e in data.sequence_examples(range(len(data)))) == sorted(id(e) for e in examples)
    for ids in ([0], [1, 2], list(range(len(data)))):
        chosen = data.sequence_examples(ids)
        assert data.tokens(np.array(ids)) == sum(len(e) for e in chosen)
        assert data.supervised_tokens(np.array(ids)) == sum(int(e.supervised.sum()) for e in chosen)
    assert len(data) < len(make_dataset(examples, max_length=10)) == 7


def _example(*tokens: int, learn: tuple[int, ...] = (-1,)) -> Example:
    supervised = np.zeros(len(tokens), dtype=bool)
    supervised[list(learn)] = True
    return Example(np.array(tokens, dtype=np.int32), supervised)


BASE = [_example(5, 6, 7), _example(8, 9, learn=(1,))]


@pytest.mark.parametrize(
    ("examples", "options"),
    [
        ([_example(5, 6, 8), BASE[1]], {}),
        ([_example(5, 6, 7 + 65536), BASE[1]], {}),
        ([_example(5, 6, 7, learn=(1, 2)), BASE[1]], {}),
        ([_example(5, 6, 7, learn=(1,)), BASE[1]], {}),
        ([_example(5, 6), _example(7, 8, 9)], {}),
        ([BASE[1], BASE[0]], {}),
        ([*BASE, BASE[1]], {}),
        (BASE[:1], {}),
        (BASE, {"packing": False}),
        (BASE, {"max_length": 65}),
    ],
)
def test_any_change_changes_the_fingerprint(make_dataset: Make, examples: list[Example], options: dict[str, Any]) -> None:
    before = make_dataset(BASE, max_length=64, packing=True).fingerprint
    assert make_dataset(examples, **{"max_length": 64, "packing": True, **options}).fingerprint != before


def test_equal_data_has_an_equal_fingerprint_that_never_changes(make_dataset: Make) -> None:
    again = [_example(5, 6, 7), _example(8, 9, learn=(1,))]
    fingerprint = make_dataset(again, max_length=64, packing=True).fingerprint
    assert fingerprint == make_dataset(BASE, max_length=64, packing=True).fingerprint
    assert fingerprint == "b348ccf87bbf57f5295119a5c0e7eeb0b4fe9dc349af2ee49f46e2d7a479b78d"
    unpacked = [make_dataset(BASE, max_length=n, packing=False).fingerprint for n in (64, 65)]
    assert unpacked[0] == unpacked[1]  # without packing the limit shapes no batch
