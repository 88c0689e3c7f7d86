"""The pointers ``last`` and ``best``: relative links, or one-line files where the filesystem has no links.

They are for people and for other tools. Nothing that Pitstop decides rests on one: the manifests are what counts.
"""

from __future__ import annotations

from pathlib import Path

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import Storage, put_in_place, read_regular_file, symlink_or_note

_LONGEST = 200


def read_pointer(path: Path) -> str | None:
    """The checkpoint name that the pointer holds; None when there is no pointer or it holds anything else."""
    try:
        text = str(path.readlink()) if path.is_symlink() else read_regular_file(path, limit=_LONGEST).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
    return text if layout.is_checkpoint_name(text) else None


def write_pointer(storage: Storage, path: Path, name: str) -> None:
    """Point ``path`` at the checkpoint ``name`` beside it, durably and in one step. ``OSError``."""
    put_in_place(storage, path, lambda temporary: symlink_or_note(storage, name, temporary))
