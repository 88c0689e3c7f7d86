"""CIFAR's binary archives and their unpacked directories."""

from __future__ import annotations

import gzip
import io
import tarfile
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images import cifar
from pitstop.trainers.data.images.archive import read_archive
from pitstop.trainers.data.images.image_set import ImageSet
from support.image_files import CIFAR10_NAMES, cifar_files, write_cifar, write_tar

BOTH = pytest.mark.parametrize("layout", [cifar.CIFAR10, cifar.CIFAR100], ids=["10", "100"])


def read(place: Path, split: str = "train") -> ImageSet:
    if place.is_dir():
        layout = cifar.layout_of(place)
        assert layout is not None
        return cifar.read_cifar_directory(place, layout, split=split)
    return cifar.read_cifar_archive(place, split=split)


def record(labels: list[int], red: int, green: int, blue: int) -> bytes:
    """One record, whose first pixel of each channel is one more than the others."""
    return bytes([*labels, *([red + 1] + [red] * 1023), *([green + 1] + [green] * 1023), *([blue + 1] + [blue] * 1023)])


def test_a_record_of_cifar_10_is_a_label_and_three_planes(tmp_path: Path) -> None:
    place = write_cifar(tmp_path)
    (place / "test_batch.bin").write_bytes(record([9], 10, 20, 30) + record([0], 40, 50, 60))
    images = read(place, "test")
    assert images.images.shape == (2, 3, 32, 32)
    assert images.labels.tolist() == [9, 0]
    assert images.class_names == CIFAR10_NAMES
    assert images.images[0, :, 0, 0].tolist() == [11, 21, 31]
    assert images.images[1, :, 31, 31].tolist() == [40, 50, 60]
    assert np.array_equal(np.unique(images.images[0, 1]), [20, 21])


def test_the_label_of_cifar_100_is_the_second_byte(tmp_path: Path) -> None:
    place = write_cifar(tmp_path, cifar.CIFAR100)
    (place / "test.bin").write_bytes(record([200, 47], 1, 2, 3))
    images = read(place, "validation")
    assert images.labels.tolist() == [47]
    assert images.class_names[47] == "maple_tree"
    assert images.images[0, :, 31, 0].tolist() == [1, 2, 3]


def test_rows_come_one_after_another(tmp_path: Path) -> None:
    place = write_cifar(tmp_path)
    plane = bytes(range(32)) + bytes(992)
    (place / "test_batch.bin").write_bytes(bytes([1]) + plane * 3)
    image = read(place, "test").images[0]
    assert image[2, 0].tolist() == list(range(32))
    assert not image[:, 1:].any()


@BOTH
def test_an_archive_and_its_directory_are_the_same(tmp_path: Path, layout: cifar.Layout) -> None:
    how = {"train": 13, "test": 6, "seed": 3}
    archive, directory = write_cifar(tmp_path, layout, archive=True, **how), write_cifar(tmp_path, layout, **how)
    before = sorted(tmp_path.rglob("*"))
    for split, count in (("train", 13), ("validation", 6), ("test", 6)):
        assert len(read(archive, split)) == count
        assert read(archive, split).fingerprint == read(directory, split).fingerprint
    assert read(archive, "test").fingerprint == read(archive, "validation").fingerprint
    assert read(archive).labels.tolist() == list(range(13)) if layout is cifar.CIFAR100 else [*range(10), 0, 1, 2]
    assert sorted(tmp_path.rglob("*")) == before


def test_members_may_begin_with_a_dot(tmp_path: Path) -> None:
    files = {f"./cifar-10-batches-bin/{name}": content for name, content in cifar_files(cifar.CIFAR10).items()}
    assert len(read(write_tar(tmp_path / "x.tar.gz", files))) == 50


def test_an_archive_may_be_unpacked_from_gzip(tmp_path: Path) -> None:
    packed = write_cifar(tmp_path, archive=True)
    plain = tmp_path / "x.tar"
    plain.write_bytes(gzip.decompress(packed.read_bytes()))
    assert read(plain).fingerprint == read(packed).fingerprint


