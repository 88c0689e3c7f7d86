"""What tasks of text share: where a test split is, what data they are known by, and files that another task reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pitstop.configs.datasets import DataSource
from pitstop.configs.errors import DataError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.tasks.text import TextTask


class _Letters(TextTask):
    """A token a letter."""

    name = "letters"

    def examples(self, record: Record) -> list[Example]:
        text = record.fields["text"]
        if not text:
            raise BadRecord("the text is empty")
        return [Example(np.array([ord(letter) for letter in text], dtype=np.int32), np.ones(len(text), dtype=bool))]


@pytest.fixture
def task() -> _Letters:
    """A task without a tokenizer."""
    return _Letters(None, Settings())


def test_files_have_no_test_split_and_the_hub_may(task: _Letters, tmp_path: Path) -> None:
    assert not task.has_test_split([DataSource(str(tmp_path))])
    assert not task.has_test_split([DataSource("example:medical_ner/train.jsonl")])
    assert task.has_test_split([DataSource("owner/name")])


def test_each_record_has_its_examples_or_its_reason(task: _Letters) -> None:
    results = task.examples_of([Record({"text": text}, "here") for text in ("ab", "")], BadRows(False))
    assert isinstance(results[0], list) and results[0][0].input_ids.tolist() == [97, 98]
    assert isinstance(results[1], BadRecord) and str(results[1]) == "the text is empty"


@pytest.mark.parametrize(("name", "hinted"), [("train.conll", True), ("train.xyz", False)])
def test_a_file_of_another_task_is_said_to_be_one(task: _Letters, tmp_path: Path, name: str, hinted: bool) -> None:
    (tmp_path / name).write_text("Aspirin\tB-Drug\n")
    with pytest.raises(DataError, match="cannot tell the format") as caught:
        list(task.records(str(tmp_path / name), BadRows(False), split="train", token=None))
    assert ("--task ner" in str(caught.value.hint)) == hinted


def test_where_a_run_stores_its_files_is_no_part_of_the_key(tokenizer: Any) -> None:
    task = _Letters(tokenizer, Settings())
    relevant: Any = task.relevant_settings()
    assert not {"hub", "naming", "model", "lora", "quantization"} & relevant.keys()
    assert relevant["training"] == {"seed": task.settings.training.seed} and "train" not in relevant["data"]
