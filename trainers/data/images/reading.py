"""From a ``--dataset`` value to images: a name, an archive, its unpacked directory, IDX files or a folder of class-named folders."""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import replace
from pathlib import Path

from pitstop.configs.errors import DataError
from pitstop.trainers.data.images import cifar
from pitstop.trainers.data.images.fitting import fit
from pitstop.trainers.data.images.folder import has_folder_split, read_folder
from pitstop.trainers.data.images.idx import has_idx_files, has_idx_split, idx_names, read_idx_directory
from pitstop.trainers.data.images.image_set import ImageSet
from pitstop.trainers.data.images.named import NAMED_SETS, locate, named_set
from pitstop.trainers.data.records import NoData
from pitstop.trainers.data.unread import DIRECTORIES, FILES, unread

SPLITS = ("train", "validation", "test")
_ARCHIVES = (".tar.gz", ".tgz", ".tar")
_KNOWN = (
    f"Known: {', '.join(named.name for named in NAMED_SETS)}; a binary archive of CIFAR or its directory; a directory of IDX files; "
    "a folder of class-named folders of images."
)


def read_images(
    spec: str,
    *,
    split: str,
    size: int,
    channels: int,
    data_root: Path | None = None,
    skip_bad_rows: bool = False,
    tell: Callable[[str], None] = lambda message: None,
) -> ImageSet:
    """The images of one ``--dataset`` value, uint8 (n, ``channels``, ``size``, ``size``).

    ``spec`` is a path or, where no such path exists, the name of a data set, which is looked for under ``data_root``, in the cache and
    among Debian's data sets and, for CIFAR, downloaded. ``split`` is ``train``, ``validation`` or ``test``; validation is the test half of
    archives and of folders that have nothing else. Images of archives and IDX files get a margin where they are a little smaller (see
    ``fit``), those of folders are cropped and resized. ``tell`` is told of a download; the notices of the set say what else lies there.

    Raises:
        NoData: nothing is there, or it has no such split.
        DataError: unreadable or damaged data, images that do not fit, and, unless ``skip_bad_rows``, an image that cannot be read.
        ResourceError: the disk does not take a download.
        ValueError: another split.
    """
    if split not in SPLITS:
        raise ValueError(f"split: one of {', '.join(SPLITS)}, not {split!r}")
    read = _read(_path(spec, data_root, tell), split, size, skip_bad_rows)
    return replace(read, images=fit(read.images, size, channels))


def has_validation(spec: str) -> bool:
    """Whether a data set has images to validate on apart from those to train on; of one that is not there, reading tells.

    Raises ``DataError`` for a directory that cannot be read.
    """
    path = _existing(spec)
    if path is None or not path.is_dir() or _cifar_inside(path) is not None or cifar.layout_of(path) is not None:
        return True
    return has_idx_split(path, "validation") if has_idx_files(path) else has_folder_split(path, "validation")


def _path(spec: str, data_root: Path | None, tell: Callable[[str], None]) -> Path:
    path = _existing(spec)
    if path is not None:
        return path
    named = named_set(spec)
    if named is None:
        raise NoData(f"No images at {spec}: no such file or directory, and no data set of this name.", hint=_KNOWN)
    return locate(named, data_root, tell=tell)


def _existing(spec: str) -> Path | None:
    try:
        path = Path(spec).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, a null byte, no such user
        return None


def _read(path: Path, split: str, size: int, skip_bad: bool) -> ImageSet:
    if path.is_dir():
        return _read_directory(path, split, size, skip_bad)
    if path.name.lower().endswith(_ARCHIVES):
        return cifar.read_cifar_archive(path, split=split)
    hint = f"For IDX files give their directory: {path.parent}." if "ubyte" in path.name else _KNOWN
    raise DataError(f"{path}: cannot tell what images these are.", hint=hint)


def _read_directory(directory: Path, split: str, size: int, skip_bad: bool) -> ImageSet:
    cifar_path = _cifar_inside(directory)
    if cifar_path is not None:
        return _with_unread(_read(cifar_path, split, size, skip_bad), directory, {cifar_path.name})
    layout = cifar.layout_of(directory)
    if layout is not None:
        return _with_unread(cifar.read_cifar_directory(directory, layout, split=split), directory, layout.published_files())
    if has_idx_files(directory):
        return _with_unread(read_idx_directory(directory, split=split), directory, idx_names(directory))
    for python in (directory, *(directory / name for name in sorted(cifar.PYTHON_DIRECTORIES))):
        if python.name in cifar.PYTHON_DIRECTORIES and python.is_dir():
            raise cifar.python_version(python)
    return read_folder(directory, split=split, size=size, skip_bad=skip_bad)


def _with_unread(images: ImageSet, directory: Path, known: Container[str]) -> ImageSet:
    """``images`` with a notice of what else lies in their directory; the data set's own files, of either half, are ``known``."""
    others = [path for path in sorted(directory.iterdir()) if path.name not in known and not path.name.startswith(".")]
    files, folders = ([path.name for path in others if path.is_dir() == is_folder] for is_folder in (False, True))
    return replace(images, notices=(*images.notices, *unread(FILES, directory, files), *unread(DIRECTORIES, directory, folders)))


def _cifar_inside(directory: Path) -> Path | None:
    """The one data set of CIFAR that lies in a directory, unpacked or as an archive; None where there is none."""
    paths = {
        layout.title: directory / name
        for layout in cifar.LAYOUTS
        for name in (layout.archive, layout.directory)
        if (directory / name).exists()
    }
    if len(paths) > 1:
        raise DataError(f"{directory}: {' and '.join(paths)} are both in it.", hint=f"Name one, such as {min(paths.values())}.")
    return next(iter(paths.values()), None)