@BOTH
@pytest.mark.parametrize("archive", [True, False])
def test_a_missing_file_is_named(tmp_path: Path, layout: cifar.Layout, archive: bool) -> None:
    files = cifar_files(layout)
    for name in (layout.train[-1], layout.names):
        left = {f"{layout.directory}/{each}": content for each, content in files.items() if each != name}
        place = tmp_path / name.replace(".", "-") / layout.directory
        if archive:
            place.parent.mkdir()
            place = write_tar(place.with_suffix(".tar.gz"), left)
        else:
            place.mkdir(parents=True)
            for each, content in left.items():
                (place.parent / each).write_bytes(content)
        with pytest.raises(DataError, match=f"{place}: {name} of {layout.title} is missing"):
            read(place)


def test_a_file_that_is_cut_off_is_told(tmp_path: Path) -> None:
    place = write_cifar(tmp_path)
    path = place / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"data_batch_3.bin: 30,729 bytes are not a whole number of records of 3,073 bytes"):
        read(place)
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"data_batch_3.bin: 0 bytes are not a whole"):
        read(place)


def test_a_label_out_of_range_is_told_with_its_record(tmp_path: Path) -> None:
    place = write_cifar(tmp_path)
    (place / "test_batch.bin").write_bytes(record([9], 1, 1, 1) + record([10], 1, 1, 1))
    with pytest.raises(DataError, match=r"test_batch.bin: record 2 has the label 10, and there are 10 classes, from 0"):
        read(place, "test")


@pytest.mark.parametrize(("content", "reason"), [(b"a\nb\na\n", "twice"), (b"\n", "no class"), (b"\xff\xfe", "not text")])
def test_a_bad_list_of_classes_is_told(tmp_path: Path, content: bytes, reason: str) -> None:
    place = write_cifar(tmp_path)
    (place / "batches.meta.txt").write_bytes(content)
    with pytest.raises(DataError, match=f"batches.meta.txt: .*{reason}"):
        read(place)


@pytest.mark.parametrize("directory", ["cifar-10-batches-py", "cifar-100-python"])
def test_the_version_for_python_is_refused_and_the_other_named(tmp_path: Path, directory: str) -> None:
    archive = write_tar(tmp_path / "x.tar.gz", {f"{directory}/data_batch_1": b"\x80\x04."})
    with pytest.raises(DataError, match="pickles") as caught:
        read(archive)
    assert "cifar-10-binary.tar.gz" in str(caught.value.hint)


def test_an_archive_of_something_else_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="not an archive of CIFAR-10 or of CIFAR-100"):
        read(write_tar(tmp_path / "x.tar.gz", {"somewhere/data_batch_1.bin": b"x"}))
    both = {f"{layout.directory}/{layout.names}": b"a\n" for layout in cifar.LAYOUTS}
    with pytest.raises(DataError, match="both CIFAR-10 and CIFAR-100"):
        read(write_tar(tmp_path / "y.tar.gz", both))


