"""The data sets that go by name: where they are looked for, and from where they come."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pitstop.configs.errors import DataError
from pitstop.configs.paths import cache_directory
from pitstop.trainers.data.images import cifar
from pitstop.trainers.data.images.download import Published, download
from pitstop.trainers.data.images.idx import has_idx_files

DEBIAN_DATASETS = Path("/usr/share/datasets")
"""Where Debian's packages of data sets put them."""


@dataclass(frozen=True)
class NamedSet:
    """A data set by name: ``places`` are paths under a root, the best first, and ``published`` is its archive where it may be fetched."""

    name: str
    places: tuple[str, ...]
    published: Published | None = None

    def under(self, root: Path) -> Path | None:
        """Where the data set lies under ``root``; None where it does not."""
        return next((path for place in self.places if _is_there(path := root / place)), None)


# Sizes and digests are of the archives as published; the page gives MD5, c32a1d4ab5d03f1284b67883e8d87530 and 03b5dce01913d631647c71ecec9e9cb8.
CIFAR10 = NamedSet(
    "CIFAR10",
    (cifar.CIFAR10.directory, cifar.CIFAR10.archive),
    Published(
        "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        170_052_171,
        "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
    ),
)
CIFAR100 = NamedSet(
    "CIFAR100",
    (cifar.CIFAR100.directory, cifar.CIFAR100.archive),
    Published(
        "https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        168_513_733,
        "58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
    ),
)
FASHION_MNIST = NamedSet("FashionMNIST", ("fashion-mnist", "FashionMNIST/raw", "FashionMNIST", "fashion_mnist"))

NAMED_SETS = (CIFAR10, CIFAR100, FASHION_MNIST)
_BY_NAME = {named.name.lower(): named for named in NAMED_SETS} | {"cifar": CIFAR10}


def named_set(text: str) -> NamedSet | None:
    """The data set of a name, where case, ``-``, ``_`` and spaces do not count, and ``CIFAR`` is CIFAR-10; None for any other text."""
    return _BY_NAME.get(re.sub(r"[-_ ]", "", text).lower())


def locate(named: NamedSet, data_root: Path | None, *, tell: Callable[[str], None]) -> Path:
    """The path of a data set: under ``data_root``, in the cache, among Debian's data sets, or in the cache after a download.

    Raises ``DataError`` where it is nowhere and cannot be downloaded, and ``ResourceError`` where the disk does not take it.
    """
    cache = cache_directory() / "datasets"
    for root in (data_root, cache, DEBIAN_DATASETS):
        path = named.under(root.expanduser()) if root is not None else None
        if path is not None:
            return path
    if named.published is None:
        raise DataError(
            f"{named.name} is not on this machine.",
            hint="Install Debian's package dataset-fashion-mnist, or put the four files of "
            f"https://github.com/zalandoresearch/fashion-mnist (train-images-idx3-ubyte.gz and so on) into {cache / named.places[0]}.",
        )
    target = cache / named.published.url.rpartition("/")[2]
    download(named.published, target, title=named.name, tell=tell)
    return target


def _is_there(path: Path) -> bool:
    return path.is_file() or (path.is_dir() and (cifar.layout_of(path) is not None or has_idx_files(path)))
