"""The presets of image data sets list classes that there are."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from pitstop.configs.files import PRESETS
from pitstop.trainers.data.images.cifar100 import CLASS_NAMES, SUPERCLASSES

ANIMALS = [
    "aquatic mammals", "fish", "insects", "large carnivores", "large omnivores and herbivores", "medium mammals", "reptiles", "small mammals",
]  # fmt: skip


def preset(name: str) -> dict[str, Any]:
    content = yaml.safe_load((PRESETS / "data" / f"{name}.yaml").read_text(encoding="utf-8"))
    assert isinstance(content, dict)
    return content


@pytest.mark.parametrize(("name", "data"), [("cifar10", "CIFAR10"), ("cifar100", "CIFAR100")])
def test_a_whole_data_set(name: str, data: str) -> None:
    assert preset(name) == {"data": {"train": [data]}, "training": {"task": "diffusion"}}


@pytest.mark.parametrize(
    ("name", "label", "count", "superclasses"),
    [("cifar100_trees_only", "Trees", 5, ["trees"]), ("cifar100_animals_only", "Animals", 40, ANIMALS)],
)
def test_some_classes_of_cifar_100(name: str, label: str, count: int, superclasses: list[str]) -> None:
    content = preset(name)
    classes = content["data"].pop("classes")
    assert content == {"data": {"train": ["CIFAR100"], "label": label}, "training": {"task": "diffusion"}}
    assert len(classes) == count
    assert classes == sorted(member for each in superclasses for member in SUPERCLASSES[each])
    assert set(classes) <= set(CLASS_NAMES)


def test_the_ids_of_the_trees() -> None:
    assert [CLASS_NAMES.index(name) for name in preset("cifar100_trees_only")["data"]["classes"]] == [47, 52, 56, 59, 96]
