"""From a ``--dataset`` value to images of the size and channels of a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images import cifar
from pitstop.trainers.data.images.image_set import ImageSet
from pitstop.trainers.data.images.reading import read_images
from pitstop.trainers.data.records import NoData
from support.image_files import make_images, make_labels, write_cifar, write_folder, write_idx


def read(place: Path | str, split: str = "train", size: int = 32, channels: int = 3, **how: object) -> ImageSet:
    return read_images(str(place), split=split, size=size, channels=channels, **how)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_an_archive_its_directory_and_what_they_are_in(tmp_path: Path) -> None:
    archive = write_cifar(tmp_path / "a", archive=True)
    directory = write_cifar(tmp_path / "b")
    found = [read(place, "validation") for place in (archive, directory, tmp_path / "a", tmp_path / "b")]
    assert {(each.images.shape, each.fingerprint) for each in found} == {((20, 3, 32, 32), found[0].fingerprint)}


def test_a_directory_with_the_archive_and_what_came_out_of_it(tmp_path: Path) -> None:
    write_cifar(tmp_path, archive=True, seed=1)
    unpacked = write_cifar(tmp_path, seed=2)
    assert read(tmp_path).fingerprint == read(unpacked).fingerprint


def test_a_directory_with_both_data_sets_is_ambiguous(tmp_path: Path) -> None:
    write_cifar(tmp_path, archive=True)
    write_cifar(tmp_path, cifar.CIFAR100)
    with pytest.raises(DataError, match="CIFAR-10 and CIFAR-100 are both in it") as caught:
        read(tmp_path)
    assert str(tmp_path / "cifar-10-binary.tar.gz") in str(caught.value.hint)


def test_a_renamed_directory_is_told_by_its_list_of_classes(tmp_path: Path) -> None:
    assert len(read(write_cifar(tmp_path, cifar.CIFAR100).rename(tmp_path / "renamed"))) == 50


def test_idx_files_get_a_margin_and_channels(tmp_path: Path) -> None:
    images = read(write_idx(tmp_path), "test")
    assert images.images.shape == (20, 3, 32, 32)
    assert not images.images[:, :, :2].any() and images.images[:, :, 2:30, 2:30].any()
    assert images.class_names == tuple("0123456789")
    with pytest.raises(DataError, match="the model takes 64 × 64"):
        read(tmp_path, size=64)


def test_folders_are_read_at_the_size_of_the_model(tmp_path: Path) -> None:
    write_folder(tmp_path, splits={"train": 2, "test": 1}, size=(30, 50))
    assert read(tmp_path, size=16, channels=1).images.shape == (6, 1, 16, 16)
    assert len(read(tmp_path, "validation", size=16)) == 3


def test_images_that_cannot_be_read_are_counted_if_asked_for(tmp_path: Path) -> None:
    write_folder(tmp_path, splits=2)
    (tmp_path / "cat" / "000.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"cat/000\.png"):
        read(tmp_path)
    left = read(tmp_path, skip_bad_rows=True)
    assert left.bad == 1 and "000.png" in left.bad_reasons[0]


def test_a_name_is_looked_for_under_the_root(tmp_path: Path) -> None:
    write_cifar(tmp_path / "root", cifar.CIFAR100, archive=True)
    write_idx(tmp_path / "root" / "fashion-mnist")
    assert read("CIFAR-100", data_root=tmp_path / "root").class_names[47] == "maple_tree"
    assert read("FashionMNIST", data_root=tmp_path / "root").class_names[9] == "ankle boot"
    with pytest.raises(DataError, match="CIFAR10 is not on this machine, and HF_HUB_OFFLINE"):
        read("CIFAR10", data_root=tmp_path / "root")


def test_a_path_goes_before_a_name() -> None:
    write_folder(Path("cifar10"), classes=("a", "b"))
    assert read("cifar10").class_names == ("a", "b")


def test_a_path_may_begin_with_the_home_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write_folder(tmp_path / "pets")
    assert read("~/pets").class_names == ("cat", "dog", "frog")


@pytest.mark.parametrize("spec", ["nowhere/at/all", "x" * 5000, "a\0b", "~nobody-of-this-name/x"])
def test_what_is_not_there_is_no_data(spec: str) -> None:
    with pytest.raises(NoData, match="no such file or directory, and no data set of this name") as caught:
        read(spec)
    assert "CIFAR10, CIFAR100, FashionMNIST" in str(caught.value.hint)


def test_the_version_for_python_is_refused_before_its_files_are_opened(tmp_path: Path) -> None:
    directory = tmp_path / "cifar-10-batches-py"
    directory.mkdir()
    (directory / "data_batch_1").write_bytes(b"cos\nsystem\n(S'exit 1'\ntR.")
    for place in (directory, tmp_path):
        with pytest.raises(DataError, match=r"cifar-10-batches-py: this is CIFAR for Python"):
            read(place)


def test_a_file_that_is_no_data_set(tmp_path: Path) -> None:
    write_idx(tmp_path)
    with pytest.raises(DataError, match="cannot tell what images these are") as caught:
        read(tmp_path / "train-images-idx3-ubyte.gz")
    assert caught.value.hint == f"For IDX files give their directory: {tmp_path}."
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match="cannot tell what images these are"):
        read(tmp_path / "x.zip")


def test_another_split_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="split: one of train, validation, test, not 'val'"):
        read(tmp_path, "val")


def test_pillow_is_imported_for_image_files_only(tmp_path: Path) -> None:
    place = write_idx(tmp_path)
    program = (
        "import sys; from pitstop.trainers.data.images import grid; from pitstop.trainers.data.images.reading import read_images; "
        f"read_images({str(place)!r}, split='train', size=32, channels=1); assert 'PIL' not in sys.modules and 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_authored_images_show_their_class() -> None:
    labels = make_labels(200, range(10))
    images = make_images(labels, seed=4).reshape(200, -1).astype(float)
    means = np.stack([images[:100][labels[:100] == label].mean(0) for label in range(10)])
    nearest = np.array([np.argmin(((means - image) ** 2).sum(1)) for image in images[100:]])
    assert (nearest == labels[100:]).all()


def test_an_image_saved_for_a_folder_is_the_one_that_was_made(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("cat",), splits=1, size=(8, 8), seed=3)
    with Image.open(tmp_path / "cat" / "000.png") as image:
        assert np.array_equal(np.asarray(image).transpose(2, 0, 1), read(tmp_path, size=8).images[0])
