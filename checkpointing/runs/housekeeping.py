"""Taking things off the disk: what ``prune`` and ``delete`` remove, and in which order, so that no crash leaves half of it.

Whatever goes gets a ``.trash-`` name first, and that is synced before the first of its files is deleted: after a crash it is
there in full or no longer listed. What a crash leaves of it goes with the next ``prune`` or ``delete``.
"""

# Listdir, because names are what is looked at.
# ruff: noqa: PTH208
from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

from pitstop.checkpointing.disk import inspection, layout, locking
from pitstop.checkpointing.disk.manifest import NewerFormatError
from pitstop.checkpointing.disk.storage import LEFTOVERS, TRASH_PREFIX, LocalStorage, Storage, to_trash
from pitstop.checkpointing.runs import base_runs, listing, metadata, name_links, retention
from pitstop.checkpointing.runs.base_models import BaseModels, read_base_manifest
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, ResourceError, RunError

CHECKPOINT, SET_ASIDE, LEFTOVER, BASE_MODEL = "checkpoint", "set aside", "leftover", "base model"


@dataclass(frozen=True)
class Item:
    """Something that goes. ``run`` is its label, empty for what lies beside the runs; ``size`` is the bytes it frees."""

    run: str
    kind: str
    name: str
    path: Path
    size: int

    @classmethod
    def at(cls, path: Path, kind: str, run: str = "", name: str = "") -> Item:
        return cls(run, kind, name or path.name, path, freed_bytes([path]))


@dataclass
class Removal:
    """What was removed, or would be, the bytes that this frees, and what refused to go, with the reason."""

    removed: list[Item] = field(default_factory=list)
    size: int = 0
    failed: list[tuple[Item, str]] = field(default_factory=list)

    @property
    def checkpoints(self) -> list[str]:
        """The names of those among them, oldest first."""
        return [item.name for item in self.removed if item.kind == CHECKPOINT]

    def add(self, removal: Removal) -> None:
        """Take up another outcome."""
        self.removed += removal.removed
        self.size += removal.size
        self.failed += removal.failed


def prunable(run: RunDirectory, keep_last_n: int | None, *, set_aside: bool = False) -> Removal:
    """What ``prune`` would remove from ``run``. Reads only, takes no lock, hashes nothing. ``NewerFormatError``.

    None keeps all checkpoints. ``set_aside`` adds what recovery and resumes put out of the way.
    """
    expendable = run.store.expendable(keep_last_n, protect=set(retention.pins(run)))
    items = [*_leftovers(run), *(Item.at(info.path, CHECKPOINT, run.label) for info in expendable)]
    items += _set_aside(run.store.directory, run.label) if set_aside else []
    return _would_go(items)


def freed_by_prune(base_dir: Path, keep: int, *, without: str = "") -> int:
    """Bytes that ``pitstop prune --keep-last-n KEEP`` would free below ``base_dir``; runs in use, and ``without``, are left out."""
    paths = [item.path for item in unused_bases(base_dir)]
    for record in listing.list_runs(base_dir):
        run = RunDirectory(Path(record.path))
        if record.run == without or run.is_locked():
            continue
        try:
            paths += [item.path for item in prunable(run, keep).removed]
        except CheckpointError:
            continue  # prune leaves it out too
    return freed_bytes(paths)


def _leftovers(run: RunDirectory) -> list[Item]:
    weights = run.store.directory
    if not run.store.names() and run.status() == metadata.CREATED:
        return []  # whoever starts it may be linking its base, and has not taken the lock yet
    places = [run.path, weights, run.logs_dir, weights / layout.DAMAGED, weights / layout.SUPERSEDED]
    return [Item.at(path, LEFTOVER, run.label) for place in places for path in _named(place, LEFTOVERS)]


