from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.runs.listing import list_runs
from support.new_runs import CONFIG, start


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        ({"train": ["CIFAR100"], "label": "Trees", "classes": ["oak_tree"] * 5}, "Trees (5)"),
        ({"train": ["CIFAR100"], "label": None, "classes": ["oak_tree", "pine_tree"]}, "CIFAR100 (2)"),
        ({"train": ["/home/me/photos/"], "label": "Mine", "classes": []}, "Mine"),
        ({"train": ["/home/me/photos/"], "label": "", "classes": []}, "photos"),
        ({"train": ["a/first.jsonl:0.7", "second.jsonl:0.3"]}, "first.jsonl +1"),  # as older runs recorded it
        ({"train": [], "label": "Trees"}, None),
        ({"train": ["a"], "label": 7, "classes": "cat"}, "a"),
    ],
)
def test_data_is_listed_by_its_label_and_how_many_classes_were_chosen(
    base: Path, data: dict[str, Any], shown: str | None
) -> None:
    run = start(base, config={**CONFIG, "data": data})
    assert run.metadata()["dataset"] == shown
    assert [record.dataset for record in list_runs(base)] == [shown]
