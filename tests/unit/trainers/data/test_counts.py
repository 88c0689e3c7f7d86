"""All that is read is used, left out or malformed, whatever becomes of the data set later."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop.configs.notices import Notice
from pitstop.configs.schema import Settings
from pitstop.trainers.data.cache.entry import open_entry, write_entry
from pitstop.trainers.data.counts import Counts, LeftOut, Tally
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.examples import InMemory
from pitstop.trainers.data.mixture import mixed
from pitstop.trainers.data.reading import ReadOptions, load_dataset
from pitstop.trainers.data.records import BadRecord, BadRows, Record
from pitstop.trainers.data.splits import hold_out
from pitstop.trainers.tasks.text import TextTask
from support.json_lines import write_rows

UNUSED = Notice("{count} [record has|records have] a field {subject} that is not used", '"x"', 2, "a line 1", loss=True)
LEFT_OUT = LeftOut(1, 1, 2, ("a line 2: why",), 3, 4, (UNUSED,))


def _example(length: int, answers: int = 1, opens: bool = True) -> Example:
    return Example(np.arange(length, dtype=np.int32), np.array([False] + [True] * (length - 1)), answers=answers, opens=opens)


class _Scripted(TextTask):
    """Makes of each record what it asks for: ``lengths`` and ``answers`` of its examples, ``left_out`` answers, or ``bad``."""

    name = "scripted"

    def __init__(self) -> None:
        self.settings = Settings()

    def examples(self, record: Record) -> list[Example]:
        if "bad" in record.fields:
            raise BadRecord("bad", record.fields["bad"])
        return [_example(length, answers) for length, answers in record.fields["examples"]]

    def examples_of(self, records: Sequence[Record], bad_rows: BadRows) -> list[list[Example] | BadRecord]:
        for record in records:
            if record.fields.get("left_out"):
                bad_rows.leave_out_answers(Notice("{count} empty", count=record.fields["left_out"], place=record.place))
        return super().examples_of(records, bad_rows)


ROWS = st.one_of(
    st.fixed_dictionaries({"bad": st.integers(0, 3)}),
    st.fixed_dictionaries(
        {
            "examples": st.lists(st.tuples(st.integers(2, 12), st.integers(0, 3)), max_size=4),
            "left_out": st.integers(0, 2),
        }
    ),
    st.just("{"),
)


@given(rows=st.lists(ROWS, max_size=30))
@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_all_that_is_read_is_used_left_out_or_malformed(tmp_path: Path, rows: list[Any]) -> None:
    rows = [*rows, {"examples": [(3, 1)]}]
    path = tmp_path / "a.jsonl"
    write_rows(path, rows)
    counts = load_dataset([str(path)], _Scripted(), ReadOptions(max_length=8, packing=True, skip_bad_rows=True)).counts
    good = [row for row in rows if isinstance(row, dict) and "examples" in row]
    used = [row for row in good if any(length <= 8 for length, _ in row["examples"])]
    assert counts.read == Tally(len(used), len(good) - len(used), len(rows) - len(good)) and counts.read.read == len(rows)
    answers = sum(row.get("left_out", 0) + sum(count for _, count in row["examples"]) for row in good)
    bad = sum(row["bad"] for row in rows if isinstance(row, dict) and "bad" in row)
    assert counts.answers.read == answers + bad and counts.answers.malformed == bad
    assert counts.answers.used == sum(count for row in good for length, count in row["examples"] if length <= 8)


def test_counts_go_through_a_split_and_a_mixture() -> None:
    examples = [_example(4, 2), _example(3, 1, opens=False), _example(5), _example(6)]
    counts = Counts.of(InMemory(examples), LEFT_OUT)
    assert counts.read == Tally(3, 1, 2) and counts.answers == Tally(5, 3, 4)
    data = Dataset(examples, max_length=8, packing=False, counts=counts)
    train, held = hold_out(data, 0.5, seed=3, max_length=8, packing=False)
    assert train.counts.read + held.counts.read == counts.read and train.counts.answers + held.counts.answers == counts.answers
    assert train.counts.notices == (UNUSED,) and not held.counts.notices and not held.counts.read.malformed
    both = mixed([data, data], ["a", "b"]).counts
    assert both.read == counts.read + counts.read and both.answers == counts.answers + counts.answers
    assert both.notices == (replace(UNUSED, count=4),)
    assert data.first(2).counts.read == Tally(1, 1, 2) and data.first(2).counts.answers.used == 3


def test_the_cache_keeps_them(tmp_path: Path) -> None:
    examples = [_example(4, 2), _example(3, 0, opens=False)]

    def fill(add: Callable[[Example], None]) -> Callable[[Any], Counts]:
        for example in examples:
            add(example)
        return lambda kept: Counts.of(kept, LEFT_OUT)

    write_entry(tmp_path / "entry", fill)
    kept, counts = open_entry(tmp_path / "entry")
    assert counts == Counts.of(InMemory(examples), LEFT_OUT) and [e.opens for e in kept] == [True, False]
    assert [e.answers for e in kept.scan()] == [2, 0]


def test_what_was_recorded_reads_as_it_was() -> None:
    counts = Counts.of(InMemory([_example(4)]), LEFT_OUT)
    values = json.loads(json.dumps(asdict(counts)))
    assert Counts.recorded(values) == counts
    with pytest.raises((TypeError, KeyError)):
        Counts.recorded({**values, "tokens": 1, "more": 2})


def test_a_run_records_the_sums_and_the_reasons() -> None:
    recorded = Counts.of(InMemory([_example(4)]), LEFT_OUT).as_dict()["counts"]
    assert recorded == {
        "records": {"read": 4, "used": 1, "left_out": 1, "malformed": 2},
        "answers": {"read": 8, "used": 1, "left_out": 3, "malformed": 4},
        "notices": [{"reason": UNUSED.reason, "subject": '"x"', "count": 2, "place": "a line 1", "loss": True}],
    }


def test_options_are_summed_and_asked_with_where_all_answers_agree() -> None:
    on, default = (replace(Counts.of(InMemory([_example(3)])), options=((text, 2),)) for text in ('{"thinking": true}', "{}"))
    assert (on.asked, default.asked, Counts.of(InMemory([])).asked) == ({"thinking": True}, {}, None)
    assert Counts.together([on, on]).asked == {"thinking": True}
    both = Counts.together([on, default, on])
    assert both.asked is None
    assert both.sums()["template_options"] == [{"options": {"thinking": True}, "answers": 4}, {"options": {}, "answers": 2}]
    assert Counts.recorded(json.loads(json.dumps(asdict(both)))) == both