def _set_aside(directory: Path, run: str) -> list[Item]:
    """The directories of what was set aside; each goes in one piece."""
    places = [directory / name for name in (layout.DAMAGED, layout.SUPERSEDED)]
    items = []
    for place in filter(Path.is_dir, places):
        names = sorted(name for name in os.listdir(place) if not name.endswith(".reason.txt") and not name.startswith("."))
        items.append(Item.at(place, SET_ASIDE, run, f"{place.name} ({', '.join(names)})" if names else place.name))
    return items


def unused_bases(base_dir: Path, without: str = "") -> list[Item]:
    """Shared bases that no run below ``base_dir``, ``without`` aside, refers to; those of a newer Pitstop are left out."""
    models = BaseModels(base_dir)
    free = [digest for digest in models.digests() if not _is_newer(models.path(digest))]
    needed = _digests_needed(models, without) if free else set()
    return [Item.at(models.path(digest), BASE_MODEL) for digest in free if digest not in needed]


def _is_newer(base: Path) -> bool:
    try:
        read_base_manifest(base)
    except CheckpointError as error:
        return isinstance(error, NewerFormatError)
    return False


def _digests_needed(models: BaseModels, without: str) -> set[str]:
    digests: set[str] = set()
    for record in listing.list_runs(models.base_dir):
        if record.run == without:
            continue
        run = RunDirectory(Path(record.path))
        digests |= {digest for digest in (models.digest_of(run.path), *_digests_on_record(run)) if digest}
    return digests


def _digests_on_record(run: RunDirectory) -> Iterator[str]:
    """What the metadata says; where that is lost, what the checkpoints say they were trained on."""
    try:
        base = run.metadata().base_model
        if base.saved is not False and base.digest is not None:
            yield base.digest
        return
    except CheckpointError:
        pass
    directory = layout.weights_directory(run.path)
    for name in sorted(os.listdir(directory)) if directory.is_dir() else []:
        try:
            yield inspection.read_manifest(directory / name).fingerprints.get("base", "")
        except CheckpointError:
            continue