def _tar(path: Path, *members: tuple[tarfile.TarInfo, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for member, content in members:
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_a_link_in_place_of_a_file_is_not_followed(tmp_path: Path, kind: bytes) -> None:
    names, link = tarfile.TarInfo("cifar-10-batches-bin/batches.meta.txt"), tarfile.TarInfo("cifar-10-batches-bin/test_batch.bin")
    link.type, link.linkname = kind, "cifar-10-batches-bin/batches.meta.txt"
    place = _tar(tmp_path / "x.tar.gz", (names, b"a\n"), (link, b""))
    with pytest.raises(DataError, match=r"test_batch\.bin is not a plain file"):
        read(place, "test")


def test_a_file_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    name = "cifar-10-batches-bin/batches.meta.txt"
    with pytest.raises(DataError, match="is there twice"):
        read(_tar(tmp_path / "x.tar.gz", (tarfile.TarInfo(name), b"a"), (tarfile.TarInfo("./" + name), b"b")))


def test_other_members_and_their_paths_do_not_matter(tmp_path: Path) -> None:
    files = {f"cifar-10-batches-bin/{name}": content for name, content in cifar_files(cifar.CIFAR10).items()}
    tricks = {
        "../cifar-10-batches-bin/data_batch_1.bin": b"x",
        "/etc/passwd": b"x",
        "cifar-10-batches-bin/../batches.meta.txt": b"x",
    }
    assert len(read(write_tar(tmp_path / "x.tar.gz", tricks | files))) == 50


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    place = write_tar(tmp_path / "x.tar.gz", {"other": bytes(300_000), "wanted": b"x"})
    assert read_archive(place, {"wanted"}, set(), limit=400_000).files == {"wanted": bytearray(b"x")}
    with pytest.raises(DataError, match="more than 200,000 bytes, unpacked"):
        read_archive(place, {"wanted"}, set(), limit=200_000)


def test_a_header_of_a_false_size_takes_no_more_memory_than_the_limit(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 32
    place = tmp_path / "x.tar.gz"
    place.write_bytes(gzip.compress(header.tobuf() + bytes(8_000_000)))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="more than 1,000,000 bytes, unpacked"):
            read_archive(place, set(), set(), limit=1_000_000)
        assert tracemalloc.get_traced_memory()[1] < 4_000_000
    finally:
        tracemalloc.stop()


def test_damage_in_the_packing_is_told(tmp_path: Path) -> None:
    place = write_cifar(tmp_path, archive=True)
    whole = place.read_bytes()
    checksum_wrong = bytearray(whole)
    checksum_wrong[-8] ^= 1
    for content in (whole[: len(whole) // 2], whole[:20], b"", b"not an archive" * 100, bytes(checksum_wrong)):
        place.write_bytes(content)
        with pytest.raises(DataError, match=r"cannot be read|not an archive"):
            read(place, "test")


def test_a_file_longer_than_the_format_needs_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = write_cifar(tmp_path)
    monkeypatch.setattr(cifar, "_LONGEST_FILE", 1000)
    with pytest.raises(DataError, match="more than 1,000 bytes"):
        read(place)


def _never_anything_else(reading: Callable[[], ImageSet]) -> None:
    try:
        assert len(reading()) > 0
    except DataError as error:
        assert error.message


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.one_of(st.just(b"a\nb\n"), st.binary(max_size=20)),
    head=st.binary(max_size=4),
    length=st.integers(0, 3074 * 2),
    layout=st.sampled_from(cifar.LAYOUTS),
)
def test_whatever_the_files_hold_there_are_images_or_a_data_error(
    tmp_path: Path, names: bytes, head: bytes, length: int, layout: cifar.Layout
) -> None:
    place = tmp_path / layout.directory
    place.mkdir(exist_ok=True)
    (place / layout.names).write_bytes(names)
    (place / layout.test[0]).write_bytes((head + bytes(length))[:length])
    _never_anything_else(lambda: read(place, "test"))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, 4095), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 8192),
    packed=st.booleans(),
)
def test_whatever_an_archive_holds_there_are_images_or_a_data_error(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int, packed: bool
) -> None:
    members = [
        (tarfile.TarInfo(f"cifar-10-batches-bin/{name}"), c)
        for name, c in (("batches.meta.txt", b"a\n"), ("test_batch.bin", bytes(3073)))
    ]
    for member, _ in members:
        member.pax_headers = {"comment": "é"}
    content = bytearray(gzip.decompress(_tar(tmp_path / "whole.tar.gz", *members).read_bytes())[: max(cut, 600)])
    for place, value in changes:
        content[place % len(content)] = value
    (tmp_path / "x.tar").write_bytes(gzip.compress(content, 1) if packed else content)
    _never_anything_else(lambda: read(tmp_path / "x.tar", "test"))
