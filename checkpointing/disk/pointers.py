"""The pointers ``last`` and ``best``: relative links, or one-line files where the filesystem has no links.

They are for people and for other tools. Nothing that Pitstop decides rests on one: the manifests are what counts.
"""

from __future__ import annotations

from pathlib import Path

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import Storage, links_unsupported, put_in_place, read_regular_file

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
    put_in_place(storage, path, lambda temporary: _make_link(storage, temporary, name))


def _make_link(storage: Storage, path: Path, name: str) -> None:
    try:
        storage.symlink(name, path)
    except (OSError, NotImplementedError) as error:
        if not links_unsupported(error):
            raise
        storage.write_file(path, f"{name}\n".encode("ascii"))
