"""Putting an export in its place: whole, durable, and without harm to what was there."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

from pitstop.checkpointing.disk.storage import LocalStorage, make_durable, sync_path, temporary_name, to_trash
from pitstop.configs.errors import ResourceError, SettingsError, first_line, is_disk_full
from pitstop.configs.shown import human_size

MARKER = "pitstop_export.json"
"""What tells a directory that may be replaced from one that holds something else."""


def check_target(target: Path, run: Path, *, directory: bool, force: bool) -> None:
    """Raises ``SettingsError`` for a place that is taken, that cannot be written to, or that lies in the run itself."""
    resolved = target.resolve()
    if run.resolve() in (resolved, *resolved.parents):
        raise SettingsError(f"{target} lies in the run that is exported.", hint="Give a place outside of it.")
    if not target.parent.is_dir():
        raise SettingsError(f"There is no directory {target.parent}.", hint="Make it, or give another place with --output.")
    if not os.access(target.parent, os.W_OK):
        raise SettingsError(f"{target.parent} cannot be written to.", hint="Give another place with --output.")
    if not os.path.lexists(target):
        return
    if not force:
        raise SettingsError(f"{target} exists.", hint="Give another place, or --force to replace an earlier export.")
    if target.is_symlink() or target.is_dir() != directory:
        raise SettingsError(f"{target} is {'no' if directory else 'a'} directory, so --force does not replace it.")
    if directory and any(target.iterdir()) and not (target / MARKER).is_file():
        raise SettingsError(
            f"{target} is not an export of Pitstop (it has no {MARKER}), so --force does not replace it.",
            hint="Give another place, or remove it yourself.",
        )


def check_room(target: Path, needed: int) -> None:
    """Raises ``ResourceError`` where ``needed`` bytes do not fit beside ``target``."""
    free = LocalStorage().free_space(target.parent)
    if free < needed:
        raise ResourceError(
            f"The export takes about {human_size(needed)}; {human_size(free)} are free in {target.parent}.",
            hint="Free some space, or choose another disk with --output.",
        )


@contextlib.contextmanager
def in_place_of(target: Path) -> Iterator[Path]:
    """A free name to make a file or directory under; at the end it is durable and has the name ``target``.

    Whatever ends the body early (an error, Ctrl+C, SIGTERM), nothing is left of it and what had the name stays. Raises
    ``ResourceError`` as the disk says.
    """
    storage = LocalStorage()
    temporary = temporary_name(target)
    try:
        yield temporary
        if temporary.is_dir():
            # The library that writes weights makes them private; the directory was made as the user's umask says.
            make_durable(storage, temporary, file_mode=temporary.stat().st_mode & 0o666, directory_mode=None)
        else:
            sync_path(storage, temporary)
        _rename(storage, temporary, target)
    except BaseException as error:
        if os.path.lexists(temporary):
            storage.remove_tree(temporary)
        if isinstance(error, OSError) or is_disk_full(error):  # the libraries that write weights wrap the system's error
            raise ResourceError(
                f"{target} could not be saved: {getattr(error, 'strerror', None) or first_line(error)}.",
                hint="Free some space, or choose another place with --output. Nothing is left of the attempt.",
            ) from error
        raise


def _rename(storage: LocalStorage, temporary: Path, target: Path) -> None:
    if target.is_dir():
        old = to_trash(storage, target)
        try:
            storage.rename(temporary, target)
        except BaseException:
            storage.rename(old, target)
            raise
        storage.sync_directory(target.parent)
        storage.remove_tree(old)
        return
    storage.replace(temporary, target)
    storage.sync_directory(target.parent)


def write_json(path: Path, content: object) -> None:
    """Write indented JSON that ends with a line break."""
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
