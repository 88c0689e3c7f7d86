"""Making runs: the next free number, a unique name, and the files that every run has before its first step."""

# Abspath keeps links as the user named them, which resolve() does not.
# ruff: noqa: PTH100, PTH208
from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import LocalStorage, Storage, failed_save, make_directories, symlink_or_note
from pitstop.checkpointing.runs import name_links
from pitstop.checkpointing.runs.metadata import INTERRUPTED, Metadata, json_bytes
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import PitstopError, RunError


def create_run(
    directory: Path | str,
    *,
    name: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    number: int | None = None,
    started_at: datetime | None = None,
    storage: Storage | None = None,
) -> RunDirectory:
    """Start a run: the next free number (or ``number``), a unique name, config.json and metadata.json, all durable.

    ``directory`` is the base directory, or ``base_training`` in it for a base training. ``name`` gets -2, -3, … when another
    run has it; see ``RunDirectory.name``. ``metadata`` overrides what is derived from ``config``. ``RunError`` when ``number``
    exists or nothing can be written here, ``ResourceError`` when the disk is full; nothing is left of the attempt then.
    """
    disk: Storage = storage or LocalStorage()
    parent = Path(os.path.abspath(directory))
    base, _ = layout.split_base(parent)
    claimed: list[Path] = []  # the run's directory, then its entry in by-name
    try:
        make_directories(disk, parent)
        make_directories(disk, base / layout.BY_NAME)
        with name_links.alone(base):
            claimed.append(_claim_number(disk, parent, number))
            run = RunDirectory(claimed[0], disk)
            _drop_stale_names(disk, base, run.label)
            claimed.append(_claim_name(disk, base / layout.BY_NAME, name, f"../{run.label}"))
            disk.sync_directory(base / layout.BY_NAME)
        initial = Metadata.initial(run.number, claimed[-1].name, config, started_at or datetime.now().astimezone())
        _fill(run, initial, config, metadata)
    except BaseException as error:
        for path in reversed(claimed):
            disk.remove_tree(path)
        if isinstance(error, OSError):
            raise _not_made(claimed[0] if claimed else parent, error) from error
        raise
    return run


def install_run(
    base_dir: Path | str,
    staged: Path,
    *,
    name: str,
    metadata: Mapping[str, Any],
    number: int | None = None,
    check: Callable[[], object] = lambda: None,
    storage: Storage | None = None,
) -> RunDirectory:
    """Make the complete run in ``staged`` the next run of ``base_dir`` (or run ``number``), in one step that no crash can halve.

    A run staged in a directory ``base_training`` becomes a base training. ``staged`` lies on the same filesystem and holds all of a run but metadata.json, durably; ``metadata`` overrides what is derived from
    its config.json and checkpoints. ``check`` is called when no other process can start a run any more, and may refuse.
    A crash leaves ``staged`` beside its old name, or the run. ``RunError`` when ``number`` exists, ``ResourceError``.
    """
    disk: Storage = storage or LocalStorage()
    base = Path(os.path.abspath(base_dir))
    group = layout.BASE_TRAINING if staged.parent.name == layout.BASE_TRAINING else ""
    undo: list[Callable[[], object]] = []
    try:
        make_directories(disk, base / group)
        make_directories(disk, base / layout.BY_NAME)
        with name_links.alone(base):
            check()
            path = base / group / layout.run_directory_name(number if number is not None else _highest(base / group) + 1)
            if os.path.lexists(path):
                raise _taken(number, path)
            label = f"{group}/{path.name}" if group else path.name
            named = staged.with_name(path.name)  # what is told of a run depends on its number
            disk.rename(staged, named)
            document = _describe_staged(RunDirectory(named, disk), metadata)
            _drop_stale_names(disk, base, label)
            entry = _claim_name(disk, base / layout.BY_NAME, name, f"../{label}")
            undo.append(lambda: disk.unlink(entry))
            disk.write_file(named / layout.METADATA, document.changed({"name": entry.name}).to_bytes())
            for directory in (named, named.parent, base / layout.BY_NAME):
                disk.sync_directory(directory)
            disk.rename(named, path)
            undo.append(lambda: disk.rename(path, named))
            for directory in (path.parent, named.parent):
                disk.sync_directory(directory)
    except BaseException as error:
        for step in reversed(undo):
            with suppress(OSError):  # the first error is the one to tell
                step()
        if isinstance(error, OSError):
            raise _not_made(base, error) from error
        raise
    return RunDirectory(path, disk)


def _describe_staged(run: RunDirectory, metadata: Mapping[str, Any]) -> Metadata:
    infos = run.store.list()
    run.store.repair_pointers()
    initial = Metadata.initial(run.number, run.path.name, run.config(), datetime.now().astimezone())
    document = initial.changed({"status": INTERRUPTED, **metadata, **run.checkpoint_changes(infos)})
    return document.standing_at(infos[-1] if infos else None)


def _drop_stale_names(storage: Storage, base: Path, label: str) -> None:
    """Remove the entries of an earlier run of this number, which is gone."""
    for stale in name_links.entries(base, label):
        storage.unlink(stale)


def _claim_number(storage: Storage, directory: Path, number: int | None) -> Path:
    while True:
        path = directory / layout.run_directory_name(number if number is not None else _highest(directory) + 1)
        try:
            storage.make_directory(path)
        except FileExistsError:
            if number is None:
                continue  # another process took it; look again
            raise _taken(number, path) from None
        return path


def _taken(number: int | None, path: Path) -> RunError:
    option = f"{layout.BASE_TRAINING}/{number}" if path.parent.name == layout.BASE_TRAINING else f"--run-number {number}"
    return RunError(
        f"run {number} exists: {path}",
        hint=f"continue it with `pitstop resume {option}`, or leave --run-number out for a new run",
    )


def _highest(directory: Path) -> int:
    return max((layout.run_number(name) or 0 for name in os.listdir(directory)), default=0)


def _fill(run: RunDirectory, initial: Metadata, config: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    storage = run.storage
    for directory in (layout.weights_directory(run.path), run.logs_dir):
        storage.make_directory(directory)
    storage.write_file(run.path / layout.CONFIG, json_bytes(config))
    document = initial.changed({**metadata, "run_number": initial.run_number, "name": initial.name})
    storage.write_file(run.path / layout.METADATA, document.to_bytes())
    storage.sync_directory(run.path)
    storage.sync_directory(run.path.parent)


def _claim_name(storage: Storage, names: Path, name: str, target: str) -> Path:
    from pitstop.naming.names import unique  # it imports the schema, which takes longer than reading a run

    while True:
        path = names / unique(name, lambda candidate: os.path.lexists(names / candidate))
        try:
            symlink_or_note(storage, target, path)
        except FileExistsError:
            continue  # two runs of one second: the other was quicker
        return path


def _not_made(path: Path, error: OSError) -> PitstopError:
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}:
        return RunError(
            f"no run can be made in {path}: {error.strerror or error}",
            hint="choose another directory with --base-dir (OUTPUT_DIR), or make this one writable",
        )
    return failed_save(path, error)
