"""The checkpoints of one run: commit, list, verify, prune, recover.

One process writes at a time (it holds the run's lock); any number may read meanwhile. A checkpoint exists from the moment
its directory has its final name and the parent directory is synced; before that there is only a ``.tmp-`` directory that
no reader looks at. See docs/checkpoints.md for the protocol and what it survives.
"""

# Listdir, because names are what is looked at.
# ruff: noqa: PTH208
from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pitstop.checkpointing.disk import inspection, layout, pointers, storage
from pitstop.checkpointing.disk.inspection import CheckpointInfo, DamagedError
from pitstop.checkpointing.disk.manifest import Manifest, check_file_names, finite_metrics
from pitstop.checkpointing.disk.storage import FileContent, FileRecord, LocalStorage, Storage
from pitstop.configs.errors import CheckpointError

__all__ = ["CheckpointFacts", "CheckpointInfo", "CheckpointStore", "DamagedError", "RecoveryReport", "ScannedCheckpoint"]

MANIFEST_RESERVE = 64 * 1024
"""Bytes kept free beside the files themselves, for the manifest and directory entries."""

BEST_REASONS = frozenset({layout.BEST, f"{layout.BEST} pointer"})
"""Why ``pins`` keeps a checkpoint that is only kept for being the best."""

# Inside the class ``list`` is a method, so that its annotations need other words.
Infos = list[CheckpointInfo]
Names = list[str]
Reasons = dict[str, list[str]]
Paths = list[Path]

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ScannedCheckpoint:
    """One name among the checkpoints: ``info`` when it is whole, else ``problem`` says why it is not."""

    name: str
    info: CheckpointInfo | None
    problem: str | None


Scan = list[ScannedCheckpoint]


@dataclass(frozen=True)
class CheckpointFacts:
    """What a manifest says of a checkpoint beside its files.

    ``epoch`` in passes over the data; ``world_size``: how many processes saved it; ``fingerprints`` of data and base;
    ``versions`` of the libraries; ``saved_at`` without an offset is local time.
    """

    step: int
    epoch: float
    metrics: Mapping[str, float | None]
    world_size: int
    fingerprints: Mapping[str, str]
    versions: Mapping[str, str]
    saved_at: datetime


@dataclass(frozen=True)
class RecoveryReport:
    """What opening a run found: the newest valid checkpoint, what was set aside and why, which leftovers were dropped."""

    valid: CheckpointInfo | None
    quarantined: list[tuple[str, str]] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)
    repaired: list[str] = field(default_factory=list)

    def checkpoint(self) -> CheckpointInfo:
        """The newest valid checkpoint; ``CheckpointError`` that names what was tried when there is none."""
        if self.valid is not None:
            return self.valid
        if not self.quarantined:
            raise CheckpointError("the run has no checkpoint yet", hint="start it again with `pitstop train`")
        tried = "\n".join(f"  {name}: {reason}" for name, reason in self.quarantined)
        raise CheckpointError(
            f"none of the run's checkpoints is valid:\n{tried}",
            hint=f"nothing was deleted: they are in the directory {layout.DAMAGED}",
        )


