"""What is decided on the user's behalf is counted by reason and told in one line."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pitstop.configs.notices import Notice, Notices, recorded_texts, shortened

UNUSED = "{count} [record has|records have] a field {subject} that is not used"


def test_a_notice_agrees_in_number_and_names_its_first_place_and_remedy() -> None:
    one = Notice(UNUSED, '"source"', place="a.jsonl line 7")
    many = Notice(UNUSED, '"source"', 12_000, "a.jsonl line 7", "Name it with --column.")
    assert str(one) == '1 record has a field "source" that is not used: a.jsonl line 7.'
    assert str(many) == '12,000 records have a field "source" that is not used, first a.jsonl line 7. Name it with --column.'


def test_brackets_and_braces_of_a_subject_stay_as_they_are() -> None:
    assert str(Notice("field {subject} is not used", "a[0|1]{count}")) == "field a[0|1]{count} is not used."


def test_equal_reasons_are_counted_together_and_keep_the_first_place() -> None:
    notices = Notices(
        [Notice(UNUSED, "a", place="line 1"), Notice(UNUSED, "b", place="line 2"), Notice(UNUSED, "a", 2, "line 3")]
    )
    assert [(notice.subject, notice.count, notice.place) for notice in notices] == [("a", 3, "line 1"), ("b", 1, "line 2")]
    assert (len(notices), notices.count(UNUSED), notices.count("another")) == (2, 4, 0)


def test_a_reason_is_reworded_in_its_place() -> None:
    notices = Notices([Notice("some", place="line 1"), Notice(UNUSED, "a"), Notice("some", count=2)])
    notices.reword("some", "three")
    assert list(notices) == [Notice("three", count=3, place="line 1"), Notice(UNUSED, "a")]


def test_a_recorded_notice_reads_as_it_was() -> None:
    notice = Notice(UNUSED, "a", 3, remedy="Do.")
    assert Notice.of(json.loads(json.dumps(notice.as_dict()))) == notice
    assert notice.as_dict() == {"reason": UNUSED, "subject": "a", "count": 3, "remedy": "Do."}


def test_more_than_ten_subjects_of_a_reason_are_told_as_ten_and_a_number() -> None:
    other = Notice("{count} [record was|records were] left out", count=2)
    notices = [Notice(UNUSED, f'"{number}"', loss=True) for number in range(24)]
    told = shortened([*notices[:12], other, *notices[12:]])
    assert told[:10] == notices[:10] and told[11:] == [other]
    assert str(told[10]) == "and 14 more fields." and told[10].loss
    assert shortened(notices[:10]) == notices[:10] and str(shortened(notices[:11])[-1]) == "and 1 more field."


@pytest.mark.parametrize(
    "record", [3, [], {}, {"reason": 3}, {"reason": "a", "count": "many"}, {"reason": "a", "more": 1}], ids=str
)
def test_of_recorded_notices_those_that_are_none_are_not_told(record: Any) -> None:
    assert recorded_texts([record, Notice("a {subject}", "b").as_dict()]) == ["a b."]
    assert recorded_texts(record) == []
