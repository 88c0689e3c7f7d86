"""Sets of images: counts, parts, fingerprints, chosen classes, and images fitted to a model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images.cifar100 import CLASS_NAMES, SUPERCLASSES
from pitstop.trainers.data.images.classes import choose_classes
from pitstop.trainers.data.images.fitting import fit
from pitstop.trainers.data.images.image_set import ImageSet

NAMES = ("maple_tree", "Oak-Tree", "palm tree", "7", "empty")


def made(labels: list[int], names: tuple[str, ...] = NAMES) -> ImageSet:
    images = np.arange(len(labels) * 12, dtype=np.uint8).reshape(-1, 3, 2, 2)
    return ImageSet(images, np.array(labels, dtype=np.int64), names)


def test_counts_are_of_every_class() -> None:
    assert made([2, 0, 2, 3]).counts().tolist() == [1, 0, 2, 1, 0]


def test_a_part_keeps_order_labels_and_names() -> None:
    images = replace(made([2, 0, 2, 3]), chosen=(0, 2, 3), bad=2, bad_reasons=("x.png: torn",))
    part = images.part(np.array([True, False, False, True]))
    assert part.labels.tolist() == [2, 3]
    assert np.array_equal(part.images, images.images[[0, 3]])
    assert (part.class_names, part.chosen, part.bad, part.bad_reasons) == (NAMES, (0, 2, 3), 2, ("x.png: torn",))


def test_a_mask_of_another_kind_is_refused() -> None:
    for mask in (np.array([0, 1]), np.array([True])):
        with pytest.raises(ValueError, match="mask"):
            made([0, 1]).part(mask)


@pytest.mark.parametrize(
    ("images", "labels"),
    [
        (np.zeros((1, 3, 2, 2), np.float32), np.zeros(1, np.int64)),
        (np.zeros((3, 2, 2), np.uint8), np.zeros(3, np.int64)),
        (np.zeros((2, 3, 2, 2), np.uint8), np.zeros(1, np.int64)),
        (np.zeros((1, 3, 2, 2), np.uint8), np.zeros(1, np.int32)),
        (np.zeros((1, 3, 2, 2), np.uint8), np.full(1, 5, np.int64)),
        (np.zeros((1, 3, 2, 2), np.uint8), np.full(1, -1, np.int64)),
    ],
)
def test_what_does_not_fit_together_is_no_set(images: np.ndarray, labels: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"wanted|outside"):
        ImageSet(images, labels, NAMES)


def test_the_fingerprint_is_of_the_content() -> None:
    images = made([0, 1])
    assert images.fingerprint == made([0, 1]).fingerprint
    turned = replace(images, images=images.images.reshape(2, 2, 2, 3))
    others = [made([1, 0]), made([0, 1], (*NAMES, "more")), replace(images, chosen=(0, 1)), turned]
    others.append(replace(images, images=images.images + np.uint8(1)))
    assert len({images.fingerprint, *(each.fingerprint for each in others)}) == 6
    fortran = replace(images, images=np.asfortranarray(images.images))
    assert fortran.fingerprint == images.fingerprint
    assert replace(images, bad=1).fingerprint == images.fingerprint


@pytest.mark.parametrize("given", ["oak_tree", "OAK TREE", " oak-tree ", "1", 1])
def test_a_class_is_chosen_by_name_or_id(given: str | int) -> None:
    chosen = choose_classes(made([0, 1, 2, 1]), [given, "maple tree"])
    assert chosen.labels.tolist() == [0, 1, 1]
    assert (chosen.chosen, chosen.class_names) == ((0, 1), NAMES)
    assert chosen.images[:, 0, 0, 0].tolist() == [0, 12, 36]


def test_a_name_goes_before_an_id() -> None:
    assert choose_classes(made([0, 3], ("a", "b", "c", "0")), ["0"]).chosen == (3,)


def test_an_unknown_class_is_told_the_nearest_and_all() -> None:
    with pytest.raises(DataError, match="There is no class mapel_tree") as caught:
        choose_classes(made([0]), ["mapel_tree"])
    assert (
        caught.value.hint
        == "Did you mean maple_tree or palm tree or Oak-Tree? The classes: 0 maple_tree, 1 Oak-Tree, 2 palm tree, 3 7, 4 empty."
    )


@pytest.mark.parametrize("given", ["5", "-1", -1, "1.0", "", "99999999999", "٣"])
def test_an_id_that_does_not_exist_is_no_class(given: str | int) -> None:
    with pytest.raises(DataError, match="There is no class"):
        choose_classes(made([0]), [given])


def test_the_superclass_of_cifar_100_names_its_classes() -> None:
    with pytest.raises(DataError) as caught:
        choose_classes(made([0], CLASS_NAMES), ["Large Carnivores"])
    assert str(caught.value.hint).startswith(
        "Large Carnivores is a superclass of CIFAR-100; name its classes: bear, leopard, lion, tiger, wolf. The classes: 0 apple,"
    )
    with pytest.raises(DataError) as elsewhere:
        choose_classes(made([0]), ["trees"])
    assert "superclass" not in str(elsewhere.value.hint)


def test_a_class_given_twice_is_refused() -> None:
    with pytest.raises(DataError, match="palm tree is given twice: as palm_tree and as 2"):
        choose_classes(made([2]), ["palm_tree", "2"])


def test_a_class_without_images_is_refused() -> None:
    with pytest.raises(DataError, match="The class empty has no image here") as caught:
        choose_classes(made([2, 0]), ["palm tree", "empty"])
    assert caught.value.hint == "The classes: 0 maple_tree, 2 palm tree."


def test_no_class_is_no_choice() -> None:
    with pytest.raises(DataError, match="No class is chosen"):
        choose_classes(made([0]), [])


def test_names_that_are_alike_must_be_written_out() -> None:
    images = made([0, 1], ("a_b", "A-b"))
    assert choose_classes(images, ["A-b"]).chosen == (1,)
    with pytest.raises(DataError, match=r"several: a_b \(0\), A-b \(1\)"):
        choose_classes(images, ["a b"])


def test_a_long_list_of_classes_is_cut() -> None:
    with pytest.raises(DataError) as caught:
        choose_classes(made([0], tuple(f"c{number}x" for number in range(1121))), ["~"])
    assert str(caught.value.hint).endswith(", 119 c119x and 1,001 more.")


def test_smaller_images_get_an_even_margin_of_zeros() -> None:
    images = np.full((1, 1, 3, 2), 9, dtype=np.uint8)
    assert fit(images, 4, 1)[0, 0].tolist() == [[0, 9, 9, 0], [0, 9, 9, 0], [0, 9, 9, 0], [0, 0, 0, 0]]


def test_images_of_mnist_fit_a_model_of_32_pixels() -> None:
    images = np.full((2, 1, 28, 28), 200, dtype=np.uint8)
    fitted = fit(images, 32, 3)
    assert fitted.shape == (2, 3, 32, 32)
    assert (fitted[:, :, 2:30, 2:30] == 200).all()
    assert int(fitted.sum()) == 2 * 3 * 28 * 28 * 200
    assert fit(np.zeros((1, 1, 24, 24), np.uint8), 32, 1).shape == (1, 1, 32, 32)


@pytest.mark.parametrize(
    ("height", "width", "size", "fitting"), [(32, 32, 28, 32), (28, 28, 64, 28), (31, 33, 32, 36), (23, 32, 32, 32)]
)
def test_images_that_are_larger_or_much_smaller_are_refused(height: int, width: int, size: int, fitting: int) -> None:
    with pytest.raises(DataError, match=f"of {width} × {height} pixels, and the model takes {size} × {size}") as caught:
        fit(np.zeros((1, 3, height, width), np.uint8), size, 3)
    assert f"model config for images of {fitting} × {fitting}" in str(caught.value.hint)


def test_grey_becomes_three_equal_channels() -> None:
    grey = np.arange(4, dtype=np.uint8).reshape(1, 1, 2, 2)
    assert np.array_equal(fit(grey, 2, 3)[0], np.stack([grey[0, 0]] * 3))


@pytest.mark.parametrize(
    ("colour", "luma"),
    # 0.299 · 255 = 76.245, 0.587 · 255 = 149.685, 0.114 · 255 = 29.07; 2.99 + 11.74 + 3.42 = 18.15; 1.495 + 1.174 + 0.114 = 2.783
    [
        ((255, 0, 0), 76),
        ((0, 255, 0), 150),
        ((0, 0, 255), 29),
        ((255, 255, 255), 255),
        ((10, 20, 30), 18),
        ((5, 2, 1), 3),
        ((0, 0, 0), 0),
    ],
)
def test_colours_become_luma(colour: tuple[int, int, int], luma: int) -> None:
    image = np.array(colour, dtype=np.uint8).reshape(1, 3, 1, 1)
    assert fit(image, 1, 1).tolist() == [[[[luma]]]]


def test_other_channels_are_refused() -> None:
    with pytest.raises(DataError, match="4 channels, and the model takes 3"):
        fit(np.zeros((1, 4, 2, 2), np.uint8), 2, 3)


def test_the_ids_of_cifar_100() -> None:
    assert len(set(CLASS_NAMES)) == 100
    assert len(SUPERCLASSES) == 20
    assert {len(members) for members in SUPERCLASSES.values()} == {5}
    assert [CLASS_NAMES.index(name) for name in SUPERCLASSES["trees"]] == [47, 52, 56, 59, 96]
    # ids of some others in the published fine_label_names.txt
    assert [CLASS_NAMES[index] for index in (0, 1, 39, 41, 58, 83, 99)] == [
        "apple", "aquarium_fish", "keyboard", "lawn_mower", "pickup_truck", "sweet_pepper", "worm",
    ]  # fmt: skip