class CheckpointStore:
    """The checkpoints in ``directory``.

    ``monitor`` and ``mode`` (``min`` or ``max``) say which checkpoint is best; where no checkpoint has that metric, the
    smallest ``train_loss`` is. Equal values: the earlier step.
    """

    def __init__(self, directory: Path, storage: Storage | None = None, *, monitor: str = "val_loss", mode: str = "min") -> None:
        self.directory = Path(directory)
        self.monitor = monitor
        self.mode = mode
        self._storage: Storage = storage or LocalStorage()

    def write(self, name: str, files: Mapping[str, FileContent], facts: CheckpointFacts) -> CheckpointInfo:
        """Commit a checkpoint; once this returns, it survives a crash and a power loss.

        ``files`` maps names (``/`` between directories) to what they hold. ``ResourceError`` when the disk fails or is
        full, ``CheckpointError`` when the name is taken or cannot be used: either way nothing is left of the attempt and
        no older checkpoint was touched.
        """
        self._check_new(name, files)
        final = self.directory / name
        temporary = storage.temporary_name(final)
        try:
            storage.make_directories(self._storage, self.directory)
            self._check_space(files)
            records = self._write_files(temporary, files)
            manifest = Manifest(
                name=name,
                step=int(facts.step),
                epoch=float(facts.epoch),
                metrics=finite_metrics(facts.metrics),
                saved_at=facts.saved_at if facts.saved_at.tzinfo is not None else facts.saved_at.astimezone(),
                world_size=int(facts.world_size),
                files=records,
                fingerprints=dict(facts.fingerprints),
                versions=dict(facts.versions),
            )
            self._storage.write_file(temporary / layout.MANIFEST, manifest.to_bytes())
            self._storage.sync_directory(temporary)
            self._commit(temporary, final)
        except BaseException as error:
            self._discard(temporary)
            if isinstance(error, OSError):
                raise storage.failed_save(final, error) from error
            raise
        return CheckpointInfo.of(final, manifest)

    def _check_new(self, name: str, files: Mapping[str, FileContent]) -> None:
        if not layout.is_checkpoint_name(name):
            raise CheckpointError(f"'{name}' is not a checkpoint name; write epoch_003 or checkpoint-100")
        check_file_names(files)
        if os.path.lexists(self.directory / name):
            raise CheckpointError(
                f"{self.directory / name} exists; a checkpoint is never overwritten", hint="resume from it, or move it away"
            )

    def _check_space(self, files: Mapping[str, FileContent]) -> None:
        sizes = [memoryview(data).nbytes for data in files.values() if isinstance(data, (bytes, bytearray, memoryview))]
        needed = sum(sizes) + MANIFEST_RESERVE
        free = self._storage.free_space(self.directory)
        if free < needed:
            raise OSError(errno.ENOSPC, f"it needs {needed:,} bytes, {free:,} are free")

    def _write_files(self, temporary: Path, files: Mapping[str, FileContent]) -> dict[str, FileRecord]:
        self._storage.make_directory(temporary)
        subdirectories = sorted({parent for name in files for parent in Path(name).parents if parent != Path()})
        for directory in subdirectories:  # sorted: a parent comes before what is in it
            self._storage.make_directory(temporary / directory)
        records = {name: self._storage.write_file(temporary / name, content) for name, content in files.items()}
        for directory in reversed(subdirectories):
            self._storage.sync_directory(temporary / directory)
        return records

    def _commit(self, temporary: Path, final: Path) -> None:
        self._storage.rename(temporary, final)
        try:
            self._storage.sync_directory(self.directory)
        except OSError:
            # Nobody knows what of the directory reached the medium, and syncing again would say nothing about that.
            self._discard(final)
            raise

    def _discard(self, path: Path) -> bool:
        """Rename away and delete; what cannot be deleted now goes when the run is next opened. True once it is gone."""
        if not os.path.lexists(path):
            return True
        try:
            if not path.name.startswith(storage.LEFTOVERS):
                path = self._to_trash(path)
            self._storage.remove_tree(path)
        except OSError as error:
            _log.warning("%s could not be removed (%s); it goes when the run is next opened", path, error)
            return False
        return True

    def _to_trash(self, path: Path) -> Path:
        return storage.to_trash(self._storage, path)

    def scan(self) -> Scan:
        """Every checkpoint, whole ones and damaged ones, in no particular order; files are not hashed."""
        return [entry for name in self.names() if (entry := self._look_at(name)) is not None]

    def names(self) -> Names:
        """The names of all checkpoints, whole and damaged ones, sorted."""
        try:
            return sorted(name for name in os.listdir(self.directory) if layout.is_checkpoint_name(name))
        except FileNotFoundError:
            return []

    def _look_at(self, name: str, read: Callable[[Path], CheckpointInfo] = inspection.inspect) -> ScannedCheckpoint | None:
        try:
            return ScannedCheckpoint(name, read(self.directory / name), None)
        except DamagedError as error:
            if not os.path.lexists(self.directory / name):
                return None  # moved away by retention since the names were read
            return ScannedCheckpoint(name, None, error.message)

    def list(self) -> Infos:
        """The whole checkpoints, ascending by step; damaged ones are left out. ``NewerFormatError``."""
        return sorted((entry.info for entry in self.scan() if entry.info is not None), key=lambda info: info.order)

    def best(self, infos: Infos | None = None) -> CheckpointInfo | None:
        """The best checkpoint (of ``infos``, if they are listed already) by the monitored metric; where none has one, what ``best`` points at."""
        infos = self.list() if infos is None else infos
        chosen = choose_best(infos, self.monitor, self.mode)
        if chosen is not None:
            return chosen[0]
        pointed = pointers.read_pointer(self.directory / layout.BEST)
        return next((info for info in infos if info.name == pointed), None)

    def resolve(self, which: str) -> CheckpointInfo:
        """The checkpoint that ``last``, ``best`` or a name means, unhashed. ``CheckpointError`` says what there is instead."""
        name = layout.normal_checkpoint(which)
        infos = self.list()
        if name == layout.LAST and infos:
            return infos[-1]
        if name == layout.BEST and (best := self.best(infos)) is not None:
            return best
        for info in infos:
            if info.name == name:
                return info
        raise self._not_found(which, name, infos)

    def _not_found(self, which: str, name: str, infos: Infos) -> CheckpointError:
        names = ", ".join(info.name for info in infos) or "none"
        if layout.is_checkpoint_name(name) and (entry := self._look_at(name)) is not None and entry.problem:
            return CheckpointError(f"checkpoint '{which}' cannot be used: {entry.problem}", hint=f"whole ones: {names}")
        reason = " (no checkpoint has a metric to go by)" if name == layout.BEST and infos else ""
        return CheckpointError(f"checkpoint '{which}' not found in {self.directory}{reason}", hint=f"there: {names}")

    def verify(self, name: str) -> CheckpointInfo:
        """Hash every file of a checkpoint again; ``CheckpointError`` names missing, extra and changed files."""
        return inspection.verify(self.directory / self.resolve_name(name))

    def resolve_name(self, which: str) -> str:
        """The directory name of a checkpoint given by any of its names, damaged or not."""
        name = layout.normal_checkpoint(which)
        if layout.is_checkpoint_name(name) and os.path.lexists(self.directory / name):
            return name
        return self.resolve(which).name

    def verify_all(self) -> Scan:
        """Hash every checkpoint again; sorted by name."""
        return [entry for name in self.names() if (entry := self._look_at(name, inspection.verify)) is not None]

    def set_pointer(self, which: str, name: str) -> None:
        """Let ``last`` or ``best`` point at the committed checkpoint ``name``. ``CheckpointError``, ``ResourceError``."""
        if which not in layout.POINTERS:
            raise CheckpointError(f"'{which}' is not a pointer; the pointers are {' and '.join(layout.POINTERS)}")
        if not inspection.is_real_directory(self.directory / name) or not layout.is_checkpoint_name(name):
            raise CheckpointError(f"'{which}' cannot point at '{name}': there is no such checkpoint in {self.directory}")
        path = self.directory / which
        with storage.saving(path):
            if inspection.is_real_directory(path):  # copied here by a tool that resolves links
                self._set_aside(which, layout.DAMAGED)
            pointers.write_pointer(self._storage, path, name)

    def pointer(self, which: str) -> str | None:
        """The name that the pointer holds; None when it is missing or holds no checkpoint's name."""
        return pointers.read_pointer(self.directory / which)

    def repair_pointers(self) -> Names:
        """Make ``last`` and ``best`` say what the manifests say; the pointers that had to change."""
        return [which for which, name in self.expected_pointers(self.list()).items() if self._repair_pointer(which, name)]

    def expected_pointers(self, infos: Infos) -> dict[str, str | None]:
        """Where ``last`` and ``best`` should point by the manifests; None where there is nothing to point at."""
        best = self.best(infos)
        return {layout.LAST: infos[-1].name if infos else None, layout.BEST: best.name if best else None}

    def _repair_pointer(self, which: str, name: str | None) -> bool:
        path = self.directory / which
        if name is None:
            if not os.path.lexists(path):
                return False
            self._set_aside(which, layout.DAMAGED)
            return True
        if self.pointer(which) == name:
            return False
        self.set_pointer(which, name)
        return True

    def pins(self, infos: Infos) -> Reasons:
        """Those of ``infos`` that retention never deletes, each with the reasons.

        ``best`` and ``last``, and ``best pointer`` or ``last pointer`` where that still leads to another one.
        """
        reasons: Reasons = {info.name: [] for info in infos}
        targets = self.expected_pointers(infos)
        for which in (layout.BEST, layout.LAST):
            if (name := targets[which]) is not None:
                reasons[name].append(which)
        for which in layout.POINTERS:
            pointed = self.pointer(which)
            if pointed in reasons and pointed != targets[which]:
                reasons[pointed].append(f"{which} pointer")
        return {name: entries for name, entries in reasons.items() if entries}

    def prune(
        self, keep_last_n: int | None, protect: set[str] | frozenset[str] = frozenset(), *, keep_best: bool = True
    ) -> Names:
        """Delete all but the newest ``keep_last_n`` checkpoints, the best one and those in ``protect``.

        Only whole checkpoints count, and only they are deleted. None keeps everything. Without ``keep_best`` the best one
        goes when its time has come, like any other. A checkpoint leaves the listing in one step before its files go, so a
        crash in between leaves no half of it. Returns the names, oldest first.
        """
        going = self.expendable(keep_last_n, protect, keep_best=keep_best)
        return [info.name for info in going if self._remove(info.path)]

    def expendable(
        self, keep_last_n: int | None, protect: set[str] | frozenset[str] = frozenset(), *, keep_best: bool = True
    ) -> Infos:
        """What ``prune`` deletes, oldest first."""
        if keep_last_n is None:
            return []
        if keep_last_n < 1:
            raise CheckpointError(f"keep_last_n is {keep_last_n}; at least one checkpoint is always kept")
        infos = self.list()
        pinned = {name for name, reasons in self.pins(infos).items() if keep_best or not {*reasons} <= BEST_REASONS}
        retained = {info.name for info in infos[-keep_last_n:]} | pinned | protect
        return [info for info in infos if info.name not in retained]

    def _remove(self, path: Path) -> bool:
        """Whether the checkpoint left the listing; one that refuses to go must not stop the others, or the training."""
        try:
            trash = self._to_trash(path)
        except OSError as error:
            _log.warning("%s could not be removed (%s)", path, error)
            return False
        self._discard(trash)
        return True

    def supersede(self, after_step: int, and_at_it: str | None = None) -> Names:
        """Move checkpoints beyond ``after_step`` into ``.superseded``: resuming from an older one starts another line.

        ``and_at_it`` names the checkpoint of that step that is resumed from, when others of the same step are to go too.
        Nothing is deleted. Newest first, so a crash on the way leaves the older line without a gap. Damaged ones, whose
        step nobody knows, are set aside too. Returns the names moved.
        """
        moved = [self._quarantine(entry.name, entry.problem)[0] for entry in self.scan() if entry.problem is not None]
        for info in reversed(self.list()):
            is_twin = and_at_it is not None and info.step == after_step and info.name != and_at_it
            if info.step > after_step or is_twin:
                self._set_aside(info.name, layout.SUPERSEDED)
                moved.append(info.name)
        if moved:
            self.repair_pointers()
        return moved

    def recover(self, *, deep: bool = False) -> RecoveryReport:
        """Bring the directory to a clean state; needs the run's lock. Safe to repeat, after a crash in itself too.

        Leftovers of writing and deleting are dropped. Checkpoints are verified from the newest down to the first valid one
        (``deep``: all of them); damaged ones go to ``.damaged`` and stay there. Pointers are repaired. ``NewerFormatError``
        when a checkpoint was written by a newer Pitstop, before anything is changed.
        """
        entries = self.scan()
        leftovers = sorted(path.name for path in self.directory.glob("*") if path.name.startswith(storage.LEFTOVERS))
        dropped = [name for name in leftovers if self._discard(self.directory / name)]
        quarantined = [self._quarantine(entry.name, entry.problem) for entry in entries if entry.problem is not None]
        valid: CheckpointInfo | None = None
        for info in sorted((entry.info for entry in entries if entry.info), key=lambda info: info.order, reverse=True):
            if valid is not None and not deep:
                break
            checked = self._look_at(info.name, inspection.verify)
            if checked is None:
                continue
            if checked.problem is not None:
                quarantined.append(self._quarantine(info.name, checked.problem))
            elif valid is None:
                valid = checked.info
        return RecoveryReport(valid, quarantined, dropped, self.repair_pointers())

    def _quarantine(self, name: str, reason: str) -> tuple[str, str]:
        # The reason first: a crash between the two must not leave something set aside that nobody can explain.
        target = self._free_place(name, layout.DAMAGED)
        note = target.with_name(f"{target.name}.reason.txt")
        with storage.saving(note):
            storage.make_directories(self._storage, note.parent)
            storage.atomic_write(self._storage, note, f"{reason}\n".encode(errors="backslashreplace"))
        self._set_aside(name, layout.DAMAGED)
        return (name, reason)

    def _set_aside(self, name: str, folder: str) -> Path:
        """Move ``name`` into the directory ``folder``, under a free name there."""
        target = self._free_place(name, folder)
        with storage.saving(self.directory / name):
            storage.make_directories(self._storage, target.parent)
            self._storage.rename(self.directory / name, target)
            self._storage.sync_directory(target.parent)
            self._storage.sync_directory(self.directory)
        return target

    def _free_place(self, name: str, folder: str) -> Path:
        target = storage.free_name(self.directory / folder / name)
        if os.path.lexists(target.parent) and not inspection.is_real_directory(target.parent):
            raise CheckpointError(
                f"{target.parent} is not a directory of its own, so {name} cannot be set aside there", hint="move it away"
            )
        return target

    def set_aside(self, folder: str) -> Paths:
        """What lies in ``.damaged`` or ``.superseded``, sorted by name."""
        directory = self.directory / folder
        if not inspection.is_real_directory(directory):
            return []
        return sorted(path for path in directory.iterdir() if inspection.is_real_directory(path))


class Judged(Protocol):
    """What ``choose_best`` looks at."""

    @property
    def metrics(self) -> Mapping[str, float | None]: ...

    @property
    def order(self) -> Any: ...


Candidate = TypeVar("Candidate", bound=Judged)


def choose_best(infos: Sequence[Candidate], monitor: str, mode: str) -> tuple[Candidate, str, str] | None:
    """The best checkpoint with the metric and mode that it was chosen by; None when no checkpoint has a metric."""
    for metric, direction in ((monitor, mode), ("train_loss", "min")):
        values = [(info, value) for info in infos if (value := info.metrics.get(metric)) is not None]
        if values:
            sign = 1.0 if direction == "min" else -1.0
            return min(values, key=lambda pair: (sign * pair[1], pair[0].order))[0], metric, direction
    return None
