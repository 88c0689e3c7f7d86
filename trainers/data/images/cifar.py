"""CIFAR-10 and CIFAR-100 in their binary version (Krizhevsky 2009, www.cs.toronto.edu/~kriz/cifar.html).

A file is a row of records: the label in one byte (CIFAR-100: the superclass, then the class), then 3,072 bytes of pixels, 1,024 each
of red, green and blue, row by row. The version for Python holds pickles, which run code when they are read, and is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images.archive import read_archive
from pitstop.trainers.data.images.files import read_file
from pitstop.trainers.data.images.image_set import Images, ImageSet, Labels

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32
_LONGEST_FILE = 1 << 28  # the longest of the published ones has 153,700,000 bytes
_LONGEST_ARCHIVE = 1 << 29  # 184 million bytes
_LONGEST_NAMES = 1 << 16
_AGAIN = "Fetch it again; it is published at https://www.cs.toronto.edu/~kriz/cifar.html."
PYTHON_DIRECTORIES = frozenset({"cifar-10-batches-py", "cifar-100-python"})


@dataclass(frozen=True)
class Layout:
    """How one of the two data sets is laid out: names of its archive, directory and files, and the bytes before the pixels."""

    title: str
    archive: str
    directory: str
    names: str
    train: tuple[str, ...]
    test: tuple[str, ...]
    label_bytes: int

    def files(self, split: str) -> tuple[str, ...]:
        """The files with the images of a split; the test half is also what validation reads."""
        return self.train if split == "train" else self.test

    def published_files(self) -> frozenset[str]:
        """All that the unpacked archive holds."""
        return frozenset((self.names, "coarse_label_names.txt", "readme.html", *self.train, *self.test))


CIFAR10 = Layout(
    title="CIFAR-10",
    archive="cifar-10-binary.tar.gz",
    directory="cifar-10-batches-bin",
    names="batches.meta.txt",
    train=tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
    test=("test_batch.bin",),
    label_bytes=1,
)
CIFAR100 = Layout(
    title="CIFAR-100",
    archive="cifar-100-binary.tar.gz",
    directory="cifar-100-binary",
    names="fine_label_names.txt",
    train=("train.bin",),
    test=("test.bin",),
    label_bytes=2,
)
LAYOUTS = (CIFAR10, CIFAR100)


def layout_of(directory: Path) -> Layout | None:
    """The layout of an unpacked archive, told by its name or by its list of classes; None where it is neither."""
    return next(
        (layout for layout in LAYOUTS if directory.name == layout.directory or (directory / layout.names).is_file()), None
    )


def read_cifar_directory(directory: Path, layout: Layout, *, split: str) -> ImageSet:
    """A split of an unpacked archive. Raises ``DataError`` for a file that is missing, damaged or not whole."""
    contents = {}
    for name in (layout.names, *layout.files(split)):
        if (directory / name).exists():
            contents[name] = read_file(directory / name, _LONGEST_NAMES if name == layout.names else _LONGEST_FILE)
    return _assemble(str(directory), layout, layout.files(split), contents)


def read_cifar_archive(path: Path, *, split: str) -> ImageSet:
    """A split of ``cifar-10-binary.tar.gz`` or ``cifar-100-binary.tar.gz``, which are told apart by what is in them.

    Raises ``DataError`` for the version for Python, any other archive, and one that lacks a file or is damaged.
    """
    names = {f"{layout.directory}/{name}" for layout in LAYOUTS for name in (layout.names, *layout.files(split))}
    archive = read_archive(path, names, PYTHON_DIRECTORIES | {layout.directory for layout in LAYOUTS}, limit=_LONGEST_ARCHIVE)
    if archive.directories & PYTHON_DIRECTORIES:
        raise python_version(path)
    layouts = [layout for layout in LAYOUTS if layout.directory in archive.directories]
    if len(layouts) != 1:
        raise DataError(
            f"{path}: not an archive of CIFAR-10 or of CIFAR-100: neither {CIFAR10.directory}/ nor {CIFAR100.directory}/ is in it."
            if not layouts
            else f"{path}: both CIFAR-10 and CIFAR-100 are in this archive.",
            hint="Wanted: cifar-10-binary.tar.gz or cifar-100-binary.tar.gz as published. Other images: a folder of class-named folders.",
        )
    prefix = f"{layouts[0].directory}/"
    contents = {name.removeprefix(prefix): content for name, content in archive.files.items() if name.startswith(prefix)}
    return _assemble(str(path), layouts[0], layouts[0].files(split), contents)


def python_version(path: Path) -> DataError:
    """The error for the version of CIFAR that is made for Python."""
    return DataError(
        f"{path}: this is CIFAR for Python, whose files are pickles: reading one can run any code that is in it.",
        hint=f"Take the binary version, {CIFAR10.archive} or {CIFAR100.archive}, from https://www.cs.toronto.edu/~kriz/cifar.html.",
    )


def _assemble(source: str, layout: Layout, files: tuple[str, ...], contents: Mapping[str, bytearray]) -> ImageSet:
    missing = [name for name in (layout.names, *files) if name not in contents]
    if missing:
        raise DataError(
            f"{source}: {', '.join(missing)} of {layout.title} {'is' if len(missing) == 1 else 'are'} missing.", hint=_AGAIN
        )
    names = _class_names(f"{source}: {layout.names}", contents[layout.names])
    parts = [_records(f"{source}: {name}", layout, contents[name], len(names)) for name in files]
    return ImageSet(np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts]), names)


def _class_names(source: str, content: bytearray) -> tuple[str, ...]:
    try:
        names = tuple(line.strip() for line in content.decode().splitlines() if line.strip())
    except UnicodeDecodeError:
        raise DataError(f"{source}: not text.", hint=_AGAIN) from None
    if not names or len(set(names)) != len(names):
        raise DataError(f"{source}: {'a class stands there twice' if names else 'no class stands there'}.", hint=_AGAIN)
    return names


def _records(source: str, layout: Layout, content: bytearray, classes: int) -> tuple[Images, Labels]:
    length = layout.label_bytes + _PIXELS
    if not content or len(content) % length:
        raise DataError(
            f"{source}: {len(content):,} bytes are not a whole number of records of {length:,} bytes; the file is truncated.",
            hint=_AGAIN,
        )
    records = np.frombuffer(content, dtype=np.uint8).reshape(-1, length)
    labels = records[:, layout.label_bytes - 1].astype(np.int64)
    wrong = np.flatnonzero(labels >= classes)
    if len(wrong):
        raise DataError(
            f"{source}: record {wrong[0] + 1:,} has the label {labels[wrong[0]]}, and there are {classes} classes, from 0.",
            hint=_AGAIN,
        )
    return records[:, layout.label_bytes :].reshape(-1, *_SHAPE), labels
