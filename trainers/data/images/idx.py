"""IDX files, the format of MNIST and of data sets made in its image (LeCun, Cortes and Burges, yann.lecun.com/exdb/mnist).

A file begins with two zero bytes, the type of its values (8: unsigned bytes) and the number of its dimensions; then come the sizes of
these, four bytes each with the highest first, and then the values, those of the last dimension in a row.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images.files import read_file
from pitstop.trainers.data.images.image_set import ImageSet, Labels
from pitstop.trainers.data.records import NoData

FASHION = ("t-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
"""The classes of Fashion-MNIST by id, in small letters (Xiao, Rasul and Vollgraf 2017, github.com/zalandoresearch/fashion-mnist)."""

_LONGEST = 1 << 30
_UNSIGNED_BYTES = 8
_HALVES = {"train": "train", "validation": "t10k", "test": "t10k"}
_AGAIN = "Fetch the file again; it may be cut off, or be something else."


def has_idx_files(directory: Path) -> bool:
    """Whether a directory holds any of the files that ``read_idx_directory`` reads."""
    return any(has_idx_split(directory, split) for split in _HALVES)


def has_idx_split(directory: Path, split: str) -> bool:
    """Whether a directory holds any of the files that ``read_idx_directory`` reads for ``split``."""
    return any(_find(directory, _HALVES[split], kind) is not None for kind in ("images", "labels"))


def idx_names(directory: Path) -> frozenset[str]:
    """The names of those files in a directory, of both halves."""
    files = (_find(directory, half, kind) for half in set(_HALVES.values()) for kind in ("images", "labels"))
    return frozenset(file.name for file in files if file is not None)


def read_idx_directory(directory: Path, *, split: str) -> ImageSet:
    """``train-images-idx3-ubyte`` with ``train-labels-idx1-ubyte``, or for any other split than ``train`` those with ``t10k``.

    The files may be packed by gzip and be spelt ``train-images.idx3-ubyte``. Images have one channel. Classes are the digits from 0 to
    the highest label in either half; those of Fashion-MNIST where ``fashion`` is in the path of the directory.

    Raises:
        NoData: neither file of this half is there.
        DataError: one of the two is missing, damaged or not whole, or they do not belong together.
    """
    half = _HALVES[split]
    images_file, labels_file = _find(directory, half, "images"), _find(directory, half, "labels")
    if images_file is None and labels_file is None:
        raise NoData(
            f"{directory}: no {half}-images-idx3-ubyte, and so no images for {split}.", hint=f"Put both files of {half} there."
        )
    if images_file is None or labels_file is None:
        missing = f"{half}-images-idx3-ubyte" if images_file is None else f"{half}-labels-idx1-ubyte"
        raise DataError(f"{directory}: {missing} is missing.", hint="Put it beside the other; it may end in .gz.")
    images, labels = read_idx(images_file, 3), _labels(labels_file)
    if len(images) != len(labels):
        raise DataError(
            f"{directory}: {images_file.name} has {len(images):,} images, and {labels_file.name} {len(labels):,} labels.",
            hint="Fetch both files again: they belong to different data sets, or one is not whole.",
        )
    if not images.size:
        raise DataError(f"{images_file}: there is no image in it.", hint=_AGAIN)
    return ImageSet(images[:, None], labels, _class_names(directory, labels_file, labels))


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in a file, packed or not, of as many ``dimensions`` as are asked for. Raises ``DataError``."""
    content = read_file(path, _LONGEST, unpack=True)
    start = 4 + 4 * dimensions
    if len(content) < start or content[:4] != bytes((0, 0, _UNSIGNED_BYTES, dimensions)):
        raise DataError(
            f"{path}: not an IDX file of unsigned bytes in {dimensions} dimensions: it begins with {bytes(content[:4]).hex(' ') or 'nothing'}, "
            f"not with 00 00 08 {dimensions:02x}.",
            hint=_AGAIN,
        )
    sizes = [int.from_bytes(content[at : at + 4]) for at in range(4, start, 4)]
    if len(content) - start != math.prod(sizes):
        raise DataError(
            f"{path}: the sizes {' × '.join(map(str, sizes))} need {math.prod(sizes):,} bytes, and {len(content) - start:,} are there.",
            hint=_AGAIN,
        )
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(sizes)


def _labels(path: Path) -> Labels:
    return read_idx(path, 1).astype(np.int64)


def _find(directory: Path, half: str, kind: str) -> Path | None:
    ending = "idx3-ubyte" if kind == "images" else "idx1-ubyte"
    names = (f"{half}-{kind}{mark}{ending}{packed}" for mark in "-." for packed in ("", ".gz"))
    return next((directory / name for name in names if (directory / name).is_file()), None)


def _class_names(directory: Path, labels_file: Path, labels: Labels) -> tuple[str, ...]:
    highest = int(labels.max())
    if "fashion" in str(directory.absolute()).lower():
        if highest >= len(FASHION):
            raise DataError(
                f"{labels_file}: the label {highest} is none of Fashion-MNIST, whose labels go from 0 to 9.",
                hint="Move the files to a path without 'fashion' in it if they are another data set.",
            )
        return FASHION
    for half in ("train", "t10k"):  # the names are the same for either half
        half_file = _find(directory, half, "labels")
        if half_file is not None and half_file != labels_file:
            highest = max(highest, int(_labels(half_file).max(initial=0)))
    return tuple(str(number) for number in range(highest + 1))
