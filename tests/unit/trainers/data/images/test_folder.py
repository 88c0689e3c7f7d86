"""Folders of class-named folders of images."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pitstop.configs.errors import DataError, ResourceError
from pitstop.trainers.data.images.folder import read_folder
from pitstop.trainers.data.images.picture import BadImage, read_picture
from pitstop.trainers.data.records import NoData
from support.image_files import write_folder

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def save(path: Path, pixels: Any, **how: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8)).save(path, **how)
    return path


def stripes(*colours: tuple[int, int, int], height: int = 4, width: int = 4) -> np.ndarray:
    """Stripes from left to right, each ``width`` pixels wide."""
    return np.concatenate([np.broadcast_to(np.array(colour, np.uint8), (height, width, 3)) for colour in colours], axis=1)


def test_classes_and_images_are_sorted(tmp_path: Path) -> None:
    for name, value in (("dog/b.png", 3), ("dog/a.PNG", 2), ("cat/z.bmp", 1), ("dog/deep/c.png", 4)):
        save(tmp_path / name, np.full((4, 4, 3), value))
    images = read_folder(tmp_path, split="train", size=4)
    assert images.class_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 1, 1, 1]
    assert images.images[:, 0, 0, 0].tolist() == [1, 2, 3, 4]
    assert images.images.shape == (4, 3, 4, 4)


def test_what_is_hidden_or_no_image_is_passed_over(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("cat",), splits=2)
    for name in (".cache/x.png", "cat/.x.png", "cat/.hidden/x.png", "cat/notes.txt", "readme.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"no image")
    images = read_folder(tmp_path, split="train", size=8)
    assert (len(images), images.class_names) == (2, ("cat",))


def test_the_middle_square_is_kept(tmp_path: Path) -> None:
    across = save(tmp_path / "across.png", stripes(RED, GREEN, BLUE))
    down = save(tmp_path / "down.png", stripes(RED, GREEN, BLUE).transpose(1, 0, 2))
    for path in (across, down):
        assert np.array_equal(read_picture(path, 4), np.broadcast_to(np.array(GREEN, np.uint8)[:, None, None], (3, 4, 4)))


def test_an_image_is_resized_by_lanczos(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (12, 10, 3), dtype=np.uint8)
    wanted = Image.fromarray(np.ascontiguousarray(pixels[1:11])).resize((4, 4), Image.Resampling.LANCZOS)
    assert np.array_equal(read_picture(save(tmp_path / "x.png", pixels), 4), np.asarray(wanted).transpose(2, 0, 1))


@pytest.mark.parametrize("suffix", [".png", ".webp", ".bmp", ".gif", ".jpg", ".jpeg", ".jfif", ".JPE", ".PPM"])
def test_every_format_is_read(tmp_path: Path, suffix: str) -> None:
    how = (
        {"lossless": True} if suffix == ".webp" else {"quality": 100, "subsampling": 0} if suffix.lower().startswith(".j") else {}
    )
    write = save(tmp_path / "cat" / f"x{suffix}", stripes(RED, BLUE, height=8), **how)
    image = read_folder(tmp_path, split="train", size=8).images[0]
    assert np.abs(image.astype(int) - stripes(RED, BLUE, height=8).transpose(2, 0, 1)).max() <= 3, write


def test_grey_palettes_and_sixteen_bits_become_colours(tmp_path: Path) -> None:
    assert read_picture(save(tmp_path / "grey.png", np.full((2, 2), 77)), 2).tolist() == np.full((3, 2, 2), 77).tolist()
    Image.fromarray(stripes(RED, GREEN, height=8)).convert("P").save(tmp_path / "palette.png")
    assert read_picture(tmp_path / "palette.png", 8)[:, 0, [0, 7]].T.tolist() == [list(RED), list(GREEN)]
    Image.fromarray(np.full((2, 2), 77 * 256 + 200, dtype=np.uint16)).save(tmp_path / "deep.png")
    assert np.unique(read_picture(tmp_path / "deep.png", 2)).tolist() == [77]


def test_what_is_transparent_becomes_white(tmp_path: Path) -> None:
    pixels = np.array([[[9, 9, 9, 0], [9, 9, 9, 255]], [[0, 0, 0, 0], [0, 0, 0, 255]]])
    assert read_picture(save(tmp_path / "x.png", pixels), 2)[0].tolist() == [[255, 9], [255, 0]]


def test_an_image_stands_as_its_exif_orientation_says(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: to be shown a quarter turn clockwise
    path = save(tmp_path / "x.png", stripes(RED, BLUE, height=8), exif=exif)
    image = read_picture(path, 8)
    assert image[:, 0, 0].tolist() == list(RED)
    assert image[:, 0, 7].tolist() == list(RED)
    assert image[:, 7, 0].tolist() == list(BLUE)


def test_a_broken_image_is_told_with_its_path_or_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("cat", "dog"), splits=2)
    whole = (tmp_path / "cat" / "000.png").read_bytes()
    (tmp_path / "cat" / "001.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "dog" / "000.png").write_bytes(b"")
    with pytest.raises(DataError, match=r"cat/001.png: not a readable image") as caught:
        read_folder(tmp_path, split="train", size=8)
    assert "--skip-bad-rows" in str(caught.value.hint)
    images = read_folder(tmp_path, split="train", size=8, skip_bad=True)
    assert (images.labels.tolist(), images.bad) == ([0, 1], 2)
    assert [reason.split(": ")[0] for reason in images.bad_reasons] == [
        str(tmp_path / name) for name in ("cat/001.png", "dog/000.png")
    ]


def test_where_no_image_can_be_read_there_is_no_data_set(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "x.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"none of its 1 images can be read; the first: .*x.png"):
        read_folder(tmp_path, split="train", size=8, skip_bad=True)


@pytest.mark.parametrize("most", [63, 31])  # Pillow warns above the number and raises above twice of it
def test_an_image_of_too_many_pixels_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    path = save(tmp_path / "x.png", np.zeros((8, 8, 3)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", most)
    with pytest.raises(BadImage, match="too many pixels"):
        read_picture(path, 4)


def test_other_decoders_are_not_reached(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "x.tiff")
    (tmp_path / "x.tiff").rename(tmp_path / "x.png")
    with pytest.raises(BadImage, match="cannot identify"):
        read_picture(tmp_path / "x.png", 4)


def test_damaged_images_raise_nothing_else(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    for suffix in (".png", ".jpg", ".gif", ".bmp", ".webp"):
        path = save(tmp_path / f"x{suffix}", rng.integers(0, 256, (9, 9, 3)))
        whole = path.read_bytes()
        for _ in range(60):
            content = bytearray(whole)
            for place in rng.integers(0, min(len(content), 120), 3):
                content[place] = rng.integers(0, 256)
            path.write_bytes(content)
            try:
                assert read_picture(path, 8).shape == (3, 8, 8)
            except BadImage as error:
                assert str(error)


def test_splits_have_folders_of_their_own(tmp_path: Path) -> None:
    write_folder(tmp_path, splits={"train": 3, "val": 2, "test": 1})
    found = {split: read_folder(tmp_path, split=split, size=8) for split in ("train", "validation", "test")}
    assert [len(each) for each in found.values()] == [9, 6, 3]
    assert {each.class_names for each in found.values()} == {("cat", "dog", "frog")}


@pytest.mark.parametrize(("top", "count"), [("validation", 6), ("test", 6)])
def test_validation_may_be_written_out_or_be_the_test_half(tmp_path: Path, top: str, count: int) -> None:
    write_folder(tmp_path, splits={"train": 1, top: 2})
    assert len(read_folder(tmp_path, split="validation", size=8)) == count


def test_labels_are_those_of_train(tmp_path: Path) -> None:
    write_folder(tmp_path, splits={"train": 1})
    write_folder(tmp_path, classes=("frog",), splits={"val": 2})
    assert read_folder(tmp_path, split="validation", size=8).labels.tolist() == [2, 2]
    write_folder(tmp_path, classes=("horse",), splits={"val": 1})
    with pytest.raises(DataError, match="val/horse: train has no class of this name"):
        read_folder(tmp_path, split="validation", size=8)


def test_a_split_that_is_not_there_is_no_data(tmp_path: Path) -> None:
    write_folder(tmp_path / "plain")
    write_folder(tmp_path / "split", splits={"train": 1, "val": 1})
    for name, split in (("plain", "validation"), ("plain", "test"), ("split", "test")):
        with pytest.raises(NoData, match=f"no {split} split"):
            read_folder(tmp_path / name, split=split, size=8)


def test_train_may_be_a_class(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("bus", "train"))
    assert read_folder(tmp_path, split="train", size=8).class_names == ("bus", "train")


def test_images_without_class_folders_are_no_data_set(tmp_path: Path) -> None:
    save(tmp_path / "x" / "a.png", np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match="no folders of images in it"):
        read_folder(tmp_path / "x", split="train", size=8)
    save(tmp_path / "y" / "train" / "a.png", np.zeros((2, 2, 3)))
    with pytest.raises(DataError, match="train: no folders of images in it"):
        read_folder(tmp_path / "y", split="train", size=8)
    (tmp_path / "z" / "cat").mkdir(parents=True)
    with pytest.raises(DataError, match="no image is in its folders"):
        read_folder(tmp_path / "z", split="train", size=8)


def test_more_images_than_memory_holds_are_refused_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_folder(tmp_path, splits=2)
    (tmp_path / "cat" / "000.png").write_bytes(b"no image, which decoding would say")
    count = len(list(tmp_path.rglob("*.png")))
    for free, refused in ((3 * count * 64 - 1, ResourceError), (3 * count * 64, DataError)):
        monkeypatch.setattr("psutil.virtual_memory", lambda free=free: SimpleNamespace(available=free))
        with pytest.raises(refused, match="images of 8 × 8 pixels take .* of memory" if refused is ResourceError else "000.png"):
            read_folder(tmp_path, split="train", size=8)


def read(directory: Path, split: str = "train", **how: Any) -> tuple[Any, list[str]]:
    images = read_folder(directory, split=split, size=4, **how)
    return images, [str(notice) for notice in images.notices]


def test_what_is_not_read_is_counted_and_named(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("cat", "dog"), splits=2)
    for name in ("readme.png", "cat/a.tiff", "cat/notes.txt", "dog/b.TIF", "dog/c"):
        (tmp_path / name).write_bytes(b"no image")
    images, told = read(tmp_path)
    assert len(images) == 4
    assert told == [f"5 files are not read: cat/a.tiff, cat/notes.txt, dog/b.TIF …, first {tmp_path}/cat/a.tiff."]
    for path in tmp_path.rglob("*.png"):
        path.unlink()
    with pytest.raises(DataError, match=r"no image is in its folders: cat/a.tiff, cat/notes.txt, dog/b.TIF …\."):
        read(tmp_path)


@pytest.mark.parametrize("form", ["png", "jpeg", "gif", "bmp", "webp"])
def test_a_file_without_an_ending_is_an_image_by_its_first_bytes(tmp_path: Path, form: str) -> None:
    save(tmp_path / "cat" / "000123", np.full((4, 4, 3), 77), format=form)
    images, told = read(tmp_path)
    assert len(images) == 1 and told == [] and abs(int(images.images.max()) - 77) < 3


def test_litter_and_empty_folders_are_no_classes(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("cat", "dog"), splits=1)
    save(tmp_path / "__MACOSX" / "cat" / "000.png", np.zeros((4, 4, 3)))
    save(tmp_path / "cat" / "@eaDir" / "thumbnail.jpg", np.zeros((4, 4, 3)))
    (tmp_path / "bird").mkdir()
    (tmp_path / "eel").mkdir()
    (tmp_path / "eel" / "eel.txt").write_text("x")
    images, told = read(tmp_path)
    assert images.class_names == ("cat", "dog") and images.labels.tolist() == [0, 1]
    assert told == [
        f"1 file is not read: eel/eel.txt: {tmp_path}/eel/eel.txt.",
        "2 files that systems left behind are not read: __MACOSX/cat/000.png, cat/@eaDir/thumbnail.jpg, "
        f"first {tmp_path}/__MACOSX/cat/000.png.",
        f"2 folders hold no image and are no classes: bird, eel, first {tmp_path}/bird.",
    ]


@pytest.mark.parametrize("extra", ["__MACOSX", "annotations"])
def test_what_lies_beside_the_splits_does_not_make_classes_of_them(tmp_path: Path, extra: str) -> None:
    write_folder(tmp_path, classes=("cat", "dog"), splits={"train": 2, "val": 1})
    (tmp_path / extra).mkdir()
    (tmp_path / extra / "labels.xml").write_text("x")
    assert read(tmp_path)[0].class_names == ("cat", "dog")
    assert len(read(tmp_path, "validation")[0]) == 2


@pytest.mark.parametrize(("train", "other"), [("Train", "Val"), ("train", "valid"), ("Training", "Testing"), ("TRAIN", "TEST")])
def test_splits_go_by_their_usual_names_in_any_case(tmp_path: Path, train: str, other: str) -> None:
    write_folder(tmp_path, classes=("cat", "dog"), splits={train: 2, other: 1})
    assert read(tmp_path)[0].class_names == ("cat", "dog")
    assert len(read(tmp_path, "validation")[0]) == 2


def save_16_bits(path: Path, pixels: Any) -> None:
    """A PNG of 16 bits: grey, red-green-blue, or that with alpha. Pillow writes no colours of 16 bits."""
    values = np.asarray(pixels, dtype=">u2")
    kind = {2: 0, 3: {3: 2, 4: 6}.get(values.shape[-1], 0)}[values.ndim]

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 16, kind, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in values)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 3), (4, 4, 4)], ids=["grey", "colours", "alpha"])
@pytest.mark.parametrize(
    ("values", "bits", "seen"), [((255, 40), 8, (255, 40)), ((4095, 1600), 12, (255, 100)), ((65535, 40), 16, (255, 0))]
)
def test_the_bits_of_the_values_of_16_bit_files_are_those_of_the_whole_set(
    tmp_path: Path, shape: tuple[int, ...], values: tuple[int, int], bits: int, seen: tuple[int, int]
) -> None:
    """Pictures of 8 bits in such files are no longer black; a dark one of 16 bits, as its companion shows, stays dark."""
    for name, value in zip("ab", values, strict=True):
        pixels = np.full(shape, value)
        if shape[-1:] == (4,) and len(shape) == 3:
            pixels[..., 3] = 2**bits - 1
        save_16_bits(tmp_path / "cat" / f"{name}.png", pixels)
    images, told = read(tmp_path)
    assert [np.unique(image).tolist() for image in images.images] == [[value] for value in seen]
    assert told == (
        [f"2 images of 16 bits have no value above {2**bits - 1:,} and are read as {bits}-bit images, first {tmp_path}."]
        if bits < 16
        else []
    )


def test_a_dark_split_has_the_bits_of_the_set(tmp_path: Path) -> None:
    """Two bits fewer would make its images four times as bright as those of the same scene that were trained on."""
    save_16_bits(tmp_path / "train" / "cat" / "a.png", np.full((4, 4), 4095))
    save_16_bits(tmp_path / "val" / "cat" / "a.png", np.full((4, 4), 160))
    images, told = read(tmp_path, "validation")
    assert np.unique(images.images).tolist() == [10] and "read as 12-bit images" in "".join(told)
    assert np.unique(read(tmp_path)[0].images).tolist() == [255]


@pytest.mark.parametrize(
    ("folders", "split"),
    [(("train", "Train"), "train"), (("train", "training"), "train"), (("train", "val", "Val"), "validation"),
     (("train", "val", "valid"), "validation"), (("train", "test", "TESTING"), "validation")],
)  # fmt: skip
def test_two_folders_of_one_split_are_refused(tmp_path: Path, folders: tuple[str, ...], split: str) -> None:
    write_folder(tmp_path, classes=("cat", "dog"), splits=dict.fromkeys(folders, 1))
    with pytest.raises(DataError, match=f"{folders[-2]} and {folders[-1]} are both|{folders[-1]} and {folders[-2]} are both"):
        read(tmp_path, split)


def test_what_lies_beside_a_split_is_counted(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("cat", "dog"), splits={"train": 2, "val": 1})
    (tmp_path / "readme.txt").write_text("x")
    told = read(tmp_path)[1]
    assert told == [
        f"2 files of other splits are not read: val/cat/000.png, val/dog/000.png, first {tmp_path}/val/cat/000.png.",
        f"1 file is not read: readme.txt: {tmp_path}/readme.txt.",
    ]


def test_folders_that_are_links_are_read_and_circles_are_not(tmp_path: Path) -> None:
    write_folder(tmp_path / "data", classes=("cat",), splits=1)
    write_folder(tmp_path / "more", classes=("dog",), splits=1)
    (tmp_path / "data" / "dog").symlink_to(tmp_path / "more" / "dog")
    (tmp_path / "data" / "cat" / "more").symlink_to(tmp_path / "more" / "dog")
    (tmp_path / "data" / "cat" / "round").symlink_to(tmp_path / "data")
    assert read(tmp_path / "data")[0].labels.tolist() == [0, 0, 1]


def test_what_is_no_file_is_counted_as_not_read(tmp_path: Path) -> None:
    write_folder(tmp_path, classes=("cat",), splits=1)
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    (tmp_path / "cat" / "nowhere.png").symlink_to(tmp_path / "nowhere")
    assert read(tmp_path)[1] == [f"2 files are not read: cat/nowhere.png, cat/pipe.png, first {tmp_path}/cat/nowhere.png."]
