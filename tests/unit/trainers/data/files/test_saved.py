"""Directories that ``save_to_disk`` of ``datasets`` wrote."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.places import read_records
from pitstop.trainers.data.records import BadRows, NoData

ROWS = [{"text": "a", "calls": [{"x": 1}]}, {"text": "b", "calls": []}, {"text": "c", "calls": [{"y": None}]}]


def _read(directory: Path, split: str = "train") -> tuple[list[str], list[str]]:
    bad = BadRows(False)
    texts = [record.fields["text"] for record in read_records(str(directory), bad, split=split)]
    return texts, [str(notice) for notice in bad.notices]


def test_a_saved_data_set_is_read_in_the_order_of_its_shards(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list(ROWS, on_mixed_types="use_json").select([2, 0, 1])
    data.save_to_disk(tmp_path / "saved", num_shards=2)
    (tmp_path / "saved" / "README.md").touch()
    records = list(read_records(str(tmp_path / "saved"), BadRows(False)))
    assert [record.fields for record in records] == [ROWS[2], ROWS[0], ROWS[1]]
    assert records[2].place == f"{tmp_path}/saved/data-00001-of-00002.arrow row 1"
    assert _read(tmp_path / "saved")[1] == [f"1 file is not read: README.md: {tmp_path}/saved/README.md."]


def test_of_saved_splits_the_wanted_one_is_read(tmp_path: Path) -> None:
    parts = {name: datasets.Dataset.from_list([{"text": name}]) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(tmp_path)
    assert _read(tmp_path) == (["train"], [f"1 folder of other splits is not read: test: {tmp_path}/test."])
    assert _read(tmp_path, "test")[0] == ["test"]
    with pytest.raises(NoData, match=f"{tmp_path} has no split validation; it has train, test."):
        _read(tmp_path, "validation")


@pytest.mark.parametrize(
    "state", [{}, {"_data_files": 3}, {"_data_files": [{"filename": "../x.arrow"}]}, {"_data_files": [{}]}], ids=str
)
def test_a_damaged_description_is_named(tmp_path: Path, state: object) -> None:
    datasets.Dataset.from_list(ROWS[:1]).save_to_disk(tmp_path)
    (tmp_path / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match=r"state\.json"):
        _read(tmp_path)
