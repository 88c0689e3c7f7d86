"""Reading committed directories and telling whole ones from damaged ones. Nothing here writes."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.manifest import MAX_BYTES, Manifest, ManifestError, parse_manifest
from pitstop.checkpointing.disk.storage import FileRecord, file_sha256, read_regular_file
from pitstop.configs.errors import CheckpointError
from pitstop.configs.shown import printable

_SYSTEM_LITTER = {".DS_Store", "Thumbs.db", "desktop.ini"}
"""Files that a file browser leaves in any directory it shows; they are no sign of damage."""

_NAMED_PROBLEMS = 5


class DamagedError(CheckpointError):
    """A checkpoint whose files are not what was written."""


@dataclass(frozen=True)
class CheckpointInfo:
    """A committed checkpoint: ``size`` in bytes, ``epoch`` in passes over the data, ``saved_at`` with its offset."""

    name: str
    path: Path
    step: int
    epoch: float
    metrics: Mapping[str, float | None]
    size: int
    saved_at: datetime
    manifest: Manifest

    @classmethod
    def of(cls, path: Path, manifest: Manifest) -> CheckpointInfo:
        return cls(
            manifest.name, path, manifest.step, manifest.epoch, dict(manifest.metrics), manifest.size, manifest.saved_at, manifest
        )

    @property
    def order(self) -> tuple[int, datetime, str]:
        """Sort key: by step, and at one step by time."""
        return (self.step, self.saved_at, self.name)


def read_manifest(directory: Path) -> Manifest:
    """The manifest of the checkpoint in ``directory``; ``DamagedError`` when it cannot be what was committed there."""
    if not is_real_directory(directory):
        raise DamagedError(f"{directory}: not a directory of its own")
    path = directory / layout.MANIFEST
    try:
        manifest = parse_manifest(read_regular_file(path, limit=MAX_BYTES), str(path))
    except OSError as error:
        raise DamagedError(f"{path}: {error.strerror or error}") from error
    except ManifestError as error:
        raise DamagedError(error.message) from error
    if manifest.name != directory.name:
        raise DamagedError(f"{path}: this is the manifest of {manifest.name}")
    return manifest


def inspect(directory: Path) -> CheckpointInfo:
    """A checkpoint by its manifest and the names and sizes of its files, without reading them. ``DamagedError``."""
    manifest = read_manifest(directory)
    _raise_problems(directory, shape_problems(directory, manifest.files, layout.MANIFEST))
    return CheckpointInfo.of(directory, manifest)


def verify(directory: Path, hash_file: Callable[[Path], str] = file_sha256) -> CheckpointInfo:
    """A checkpoint with every byte hashed again; ``DamagedError`` names the files that are missing, extra or changed."""
    manifest = read_manifest(directory)
    _raise_problems(directory, content_problems(directory, manifest.files, layout.MANIFEST, hash_file))
    return CheckpointInfo.of(directory, manifest)


def read_verified(info: CheckpointInfo, name: str) -> bytes:
    """One file of a checkpoint, checked against the manifest before anything parses it. ``DamagedError``."""
    record = info.manifest.files.get(name)
    if record is None:
        raise DamagedError(f"{info.path}: {name} is missing from the manifest")
    try:
        data = read_regular_file(info.path / name, limit=record.size)
    except OSError as error:
        raise DamagedError(f"{info.path / name}: {error.strerror or error}") from error
    if len(data) != record.size or hashlib.sha256(data).hexdigest() != record.sha256:
        raise DamagedError(f"{info.path / name}: changed since it was saved")
    return data


def read_object(info: CheckpointInfo, name: str) -> dict[str, Any]:
    """One JSON object of a checkpoint, checked against the manifest; {} where it has none that can be read."""
    try:
        content = json.loads(read_verified(info, name))
    except (CheckpointError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def shape_problems(directory: Path, files: Mapping[str, FileRecord], manifest_name: str) -> list[str]:
    """What is wrong with the names, kinds and sizes of the files in ``directory``; an empty list when nothing is."""
    try:
        present = dict(_walk(directory, files))
    except OSError as error:
        return [f"unreadable ({error.strerror or error})"]
    present.pop(manifest_name, None)
    problems = [f"{name} is missing" for name in files if name not in present]
    problems += [f"{printable(name)} is not part of it" for name in present if name not in files]
    for name in files:
        status = present.get(name)
        if status is None:
            continue
        if not stat.S_ISREG(status.st_mode):
            problems.append(f"{name} is not a regular file")
        elif status.st_size != files[name].size:
            problems.append(f"{name} has {status.st_size:,} bytes instead of {files[name].size:,}")
    return sorted(problems)


def content_problems(
    directory: Path, files: Mapping[str, FileRecord], manifest_name: str, hash_file: Callable[[Path], str] = file_sha256
) -> list[str]:
    """As ``shape_problems``, and every file that is there in full is hashed too."""
    problems = shape_problems(directory, files, manifest_name)
    named = {problem.split(" ", 1)[0] for problem in problems}
    for name, record in files.items():
        if name in named:
            continue
        try:
            if hash_file(directory / name) != record.sha256:
                problems.append(f"{name} changed since it was saved (its SHA-256 differs)")
        except OSError as error:
            problems.append(f"{name} cannot be read ({error.strerror or error})")
    return sorted(problems)


def summary(problems: list[str]) -> str:
    """The first few of ``problems`` in one line, and how many more there are."""
    rest = f"; and {len(problems) - _NAMED_PROBLEMS} more" if len(problems) > _NAMED_PROBLEMS else ""
    return "; ".join(problems[:_NAMED_PROBLEMS]) + rest


def is_real_directory(path: Path) -> bool:
    """Whether ``path`` is a directory and not a link to one."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except OSError:
        return False


def tree_size(path: Path) -> int:
    """Bytes of all files below ``path``, a file with several names in it counted once; 0 when there is nothing."""
    return sum({(status.st_dev, status.st_ino): status.st_size for status in tree_files(path)}.values())


def tree_files(path: Path) -> Iterator[os.stat_result]:
    """Every regular file below ``path``, or ``path`` itself; what vanishes while we look is left out, links too."""
    waiting = [path]  # no recursion: a planted tree may be deeper than the stack
    while waiting:
        try:
            entry = waiting.pop()
            status = entry.lstat()
            if stat.S_ISREG(status.st_mode):
                yield status
            elif stat.S_ISDIR(status.st_mode):
                waiting += entry.iterdir()
        except OSError:  # gone meanwhile, or a path too long to open
            continue


def _raise_problems(directory: Path, problems: list[str]) -> None:
    if problems:
        raise DamagedError(f"{directory} is damaged: {summary(problems)}")


def _walk(directory: Path, files: Mapping[str, FileRecord]) -> Iterator[tuple[str, os.stat_result]]:
    """Name and status of all that lies below ``directory``. A directory in which no file belongs is not looked into."""
    expected = {parent.as_posix() for name in files for parent in PurePosixPath(name).parents}
    waiting = ["."]
    while waiting:
        subdirectory = waiting.pop()
        with os.scandir(directory / subdirectory) as entries:
            for entry in entries:
                name = entry.name if subdirectory == "." else f"{subdirectory}/{entry.name}"
                status = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode) and name in expected:
                    waiting.append(name)
                elif entry.name not in _SYSTEM_LITTER or not stat.S_ISREG(status.st_mode):
                    yield name, status
