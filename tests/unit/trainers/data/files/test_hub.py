"""Data sets on the Hub, by the library that fetches them."""

from __future__ import annotations

from typing import Any

import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.files.hub import HubPlace
from pitstop.trainers.data.files.places import read_records
from pitstop.trainers.data.records import BadRows


def test_a_hub_data_set_is_read_like_a_table(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked: list[Any] = []

    def load(*arguments: Any, **named: Any) -> datasets.Dataset:
        asked.append((arguments, named))
        return datasets.Dataset.from_list([{"text": "a", "messages": None}, {"text": "b", "messages": ["c"]}])

    monkeypatch.setattr("datasets.load_dataset", load)
    records = list(read_records("owner/name", BadRows(False), split="validation", token="secret"))
    assert [(record.fields, record.place) for record in records] == [
        ({"text": "a"}, "owner/name (validation) row 1"),
        ({"text": "b", "messages": ["c"]}, "owner/name (validation) row 2"),
    ]
    assert asked == [(("owner/name",), {"split": "validation", "token": "secret"})]


def test_a_hub_data_set_that_cannot_be_had_is_named() -> None:
    with pytest.raises(DataError, match="Cannot read data set owner/no-such-data"):
        list(read_records("owner/no-such-data", BadRows(False)))


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("owner/name", HubPlace("owner/name")),
        ("hub:owner/name", HubPlace("owner/name")),
        ("owner/na.me@v1.0", HubPlace("owner/na.me", "v1.0")),
        ("owner/name:en", HubPlace("owner/name", None, "en")),
        ("hub:owner/name@refs/pr/3:en:train[:10%]", HubPlace("owner/name", "refs/pr/3", "en", "train[:10%]")),
        ("owner/name::validation", HubPlace("owner/name", None, None, "validation")),
        ("owner/name:a:b:c", None),
        ("name", None),
        ("a/b/c", None),
        ("owner/name@", None),
    ],
)
def test_a_place_on_the_hub_is_read_as_it_is_written(text: str, place: HubPlace | None) -> None:
    assert HubPlace.of(text) == place
    assert place is None or HubPlace.of(str(place)) == place
