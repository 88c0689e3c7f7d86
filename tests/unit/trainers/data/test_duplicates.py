"""Examples that are the same: told of, or left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.data.cache.table import TableExamples, TableWriter
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.duplicates import in_training, repeated, without_repeated
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import InMemory, JoinedExamples
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.tasks.sft import SftTask
from support.json_lines import write_rows

ONE = Example(np.array([1, 2, 3], dtype=np.int32), np.array([False, True, True]))
LATER = replace(ONE, supervised=np.array([False, False, True]))
OTHER = replace(ONE, input_ids=np.array([1, 2, 4], dtype=np.int32))


def test_tokens_and_what_is_learnt_make_the_hash_and_nothing_else() -> None:
    more = replace(ONE, group="x", reference="y", cut=True, opens=False)
    assert more.hash64 == ONE.hash64 < 2**64 and more.equals(ONE)
    for different in (LATER, OTHER):
        assert different.hash64 != ONE.hash64 and not different.equals(ONE)


def test_how_many_occur_more_than_once() -> None:
    assert repeated(np.array([5, 7, 5, 5, 8, 8], dtype=np.uint64)) == 2 and repeated(np.array([], dtype=np.uint64)) == 0


def test_hashes_are_the_same_wherever_examples_lie() -> None:
    table = TableWriter()
    for example in (ONE, LATER, ONE):
        table.add(example)
    table.close()
    memory = InMemory([ONE, LATER, ONE])
    assert TableExamples(table.batches).hashes.tolist() == memory.hashes.tolist() == [ONE.hash64, LATER.hash64, ONE.hash64]
    assert JoinedExamples([memory, memory]).hashes.tolist() == memory.hashes.tolist() * 2


@given(choices=st.lists(st.lists(st.sampled_from([ONE, LATER, OTHER]), min_size=1, max_size=3), min_size=1, max_size=8))
def test_the_first_of_equal_examples_stays_and_records_and_answers_add_up(choices: Sequence[Sequence[Example]]) -> None:
    examples = InMemory([replace(e, opens=number == 0) for record in choices for number, e in enumerate(record)])
    counts = Counts.of(examples)
    distinct, told = without_repeated(examples, counts)
    seen: list[Example] = []
    for example in examples:
        if not any(example.equals(other) for other in seen):
            seen.append(example)
    assert [(e.input_ids.tolist(), e.supervised.tolist()) for e in distinct] == [
        (e.input_ids.tolist(), e.supervised.tolist()) for e in seen
    ]
    assert told.read.read == len(choices) and told.answers.read == len(examples)
    assert Counts.of(distinct, told.left_out) == told
    assert told.read.used == sum(distinct[index].opens for index in range(len(distinct))) == int(distinct.opens.sum())


def test_equal_hashes_alone_drop_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Example, "hash64", 7)
    distinct, told = without_repeated(InMemory([ONE, OTHER, ONE]), Counts.of(InMemory([ONE, OTHER, ONE])))
    assert len(distinct) == 2 and told.notices[0].count == 1


def test_what_is_told(tokenizer: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    write_rows(path, [{"prompt": "q", "completion": answer} for answer in "abaab"])
    kept = load_dataset([str(path)], SftTask(tokenizer), ReadOptions(100, packing=False))
    assert kept.counts.used == 5
    assert [str(notice) for notice in kept.counts.notices] == [
        "2 examples occur more than once. --duplicates drop takes each of them once."
    ]
    dropped = load_dataset([str(path)], SftTask(tokenizer), ReadOptions(100, packing=False, drop_duplicates=True))
    assert [str(notice) for notice in dropped.counts.notices] == ["3 examples were left out, since an earlier one is the same."]
    read = dropped.counts.read
    assert (len(dropped.examples), read.read, read.used, read.left_out) == (2, 5, 2, 3)
    assert dropped.fingerprint != kept.fingerprint


def test_evaluation_examples_that_are_trained_on() -> None:
    (warning,) = in_training(InMemory([ONE, OTHER]), InMemory([ONE, LATER]))
    assert str(warning) == "1 of 2 evaluation examples is in the training data, too." and warning.loss
    assert in_training(InMemory([OTHER]), InMemory([ONE, LATER])) == []


def test_texts_that_look_like_rendered_conversations(tokenizer: Any, tmp_path: Path) -> None:
    rendered = "<|start|>user\nq<|end|>\n<|start|>assistant\na<|end|>"
    path = tmp_path / "a.jsonl"

    def notices(*texts: str) -> list[str]:
        write_rows(path, [{"text": text} for text in texts])
        data = load_dataset([str(path)], SftTask(tokenizer), ReadOptions(500, packing=False))
        return [str(notice) for notice in data.counts.notices]

    assert notices(rendered, rendered + "!", "plain") == [
        "2 of 3 texts look like rendered conversations; their questions are learnt too. "
        "Give them as messages, of which the answers alone are learnt."
    ]
    assert notices(rendered, "plain") == []
