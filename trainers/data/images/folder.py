"""A folder of class-named folders of image files, with or without a level of ``train``, ``val`` and ``test`` on top."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from pitstop.configs.errors import DataError, ResourceError
from pitstop.configs.notices import Notice
from pitstop.configs.shown import human_size
from pitstop.trainers.data.images.image_set import ImageSet
from pitstop.trainers.data.images.picture import BadImage, brightest, depth_of, is_picture, read_picture
from pitstop.trainers.data.records import BadRows, NoData
from pitstop.trainers.data.unread import FILES, OTHER_SPLITS, first_of, unread

_NAMES = {"train": ("train", "training"), "validation": ("val", "validation", "valid"), "test": ("test", "testing")}
_LEVEL = {name for names in _NAMES.values() for name in names}
_LITTER = frozenset({"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
_LEFT_BEHIND = "{count} [file|files] that systems left behind [is|are] not read: {subject}"
_EMPTY = "{count} [folder holds no image and is no class|folders hold no image and are no classes]: {subject}"
_FORM = "Wanted: a folder for each class, named after it, with its images (PNG, JPEG, WebP, BMP, GIF or PPM) in it."


def read_folder(directory: Path, *, split: str, size: int, skip_bad: bool = False) -> ImageSet:
    """The images of a split, uint8 (n, 3, ``size``, ``size``), those of one class after those of another, each by path.

    Classes are the folders of ``train`` (or of ``directory``, where there are no splits) with an image in them, sorted by name. Hidden
    files and folders are not looked at. ``validation`` is read from ``val``, ``validation``, ``valid`` or, where there is none,
    ``test``. The notices of the set count what else a folder holds, file by file.

    Raises:
        NoData: there is no such split.
        ResourceError: more images than memory holds.
        DataError: no class or no image there, a class that ``train`` does not have, two folders for one split, or, unless
            ``skip_bad``, an image that cannot be read.
    """
    root, names = _split_folder(directory, split)
    contents = _Contents.of(root)
    files = [(path, label) for label, name in enumerate(names) for path in contents.pictures.get(name, [])]
    if not files:
        raise DataError(f"{root}: no image is in its folders{_listed(contents.others)}.", hint=_FORM)
    _check_memory(root, len(files), size)
    depth, shallow = _depth(directory, root, contents)
    bad = BadRows(skip=skip_bad, unit="image")
    read = [(picture, label) for path, label in files if (picture := _read(path, size, depth, bad)) is not None]
    if not read:
        raise DataError(f"{root}: none of its {len(files):,} images can be read; the first: {bad.reasons[0]}.", hint=_FORM)
    images = np.stack([picture for picture, _ in read])
    labels = np.array([label for _, label in read], dtype=np.int64)
    notices = (*_beside(directory, root), *contents.notices(root, names), *shallow, *bad.notices)
    return ImageSet(images, labels, names, bad=bad.count, bad_reasons=bad.reasons, notices=notices)


@dataclass
class _Contents:
    """The files below a folder but hidden ones, sorted: ``pictures`` by the folder at the top, ``others`` and ``litter`` relative to it."""

    pictures: dict[str, list[Path]] = field(default_factory=dict)
    others: list[str] = field(default_factory=list)
    litter: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, root: Path) -> _Contents:
        contents = cls()
        for path in sorted(_files(root)):
            relative = path.relative_to(root)
            if _LITTER & set(relative.parts):
                contents.litter.append(str(relative))
            elif len(relative.parts) > 1 and path.is_file() and is_picture(path):
                contents.pictures.setdefault(relative.parts[0], []).append(path)
            else:
                contents.others.append(str(relative))
        return contents

    def notices(self, root: Path, names: Sequence[str]) -> list[Notice]:
        """What is not read of it."""
        empty = [name for name in _folders(root) if name not in names and name not in self.pictures]
        return [
            *unread(FILES, root, self.others),
            *unread(_LEFT_BEHIND, root, self.litter),
            *unread(_EMPTY, root, empty),
        ]


def _files(folder: Path, without: Path | None = None) -> Iterator[Path]:
    """What lies below a folder and is no folder, but what is hidden or in the folder ``without``; links are followed, but not in a circle.

    Raises ``DataError`` for a folder that cannot be read.
    """

    def refuse(error: OSError) -> None:
        raise _cannot_read(Path(error.filename), error) from error

    for parent, folders, names in os.walk(folder, followlinks=True, onerror=refuse):
        paths = [Path(parent, name) for name in folders if not name.startswith(".")]
        folders[:] = [path.name for path in paths if path != without and not _is_circle(path)]
        yield from (Path(parent, name) for name in names if not name.startswith("."))


def _is_circle(folder: Path) -> bool:
    return folder.is_symlink() and folder.parent.resolve().is_relative_to(folder.resolve())


def _beside(directory: Path, root: Path) -> list[Notice]:
    """What lies beside the folder of a split."""
    if root == directory:
        return []
    paths = [path.relative_to(directory) for path in sorted(_files(directory, without=root))]
    of_splits = [len(path.parts) > 1 and path.parts[0].lower() in _LEVEL for path in paths]
    return [
        *unread(OTHER_SPLITS, directory, [str(path) for path, of_split in zip(paths, of_splits, strict=True) if of_split]),
        *unread(FILES, directory, [str(path) for path, of_split in zip(paths, of_splits, strict=True) if not of_split]),
    ]


def _depth(directory: Path, root: Path, contents: _Contents) -> tuple[int, list[Notice]]:
    """The bits of the values of images of 16 bits, which all splits of a data set have alike: one image, or split, may just be dark."""
    own = [value for paths in contents.pictures.values() for path in paths if (value := brightest(path)) is not None]
    if not own:
        return 16, []
    highest = max(own)
    if root != directory and depth_of(highest) < 16:
        elsewhere = (path for path in _files(directory, without=root) if path.is_file() and is_picture(path))
        highest = max(highest, *(value for path in elsewhere if (value := brightest(path)) is not None), 0)
    depth = depth_of(highest)
    reason = (
        f"{{count}} [image|images] of 16 bits [has|have] no value above {highest:,} and [is|are] read as {{subject}}-bit images"
    )
    return depth, [Notice(reason, str(depth), len(own), str(root))] if depth < 16 else []


def _listed(names: Sequence[str]) -> str:
    return f": {first_of(names)}" if names else ""


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
    folders = _folders(directory)
    tops = [name for name in folders if name.lower() in _LEVEL or _has_image(directory / name)]
    train = _folder_of(directory, tops, "train") if all(name.lower() in _LEVEL for name in tops) else None
    if train is None:  # train may also be a class, beside bus and tram
        if split != "train":
            raise NoData(
                f"{directory}: no {split} split: it has no folders named train and {' or '.join(_usual(split))}.",
                hint="Put the folders of the classes into such folders, or name another data set.",
            )
        return directory, _classes(directory)
    names = _classes(directory / train)
    split_name = _folder_of(directory, tops, split) or (_folder_of(directory, tops, "test") if split == "validation" else None)
    if split_name is None:
        raise NoData(f"{directory}: no {split} split: of {' or '.join(_usual(split))} there is no folder.", hint=_FORM)
    foreign = [
        name for name in _folders(directory / split_name) if name not in names and _has_image(directory / split_name / name)
    ]
    if foreign:
        raise DataError(
            f"{directory / split_name / foreign[0]}: train has no class of this name.",
            hint=f"The classes of train: {', '.join(names)}.",
        )
    return directory / split_name, names


def _usual(split: str) -> tuple[str, ...]:
    return _NAMES[split] if split != "validation" else (*_NAMES["validation"], *_NAMES["test"])


def _folder_of(directory: Path, names: Sequence[str], split: str) -> str | None:
    """The folder of a split; None where there is none. Raises ``DataError`` where there are two."""
    fitting = [name for name in names if name.lower() in _NAMES[split]]
    if len(fitting) > 1:
        raise DataError(
            f"{directory}: {' and '.join(fitting)} are both folders of the {split} split.",
            hint="Put their images into one of them.",
        )
    return fitting[0] if fitting else None


def _classes(directory: Path) -> tuple[str, ...]:
    """The folders with an image; all of them where none has one, which is told when they are read."""
    folders = _folders(directory)
    if not folders:
        raise DataError(f"{directory}: no folders of images in it.", hint=_FORM)
    return tuple(name for name in folders if _has_image(directory / name)) or folders


def _folders(directory: Path) -> tuple[str, ...]:
    try:
        paths = sorted(path for path in directory.iterdir() if path.is_dir())
    except OSError as error:
        raise _cannot_read(directory, error) from error
    return tuple(path.name for path in paths if not path.name.startswith(".") and path.name not in _LITTER)


def _cannot_read(directory: Path, error: OSError) -> DataError:
    return DataError(f"{directory}: cannot be read: {error.strerror or error}.", hint="Check its permissions.")


def _has_image(folder: Path) -> bool:
    return any(
        path.is_file() and is_picture(path) for path in _files(folder) if not _LITTER & set(path.relative_to(folder).parts)
    )


def _read(path: Path, size: int, depth: int, bad: BadRows) -> NDArray[np.uint8] | None:
    try:
        return read_picture(path, size, depth=depth)
    except BadImage as error:
        if not bad.skip:
            raise DataError(
                f"{path}: {error}.",
                hint="Replace or remove the file, or pass --skip-bad-rows to leave such images out and count them.",
            ) from error
        bad.report(str(path), str(error))
        return None
