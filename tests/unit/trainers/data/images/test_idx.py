"""IDX files, the format of MNIST."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images import idx
from pitstop.trainers.data.images.idx import FASHION, has_idx_files, read_idx, read_idx_directory
from pitstop.trainers.data.records import NoData
from support.image_files import idx_bytes, write_idx

# Two images of two rows and three columns, written out by hand.
IMAGES = bytes.fromhex("00000803 00000002 00000002 00000003") + bytes(range(12))
LABELS = bytes.fromhex("00000801 00000002") + bytes([4, 1])


def pair(directory: Path, images: bytes = IMAGES, labels: bytes = LABELS, half: str = "train") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f"{half}-images-idx3-ubyte").write_bytes(images)
    (directory / f"{half}-labels-idx1-ubyte").write_bytes(labels)
    return directory


def test_bytes_become_images_of_one_channel(tmp_path: Path) -> None:
    images = read_idx_directory(pair(tmp_path), split="train")
    assert images.images.tolist() == [[[[0, 1, 2], [3, 4, 5]]], [[[6, 7, 8], [9, 10, 11]]]]
    assert images.labels.tolist() == [4, 1]
    assert images.class_names == ("0", "1", "2", "3", "4")


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dotted", [True, False])
def test_both_spellings_packed_and_plain(tmp_path: Path, packed: bool, dotted: bool) -> None:
    place = write_idx(tmp_path / "x", packed=packed, dotted=dotted)
    assert has_idx_files(place)
    train, test = read_idx_directory(place, split="train"), read_idx_directory(place, split="test")
    assert (train.images.shape, test.images.shape) == ((40, 1, 28, 28), (20, 1, 28, 28))
    assert read_idx_directory(place, split="validation").fingerprint == test.fingerprint
    assert train.fingerprint == read_idx_directory(write_idx(tmp_path / "y"), split="train").fingerprint


def test_gzip_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    assert len(read_idx_directory(pair(tmp_path, gzip.compress(IMAGES)), split="train")) == 2


def test_the_classes_are_the_same_for_both_halves(tmp_path: Path) -> None:
    pair(tmp_path, labels=LABELS[:-2] + bytes([0, 6]), half="t10k")
    pair(tmp_path)
    names = tuple(str(number) for number in range(7))
    assert read_idx_directory(tmp_path, split="train").class_names == names
    assert read_idx_directory(tmp_path, split="test").class_names == names


def test_the_classes_of_a_known_data_set_have_names(tmp_path: Path) -> None:
    assert "fashion" not in str(tmp_path), "the directory is to be told by its own name"
    assert read_idx_directory(pair(tmp_path / "Fashion-MNIST" / "raw"), split="train").class_names == FASHION
    assert (FASHION[0], FASHION[4], FASHION[9], len(FASHION)) == ("t-shirt/top", "coat", "ankle boot", 10)
    with pytest.raises(DataError, match="the label 10 is none of Fashion-MNIST"):
        read_idx_directory(pair(tmp_path / "fashion", labels=LABELS[:-1] + bytes([10])), split="train")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"\x00\x00\x09" + IMAGES[3:], "begins with 00 00 09 03, not with 00 00 08 03"),
        (b"\x00\x01" + IMAGES[2:], "begins with 00 01 08 03"),
        (b"\x00\x00\x08\x01" + IMAGES[4:], "begins with 00 00 08 01"),
        (IMAGES[:15], "begins with 00 00 08 03"),
        (b"", "begins with nothing"),
        (IMAGES[:-1], "2 × 2 × 3 need 12 bytes, and 11 are there"),
        (IMAGES + b"\x00", "need 12 bytes, and 13 are there"),
        (bytes.fromhex("00000803 ffffffff ffffffff ffffffff") + bytes(8), "and 8 are there"),
    ],
)
def test_a_file_that_is_not_whole_or_something_else(tmp_path: Path, content: bytes, reason: str) -> None:
    with pytest.raises(DataError, match=f"train-images-idx3-ubyte: .*{reason}"):
        read_idx_directory(pair(tmp_path, content), split="train")


def test_sizes_are_big_endian(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(bytes.fromhex("00000801 00000102") + bytes(258))
    assert read_idx(tmp_path / "x", 1).shape == (258,)


def test_as_many_labels_as_images(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="has 2 images, and train-labels-idx1-ubyte 3 labels"):
        read_idx_directory(pair(tmp_path, labels=bytes.fromhex("00000801 00000003 010203")), split="train")


@pytest.mark.parametrize("sizes", ["00000000 00000002 00000002", "00000002 00000000 00000002"])
def test_no_images_are_an_error(tmp_path: Path, sizes: str) -> None:
    labels = bytes.fromhex(f"00000801 {sizes[:8]}") + bytes(int(sizes[:8], 16))
    with pytest.raises(DataError, match="there is no image in it"):
        read_idx_directory(pair(tmp_path, bytes.fromhex("00000803 " + sizes), labels), split="train")


def test_a_half_that_is_missing_is_no_data_and_a_missing_file_is_an_error(tmp_path: Path) -> None:
    pair(tmp_path)
    with pytest.raises(NoData, match="no t10k-images-idx3-ubyte, and so no images for validation"):
        read_idx_directory(tmp_path, split="validation")
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DataError, match="train-labels-idx1-ubyte is missing") as caught:
        read_idx_directory(tmp_path, split="train")
    assert not isinstance(caught.value, NoData)


def test_a_file_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idx, "_LONGEST", 1000)
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        read_idx_directory(pair(tmp_path, gzip.compress(bytes(2_000_000))), split="train")


def test_damage_in_the_packing_is_told(tmp_path: Path) -> None:
    packed = gzip.compress(IMAGES)
    for content in (packed[:-9], packed[:12], packed[:-8] + bytes(8)):
        with pytest.raises(DataError, match="train-images-idx3-ubyte: cannot be read"):
            read_idx_directory(pair(tmp_path, content), split="train")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    images=st.one_of(
        st.binary(max_size=40),
        st.binary(max_size=30).map(lambda rest: b"\x00\x00\x08\x03" + rest),
        st.lists(st.integers(0, 3), min_size=3, max_size=3).map(lambda sizes: idx_bytes(np.zeros(sizes, np.uint8))),
        st.binary(max_size=30).map(lambda rest: b"\x1f\x8b" + rest),
    ),
    labels=st.one_of(
        st.binary(max_size=20), st.lists(st.integers(0, 255), max_size=3).map(lambda v: idx_bytes(np.array(v, np.uint8)))
    ),
    other=st.one_of(st.none(), st.binary(max_size=20)),
)
def test_whatever_the_files_hold_there_are_images_or_a_data_error(
    tmp_path: Path, images: bytes, labels: bytes, other: bytes | None
) -> None:
    pair(tmp_path, images, labels)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink(missing_ok=True)
    if other is not None:
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(other)
    try:
        assert len(read_idx_directory(tmp_path, split="train")) > 0
    except DataError as error:
        assert error.message
