"""The directory ``by-name``: for each run an entry named like the run that leads to it.

Entries are relative links, or one-line files where the filesystem has no links. Giving a run its number and name, and taking
both away, is done by one process at a time: an entry must never come to lead to another run that got the number later.
"""

# Listdir, because names are what is looked at.
# ruff: noqa: PTH115, PTH208
from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.disk.storage import read_regular_file

PATIENCE_S = 60.0
"""How long a process waits for the others that start or delete runs; each takes some milliseconds."""

_TO_A_RUN = re.compile(rf"\.\./(?:{layout.BASE_TRAINING}/)?(run_[0-9]+)")


@contextmanager
def alone(base_dir: Path) -> Iterator[None]:
    """Be the only one below ``base_dir`` who gives or takes numbers and names; ``by-name`` must exist. ``RunError``."""
    lock = base_dir / layout.BY_NAME / layout.LOCK
    with locking.exclusive(lock, f"the list of names {lock.parent}", patience_s=PATIENCE_S):
        yield


def target(path: Path) -> str | None:
    """What an entry says: ``../run_003``; None when there is no entry, or one that cannot be read."""
    try:
        return os.readlink(path).replace("\\", "/") if path.is_symlink() else read_regular_file(path, limit=500).decode().strip()
    except (OSError, UnicodeDecodeError):
        return None


def listed(base_dir: Path) -> list[Path]:
    """All entries, sorted by name."""
    directory = base_dir / layout.BY_NAME
    try:
        return [directory / name for name in sorted(os.listdir(directory)) if name != layout.LOCK]
    except (FileNotFoundError, NotADirectoryError):
        return []


def entries(base_dir: Path, label: str) -> list[Path]:
    """The entries that lead to the run ``label`` (``run_003`` or ``base_training/run_003``), whether it exists or not."""
    return [path for path in listed(base_dir) if target(path) == f"../{label}"]


def dangling(base_dir: Path) -> list[Path]:
    """The entries that lead to a run which is gone. What leads anywhere else was not made by Pitstop and is left out."""
    links = [(path, _TO_A_RUN.fullmatch(target(path) or "")) for path in listed(base_dir)]
    ours = [(path, match) for path, match in links if match is not None and layout.run_number(match[1]) is not None]
    return [path for path, match in ours if not os.path.lexists(base_dir / match[0].removeprefix("../"))]
