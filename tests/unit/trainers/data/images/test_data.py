"""Images as training takes them, and a share of each class held out."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images.data import ImageData, hold_out
from pitstop.trainers.data.images.reading import has_validation
from support.image_files import write_cifar, write_folder, write_idx
from support.image_models import numbered_images

NAMES = ("ash", "birch", "cedar", "elm")


def _data(labels: list[int], **more: object) -> ImageData:
    return ImageData(numbered_images(labels, NAMES, **more))


def _numbers(data: ImageData) -> list[int]:
    return [int(number) for number in data.pixels(np.arange(len(data)))[:, 0, 0, 0]]


def test_each_image_is_a_sequence_of_one_unit() -> None:
    data = _data([0, 0, 2], bad=2, bad_reasons=("a.png: no image",))
    counts = data.counts
    assert len(data) == 3 and data.tokens_per_epoch == 3.0
    assert (counts.records, counts.used, counts.bad, counts.too_long) == (5, 3, 2, 0)
    assert (counts.tokens, counts.supervised_tokens, counts.bad_reasons) == (3, 3, ("a.png: no image",))
    assert data.supervised_tokens(np.array([2, 0])) == data.tokens(np.array([2, 0])) == 2
    assert data.fingerprint == data.images.fingerprint


def test_pixels_and_labels_go_by_number() -> None:
    data = _data([3, 1, 2])
    assert data.pixels(np.array([2, 0]))[:, 0, 0, 0].tolist() == [2, 0]
    assert data.labels(np.array([2, 0])).tolist() == [2, 3]
    assert data.pixels(np.array([1])).dtype == np.uint8 and data.labels(np.array([1])).dtype == np.int64


def test_the_record_has_the_counts_of_classes_that_are_there_and_all_names() -> None:
    data = _data([3, 1, 3], bad=1)
    wanted = {"records": 4, "used": 3, "bad": 1, "classes": {"birch": 1, "elm": 2}, "class_names": list(NAMES)}
    wanted["counts"] = {"records": {"read": 4, "used": 3, "left_out": 0, "malformed": 1}}
    assert json.loads(json.dumps(data.described())) == wanted


@pytest.mark.parametrize(
    ("labels", "words"),
    [([2], "1 image of 1 class"), ([2, 2, 0], "3 images of 2 classes"), ([1] * 255, "255 images of 1 class")],
)
def test_in_words(labels: list[int], words: str) -> None:
    assert _data(labels).in_words() == words


def test_thousands_have_a_comma_in_words() -> None:
    images = numbered_images([0, 1] * 100, NAMES)
    many = np.tile(images.images, (6, 1, 1, 1)), np.tile(images.labels, 6)
    assert ImageData(type(images)(*many, NAMES)).in_words() == "1,200 images of 2 classes"


def test_the_first_images() -> None:
    data = _data([0, 1, 2, 3])
    assert _numbers(data.first(2)) == [0, 1] and data.first(2).counts.used == 2
    assert len(data.first(9)) == 4


def test_the_same_share_of_every_class_is_held_out_and_at_least_one_image() -> None:
    """A quarter of 12, 4 and 2 images: 3, 1, and one at least."""
    labels = [0] * 12 + [1] * 4 + [3] * 2
    train, evaluation = hold_out(_data(labels), 0.25, seed=1)
    assert evaluation.images.counts().tolist() == [3, 1, 0, 1]
    assert train.images.counts().tolist() == [9, 3, 0, 1]
    assert train.images.class_names == evaluation.images.class_names == NAMES


def test_every_image_is_on_one_side_in_its_place() -> None:
    train, evaluation = hold_out(_data([0, 1, 2] * 20), 0.3, seed=5)
    kept, held = _numbers(train), _numbers(evaluation)
    assert sorted(kept + held) == list(range(60)) and not set(kept) & set(held)
    assert kept == sorted(kept) and held == sorted(held)
    assert train.labels(np.arange(len(train))).tolist() == [number % 3 for number in kept]


def test_what_is_held_out_is_a_function_of_the_seed() -> None:
    data = _data([0, 1] * 30)
    first, again, other = (_numbers(hold_out(data, 0.2, seed=seed)[1]) for seed in (1, 1, 2))
    assert first == again != other
    assert first != list(range(12))


def test_of_a_large_share_one_image_of_each_class_is_left_to_train_on() -> None:
    train, evaluation = hold_out(_data([0] * 5 + [1] * 2), 0.99, seed=0)
    assert train.images.counts().tolist() == [1, 1, 0, 0] and evaluation.images.counts().tolist() == [4, 1, 0, 0]


def test_a_class_with_a_single_image_is_refused_by_name() -> None:
    with pytest.raises(DataError, match="the class cedar has a single image") as caught:
        hold_out(_data([0, 0, 2, 1, 1]), 0.5, seed=0)
    assert "--eval-dataset" in str(caught.value.hint)


def test_which_data_sets_have_images_to_validate_on(tmp_path: Path) -> None:
    plain = write_folder(tmp_path / "plain", splits=1)
    split = {name: write_folder(tmp_path / name, splits={"train": 1, name: 1}) for name in ("val", "validation", "test")}
    alone = write_folder(tmp_path / "alone", splits={"train": 1})
    archive = write_cifar(tmp_path / "packed", archive=True, train=5, test=1)
    unpacked = write_cifar(tmp_path / "unpacked", train=5, test=1)
    both, half = write_idx(tmp_path / "both", train=2, test=1), write_idx(tmp_path / "half", train=2, test=0)
    for path in (*split.values(), archive, archive.parent, unpacked, unpacked.parent, both):
        assert has_validation(str(path)), path
    for path in (plain, alone, half):
        assert not has_validation(str(path)), path


@pytest.mark.parametrize("spec", ["CIFAR10", "nothing/here"])
def test_of_a_data_set_that_is_not_here_reading_tells(spec: str) -> None:
    assert has_validation(spec)
