"""A folder of class-named folders of image files, with or without a level of ``train``, ``val`` and ``test`` on top."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from pitstop.configs.errors import DataError, ResourceError
from pitstop.configs.shown import human_size
from pitstop.trainers.data.images.image_set import ImageSet
from pitstop.trainers.data.images.picture import SUFFIXES, BadImage, read_picture
from pitstop.trainers.data.records import BadRows, NoData

_SPLITS = {"train": ("train",), "validation": ("val", "validation", "test"), "test": ("test",)}
_LEVEL = {name for names in _SPLITS.values() for name in names}
_FORM = "Wanted: a folder for each class, named after it, with its images (PNG, JPEG, WebP, BMP or GIF) in it."


def read_folder(directory: Path, *, split: str, size: int, skip_bad: bool = False) -> ImageSet:
    """The images of a split, uint8 (n, 3, ``size``, ``size``), those of one class after those of another, each by path.

    Classes are the folders of ``train`` (or of ``directory``, where there are no splits), sorted by name; hidden files and folders are
    passed over. ``validation`` is read from ``val``, ``validation`` or, where there is neither, ``test``.

    Raises:
        NoData: there is no such split.
        ResourceError: more images than memory holds.
        DataError: no class or no image there, a class that ``train`` does not have, or, unless ``skip_bad``, an image that cannot be
            read.
    """
    root, names = _split_folder(directory, split)
    files = [(path, label) for label, name in enumerate(names) for path in _images(root / name)]
    if not files:
        raise DataError(f"{root}: no image is in its folders.", hint=_FORM)
    _check_memory(root, len(files), size)
    bad = BadRows(skip=skip_bad)
    read = [(picture, label) for path, label in files if (picture := _read(path, size, bad)) is not None]
    if not read:
        raise DataError(f"{root}: none of its {len(files):,} images can be read; the first: {bad.reasons[0]}.", hint=_FORM)
    images = np.stack([picture for picture, _ in read])
    labels = np.array([label for _, label in read], dtype=np.int64)
    return ImageSet(images, labels, names, bad=bad.count, bad_reasons=bad.reasons)


def _check_memory(root: Path, count: int, size: int) -> None:
    """All images are held in memory; a network for very large ones would only find out after hours of decoding."""
    needed, free = 3 * count * size * size, int(psutil.virtual_memory().available)
    if needed > free:
        raise ResourceError(
            f"{root}: {count:,} images of {size} × {size} pixels take {human_size(needed)} of memory; {human_size(free)} are free.",
            hint="Give fewer images, or a network for smaller ones.",
        )


def has_folder_split(directory: Path, split: str) -> bool:
    """Whether ``read_folder`` would find a folder for ``split``. Raises ``DataError`` for a directory that cannot be read."""
    try:
        _split_folder(directory, split)
    except NoData:
        return False
    return True


def _split_folder(directory: Path, split: str) -> tuple[Path, tuple[str, ...]]:
    tops = _folders(directory)
    if "train" not in tops or not set(tops) <= _LEVEL:  # train may also be a class, beside bus and tram
        if split != "train":
            raise NoData(
                f"{directory}: no {split} split: it has no folders named train and {' or '.join(_SPLITS[split])}.",
                hint="Put the folders of the classes into such folders, or name another data set.",
            )
        return directory, _checked(directory, tops)
    names = _checked(directory / "train", _folders(directory / "train"))
    split_name = next((name for name in _SPLITS[split] if name in tops), None)
    if split_name is None:
        raise NoData(f"{directory}: no {split} split: of {' or '.join(_SPLITS[split])} there is no folder.", hint=_FORM)
    foreign = [name for name in _folders(directory / split_name) if name not in names]
    if foreign:
        raise DataError(
            f"{directory / split_name / foreign[0]}: train has no class of this name.",
            hint=f"The classes of train: {', '.join(names)}.",
        )
    return directory / split_name, names


def _checked(directory: Path, names: tuple[str, ...]) -> tuple[str, ...]:
    if not names:
        raise DataError(f"{directory}: no folders of images in it.", hint=_FORM)
    return names


def _folders(directory: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(path.name for path in directory.iterdir() if path.is_dir() and not path.name.startswith(".")))
    except OSError as error:
        raise DataError(f"{directory}: cannot be read: {error.strerror or error}.", hint="Check its permissions.") from error


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():  # a class of train may be missing elsewhere
        return []
    return sorted(
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES
        and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )


def _read(path: Path, size: int, bad: BadRows) -> NDArray[np.uint8] | None:
    try:
        return read_picture(path, size)
    except BadImage as error:
        if not bad.skip:
            raise DataError(
                f"{path}: {error}.",
                hint="Replace or remove the file, or pass --skip-bad-rows to leave such images out and count them.",
            ) from error
        bad.report(str(path), str(error))
        return None
