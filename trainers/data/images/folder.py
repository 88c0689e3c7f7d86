"""A folder of class-named folders of image files, with or without a level of ``train``, ``val`` and ``test`` on top."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray

from pitstop.configs.errors import DataError, ResourceError
from pitstop.configs.shown import human_size
from pitstop.trainers.data.images.image_set import ImageSet
from pitstop.trainers.data.images.picture import BadImage, brightest, depth_of, is_picture, read_picture
from pitstop.trainers.data.records import BadRows, NoData

_SPLITS = {
    "train": ("train", "training"),
    "validation": ("val", "validation", "valid", "test", "testing"),
    "test": ("test", "testing"),
}
_LEVEL = {name for names in _SPLITS.values() for name in names}
_LITTER = frozenset({"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"})
_NAMED = 3
_FORM = "Wanted: a folder for each class, named after it, with its images (PNG, JPEG, WebP, BMP, GIF or PPM) in it."


def read_folder(
    directory: Path, *, split: str, size: int, skip_bad: bool = False, tell: Callable[[str], None] = lambda message: None
) -> ImageSet:
    """The images of a split, uint8 (n, 3, ``size``, ``size``), those of one class after those of another, each by path.

    Classes are the folders of ``train`` (or of ``directory``, where there are no splits) with an image in them, sorted by name; what is
    hidden and what systems leave behind (``__MACOSX``) is passed over. ``validation`` is read from ``val``, ``validation``, ``valid`` or,
    where there is none, ``test``. ``tell`` is told of files that are no images and of folders without one.

    Raises:
        NoData: there is no such split.
        ResourceError: more images than memory holds.
        DataError: no class or no image there, a class that ``train`` does not have, or, unless ``skip_bad``, an image that cannot be
            read.
    """
    root, names = _split_folder(directory, split)
    files = [(path, label) for label, name in enumerate(names) for path in sorted(_images(root / name))]
    if not files:
        raise DataError(f"{root}: no image is in its folders{_listed(_not_read(root))}.", hint=_FORM)
    _check_memory(root, len(files), size)
    _tell_what_is_not_read(root, names, tell)
    depth = _depth([path for path, _ in files], root, tell)
    bad = BadRows(skip=skip_bad)
    read = [(picture, label) for path, label in files if (picture := _read(path, size, depth, bad)) is not None]
    if not read:
        raise DataError(f"{root}: none of its {len(files):,} images can be read; the first: {bad.reasons[0]}.", hint=_FORM)
    images = np.stack([picture for picture, _ in read])
    labels = np.array([label for _, label in read], dtype=np.int64)
    return ImageSet(images, labels, names, bad=bad.count, bad_reasons=bad.reasons)


def _depth(paths: Sequence[Path], root: Path, tell: Callable[[str], None]) -> int:
    """The bits of the values of images of 16 bits, which all of a data set have alike: one of them may just be dark."""
    values = [value for path in paths if (value := brightest(path)) is not None]
    depth = depth_of(max(values)) if values else 16
    if depth < 16:
        tell(
            f"{root}: {len(values):,} images of 16 bits have no value above {max(values):,}; they are read as {depth}-bit images."
        )
    return depth


def _tell_what_is_not_read(root: Path, names: Sequence[str], tell: Callable[[str], None]) -> None:
    if skipped := _not_read(root):
        tell(f"{root}: {len(skipped):,} {'file is' if len(skipped) == 1 else 'files are'} not read{_listed(skipped)}.")
    if empty := [name for name in _folders(root) if name not in names and not _has_image(root / name)]:
        what = "folder holds no image and is no class" if len(empty) == 1 else "folders hold no image and are no classes"
        tell(f"{root}: {len(empty):,} {what}: {_first(empty)}.")


def _not_read(root: Path) -> list[str]:
    """The files of a split, but hidden ones and litter, that are no images or lie in no class."""
    files = (path.relative_to(root) for path in sorted(root.rglob("*")) if path.is_file())
    return [str(path) for path in files if not _passed_over(path) and (len(path.parts) == 1 or not is_picture(root / path))]


def _listed(names: Sequence[str]) -> str:
    return f": {_first(names)}" if names else ""


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (" …" if len(names) > _NAMED else "")


def _passed_over(path: Path) -> bool:
    return any(part.startswith(".") or part in _LITTER for part in path.parts)


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
    tops = {name.lower(): name for name in folders if name.lower() in _LEVEL or _has_image(directory / name)}
    train = next((tops[name] for name in _SPLITS["train"] if name in tops), None)
    if train is None or not set(tops) <= _LEVEL:  # train may also be a class, beside bus and tram
        if split != "train":
            raise NoData(
                f"{directory}: no {split} split: it has no folders named train and {' or '.join(_SPLITS[split])}.",
                hint="Put the folders of the classes into such folders, or name another data set.",
            )
        return directory, _classes(directory)
    names = _classes(directory / train)
    split_name = next((tops[name] for name in _SPLITS[split] if name in tops), None)
    if split_name is None:
        raise NoData(f"{directory}: no {split} split: of {' or '.join(_SPLITS[split])} there is no folder.", hint=_FORM)
    foreign = [
        name for name in _folders(directory / split_name) if name not in names and _has_image(directory / split_name / name)
    ]
    if foreign:
        raise DataError(
            f"{directory / split_name / foreign[0]}: train has no class of this name.",
            hint=f"The classes of train: {', '.join(names)}.",
        )
    return directory / split_name, names


def _classes(directory: Path) -> tuple[str, ...]:
    """The folders with an image; all of them where none has one, which is told when they are read."""
    folders = _folders(directory)
    if not folders:
        raise DataError(f"{directory}: no folders of images in it.", hint=_FORM)
    return tuple(name for name in folders if _has_image(directory / name)) or folders


def _folders(directory: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(path.name for path in directory.iterdir() if path.is_dir() and not _passed_over(Path(path.name))))
    except OSError as error:
        raise DataError(f"{directory}: cannot be read: {error.strerror or error}.", hint="Check its permissions.") from error


def _images(folder: Path) -> Iterator[Path]:
    if folder.is_dir():  # a class of train may be missing elsewhere
        for path in folder.rglob("*"):
            if not _passed_over(path.relative_to(folder)) and path.is_file() and is_picture(path):
                yield path


def _has_image(folder: Path) -> bool:
    return next(_images(folder), None) is not None


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
