"""Small sets of images in the formats that are read, made on the spot: each class a pattern of its own, under noise."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pitstop.trainers.data.images import cifar
from pitstop.trainers.data.images.cifar100 import CLASS_NAMES as CIFAR100_NAMES

CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def make_images(
    labels: NDArray[Any], *, channels: int = 3, size: int = 32, noise: float = 12.0, seed: int = 0
) -> NDArray[np.uint8]:
    """uint8 (n, channels, size, size): waves whose direction, colour and phase depend on the class, and normal noise."""
    down, across = np.mgrid[0:size, 0:size] / size
    images = np.empty((len(labels), channels, size, size), dtype=np.float64)
    for index, label in enumerate(labels.tolist()):
        pattern = np.random.default_rng(label)
        waves, phases = pattern.integers(-2, 3, size=2), pattern.uniform(0, 2 * np.pi, size=(channels, 1, 1))
        levels = pattern.uniform(70, 185, size=(channels, 1, 1))
        images[index] = levels + 60 * np.sin(2 * np.pi * (waves[0] * down + waves[1] * across) + phases)
    images += np.random.default_rng(seed).normal(0, noise, images.shape)
    return np.clip(np.rint(images), 0, 255).astype(np.uint8)


def make_labels(count: int, classes: Sequence[int]) -> NDArray[np.int64]:
    """``count`` labels that go round the ``classes``."""
    return np.array([classes[index % len(classes)] for index in range(count)], dtype=np.int64)


def cifar_files(
    layout: cifar.Layout,
    *,
    train: int = 50,
    test: int = 20,
    classes: Sequence[int] | None = None,
    noise: float = 12.0,
    seed: int = 0,
) -> dict[str, bytes]:
    """The files of a CIFAR data set by name; the ``train`` images are spread over the files of this half."""
    names = CIFAR10_NAMES if layout is cifar.CIFAR10 else CIFAR100_NAMES
    classes = range(len(names)) if classes is None else classes
    files = {layout.names: ("\n".join(names) + "\n\n").encode()}
    for part, (count, files_of_half) in enumerate(((train, layout.train), (test, layout.test))):
        labels = make_labels(count, classes)
        images = make_images(labels, noise=noise, seed=2 * seed + part)
        shares = np.array_split(np.arange(count), len(files_of_half))
        files |= {name: _records(layout, images[share], labels[share]) for name, share in zip(files_of_half, shares, strict=True)}
    return files


def _records(layout: cifar.Layout, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> bytes:
    first = b"\x03" if layout.label_bytes == 2 else b""
    return b"".join(first + bytes([label]) + image.tobytes() for image, label in zip(images, labels.tolist(), strict=True))


def write_cifar(directory: Path, layout: cifar.Layout = cifar.CIFAR10, *, archive: bool = False, **how: Any) -> Path:
    """Write what ``cifar_files`` makes of ``how`` below ``directory``: the archive, or its unpacked directory; returns its path."""
    files = cifar_files(layout, **how)
    directory.mkdir(parents=True, exist_ok=True)
    if archive:
        return write_tar(directory / layout.archive, {f"{layout.directory}/{name}": content for name, content in files.items()})
    (directory / layout.directory).mkdir()
    for name, content in files.items():
        (directory / layout.directory / name).write_bytes(content)
    return directory / layout.directory


def write_tar(path: Path, files: Mapping[str, bytes]) -> Path:
    """Write a tar archive packed by gzip."""
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def idx_bytes(array: NDArray[np.uint8]) -> bytes:
    """An array as an IDX file."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes((0, 0, 8, array.ndim)) + sizes + array.tobytes()


def write_idx(
    directory: Path,
    *,
    train: int = 40,
    test: int = 20,
    classes: int = 10,
    size: int = 28,
    noise: float = 12.0,
    seed: int = 0,
    packed: bool = True,
    dotted: bool = False,
) -> Path:
    """Write the four files of a data set like MNIST into ``directory``, which is returned; a half of no images is left out."""
    directory.mkdir(parents=True, exist_ok=True)
    mark, ending = "." if dotted else "-", ".gz" if packed else ""
    for part, (half, count) in enumerate((("train", train), ("t10k", test))):
        if not count:
            continue
        labels = make_labels(count, range(classes))
        images = make_images(labels, channels=1, size=size, noise=noise, seed=2 * seed + part)[:, 0]
        for name, array in ((f"images{mark}idx3", images), (f"labels{mark}idx1", labels.astype(np.uint8))):
            content = idx_bytes(array)
            (directory / f"{half}-{name}-ubyte{ending}").write_bytes(gzip.compress(content, 1) if packed else content)
    return directory


def write_folder(
    directory: Path,
    *,
    classes: Sequence[str] = ("cat", "dog", "frog"),
    splits: Mapping[str, int] | int = 4,
    size: tuple[int, int] = (40, 36),
    noise: float = 12.0,
    seed: int = 0,
    suffix: str = ".png",
) -> Path:
    """Write a folder of class-named folders into ``directory``, which is returned.

    ``splits`` is the number of images a class, or such a number for each split folder; ``size`` is width and height.
    """
    from PIL import Image

    tops = {"": splits} if isinstance(splits, int) else splits
    for part, (top, count) in enumerate(tops.items()):
        for label, name in enumerate(classes):
            folder = directory / top / name
            folder.mkdir(parents=True, exist_ok=True)
            made = make_images(make_labels(count, [label]), size=max(size), noise=noise, seed=1000 * seed + 100 * part + label)
            for index, pixels in enumerate(made[:, :, : size[1], : size[0]]):
                Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 2, 0))).save(folder / f"{index:03d}{suffix}")
    return directory