def _named(directory: Path, prefixes: tuple[str, ...]) -> list[Path]:
    try:
        return [directory / name for name in sorted(os.listdir(directory)) if name.startswith(prefixes)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def freed_bytes(paths: Iterable[Path]) -> int:
    """Bytes that deleting ``paths`` frees: a file that has a name elsewhere too (a shared base model) frees none."""
    return _freed(status for path in paths for status in inspection.tree_files(path))


def _freed(statuses: Iterable[os.stat_result]) -> int:
    files: dict[tuple[int, int], list[os.stat_result]] = {}
    for status in statuses:
        files.setdefault((status.st_dev, status.st_ino), []).append(status)
    return sum(names[0].st_size for names in files.values() if names[0].st_nlink <= len(names))


def prune_run(run: RunDirectory, keep: int | None, *, set_aside: bool = False, dry_run: bool = False) -> Removal:
    """Delete all but the newest ``keep`` checkpoints and the pinned ones, with what crashes left behind.

    Raises:
        RunError: the run is in use; the message names the process.
        CheckpointError: metadata.json is lost, so that what the last resume started from is unknown; a checkpoint that
            would stay is damaged; or a newer Pitstop wrote one. Nothing is deleted then.
    """
    if dry_run:
        if run.is_locked():
            raise locking.in_use(run.path / layout.LOCK, run.label)
        return _checked_plan(run, keep, set_aside)
    with run.lock({"command": "prune"}):
        outcome = _remove(_checked_plan(run, keep, set_aside).removed, run.storage)
        _record(run, outcome)
        return outcome


def _checked_plan(run: RunDirectory, keep: int | None, set_aside: bool) -> Removal:
    run.metadata()
    plan = prunable(run, keep, set_aside=set_aside)
    if plan.checkpoints:
        if not run.settings():
            run.config()  # says why nobody knows which checkpoint is the best
        _refuse_damaged(run, plan.checkpoints)
    return plan


def _refuse_damaged(run: RunDirectory, going: Sequence[str]) -> None:
    """What goes must not turn out to have been the last that was whole."""
    for info in run.store.list():
        if info.name in going:
            continue
        try:
            inspection.verify(info.path)
        except inspection.DamagedError as error:
            raise CheckpointError(
                f"{run.label} was not pruned, since a checkpoint that would stay is damaged: {error.message}",
                hint=f"`pitstop resume {run.label}` sets it aside; prune the run after that",
            ) from error


def _record(run: RunDirectory, outcome: Removal) -> None:
    """Let the metadata list what is there: a run whose last pruning died before this is put right too."""
    if [entry.name for entry in run.metadata().checkpoints] == [info.name for info in run.store.list()]:
        return
    try:
        run.sync_checkpoints()
    except ResourceError as error:
        path = run.path / layout.METADATA
        outcome.failed.append((Item(run.label, LEFTOVER, layout.METADATA, path, 0), error.message))


def prune_deleted(base_dir: Path, *, dry_run: bool = False, storage: Storage | None = None) -> Removal:
    """Finish deletions of runs that died on the way: their files, and the names that lead to them."""
    disk = storage or LocalStorage()
    base = Path(os.path.abspath(base_dir))  # noqa: PTH100 - keeps links as the user named them
    trash = [path for place in (base, base / layout.BASE_TRAINING) for path in _named(place, LEFTOVERS)]
    items = [Item.at(path, LEFTOVER) for path in trash if not locking.is_locked(path / layout.LOCK)]
    outcome = _would_go(items) if dry_run else _remove(items, disk, _remove_run)
    if (base / layout.BY_NAME).is_dir():
        outcome.add(_prune_names(base, disk, dry_run))
    return outcome


def _prune_names(base: Path, storage: Storage, dry_run: bool) -> Removal:
    if dry_run or not name_links.dangling(base):
        return _would_go([_name_item(path) for path in name_links.dangling(base)])
    with name_links.alone(base):
        return _remove([_name_item(path) for path in name_links.dangling(base)], storage, lambda disk, path: disk.unlink(path))


def _name_item(path: Path) -> Item:
    return Item.at(path, LEFTOVER, name=f"{layout.BY_NAME}/{path.name}")


def prune_bases(base_dir: Path, *, set_aside: bool = False, dry_run: bool = False, storage: Storage | None = None) -> Removal:
    """Delete shared base models that no run uses, and what crashes left beside them.

    ``RunError`` while another process saves a base model, or is about to start a run that uses one.
    """
    models = BaseModels(base_dir)
    if not models.directory.is_dir():
        return Removal()
    if dry_run:
        if (lock := models.in_use_by()) is not None:
            raise locking.in_use(lock, f"the store of base models {models.directory}")
        return _would_go(_base_items(models, set_aside))
    with models.alone():
        return _remove(_base_items(models, set_aside), storage or LocalStorage())


def _base_items(models: BaseModels, set_aside: bool) -> list[Item]:
    leftovers = [Item.at(path, LEFTOVER) for path in _named(models.directory, LEFTOVERS)]
    aside = _set_aside(models.directory, "") if set_aside else []
    items = [*leftovers, *aside, *unused_bases(models.base_dir)]
    return [Item(item.run, item.kind, f"{layout.BASE_MODELS}/{item.name}", item.path, item.size) for item in items]


def _would_go(items: Sequence[Item]) -> Removal:
    return Removal(list(items), freed_bytes(item.path for item in items))


def _remove(items: Iterable[Item], storage: Storage, remove: Callable[[Storage, Path], None] | None = None) -> Removal:
    """Remove each; one that refuses to go does not keep the others."""
    outcome = Removal()
    files = {item: list(inspection.tree_files(item.path)) for item in items}
    for item in files:
        try:
            (remove or discard)(storage, item.path)
        except FileNotFoundError:
            continue  # another process was quicker
        except OSError as error:
            outcome.failed.append((item, f"{item.path} could not be removed: {error.strerror or error}"))
        else:
            outcome.removed.append(item)
    outcome.size = _freed(status for item in outcome.removed for status in files[item])
    return outcome


def discard(storage: Storage, path: Path) -> None:
    """Take ``path`` out of the listing in one durable step, then delete it. ``OSError``."""
    if not path.name.startswith(LEFTOVERS):
        path = to_trash(storage, path)
    storage.remove_tree(path)


def delete_run(run: RunDirectory) -> int:
    """Delete ``run`` with all in it; its number is free from then on. Returns the bytes that this freed.

    It leaves the listing in one step, then its entry in ``by-name`` goes, then its files: a crash leaves either the whole
    run or nothing that is listed.

    Raises:
        RunError: the run is in use (the message names the process), other runs stand on it, or its directory is a link.
        ResourceError: the disk refused; the message says whether the run is still there.
    """
    if run.path.is_symlink():
        raise RunError(f"{run.path} is a link to {run.path.readlink()}", hint="remove the link and what it leads to yourself")
    with run.lock({"command": "delete"}):
        refuse_needed(run)
        size = freed_bytes([run.path])
        try:
            has_names = (run.base_dir / layout.BY_NAME).is_dir()
            with name_links.alone(run.base_dir) if has_names else nullcontext():
                trash = to_trash(run.storage, run.path)
                names = name_links.entries(run.base_dir, run.label)
                for name in names:
                    run.storage.unlink(name)
                if names:
                    run.storage.sync_directory(run.base_dir / layout.BY_NAME)
            _remove_run(run.storage, trash)
        except OSError as error:
            raise _not_deleted(run, error) from error
    return size


def refuse_needed(run: RunDirectory) -> None:
    """``RunError`` where other runs stand on a checkpoint of ``run``, a base training."""
    labels = sorted({label for labels in base_runs.dependents(run).values() for label in labels})
    if labels:
        raise RunError(
            f"{run.label} is the base of {', '.join(labels)}",
            hint=f"delete {'that' if len(labels) == 1 else 'those'} first, or keep it",
        )


def _remove_run(storage: Storage, trash: Path) -> None:
    """Delete what was a run; its lock goes last, so that no other process takes it for abandoned."""
    if inspection.is_real_directory(trash):
        for name in sorted(os.listdir(trash), key=lambda name: (name == layout.LOCK, name)):
            storage.remove_tree(trash / name)
    storage.remove_tree(trash)


def _not_deleted(run: RunDirectory, error: OSError) -> ResourceError:
    reason = error.strerror or str(error)
    if os.path.lexists(run.path):
        return ResourceError(
            f"{run.path} could not be deleted: {reason}",
            hint="all of it is still there; check the permissions and the disk, then try again",
        )
    return ResourceError(
        f"{run.label} is no longer listed, but some of it is still on the disk: {reason}",
        hint="`pitstop prune` removes the rest once the disk lets it",
    )


def left_of_deletion(base_dir: Path, ref: str) -> bool:
    """Whether ``ref`` means a run whose deletion died on the way; ``prune_deleted`` finishes it."""
    base = Path(os.path.abspath(base_dir))  # noqa: PTH100 - keeps links as the user named them
    reference = layout.parse_run_ref(ref)
    if reference.name is not None:
        places = (base, base / layout.BASE_TRAINING)
        trash = [path for place in places for path in _named(place, (f"{TRASH_PREFIX}run_",))]
        names = {metadata.read_head(str(path)).name for path in trash}  # as far as their metadata can still be read
        return base / layout.BY_NAME / reference.name in name_links.dangling(base) or reference.name in names
    run = base / reference.group / layout.run_directory_name(reference.number or 0) if reference.path is None else reference.path
    label = f"{run.parent.name}/{run.name}" if run.parent.name == layout.BASE_TRAINING else run.name
    return bool(_named(run.parent, (f"{TRASH_PREFIX}{run.name}-",)) or name_links.entries(base, label))
