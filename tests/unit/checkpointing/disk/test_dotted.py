from __future__ import annotations

from typing import Any

from pitstop.checkpointing.disk.dotted import at, flattened, replaced


def test_a_value_is_read_by_its_path_and_none_where_there_is_none() -> None:
    nested = {"training": {"checkpoint": {"mode": "min"}, "epochs": 0}}
    assert at(nested, "training.checkpoint.mode") == "min"
    assert at(nested, "training.epochs") == 0
    assert [at(value, "training.epochs.more") for value in (nested, {}, None, [1], "training")] == [None] * 5


def test_replacing_copies_what_it_changes_and_makes_what_is_missing() -> None:
    nested: dict[str, Any] = {"training": {"epochs": 1, "seed": 2}, "data": 3}
    changed = replaced(nested, "training.epochs", 5)
    assert changed == {"training": {"epochs": 5, "seed": 2}, "data": 3}
    assert nested["training"]["epochs"] == 1
    assert replaced({"data": 3}, "data.train.first", "x") == {"data": {"train": {"first": "x"}}}


def test_nested_values_are_listed_by_their_paths_as_deep_as_asked() -> None:
    nested = {"training": {"checkpoint": {"mode": "min"}, "epochs": 0}, "data": [1], "empty": {}}
    assert dict(flattened(nested)) == {"training.checkpoint.mode": "min", "training.epochs": 0, "data": [1]}
    assert dict(flattened(nested, 2)) == {"training.checkpoint": {"mode": "min"}, "training.epochs": 0, "data": [1]}
