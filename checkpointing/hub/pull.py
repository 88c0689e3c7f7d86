"""Getting a run back from the Hub: fetched by one commit, checked before anything is parsed, there in full or not at all.

What is trusted in which order: ``run/RUN.json`` gives the hash of each manifest and of the files of ``run/``; the manifest those of its
checkpoint; only what has its hash is parsed. All of it lies in ``.tmp-pull-…`` beside the runs until the run is complete, so that
a pull that was cut goes on where it was.
"""

# Abspath keeps links as the user named them, which resolve() does not.
# ruff: noqa: PTH100
from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import inspection, layout, locking
from pitstop.checkpointing.disk.manifest import MAX_BYTES, Manifest, parse_manifest
from pitstop.checkpointing.disk.storage import (
    TEMPORARY_PREFIX,
    FileRecord,
    LocalStorage,
    Storage,
    file_sha256,
    make_directories,
    make_durable,
    read_regular_file,
    saving,
)
from pitstop.checkpointing.hub import remote_check
from pitstop.checkpointing.hub.client import NotThere
from pitstop.checkpointing.hub.remote_check import InvalidRepository
from pitstop.checkpointing.hub.remote_repository import RemoteRepository
from pitstop.checkpointing.runs.base_models import LINKED, BaseModels, read_base_manifest
from pitstop.checkpointing.runs.create import install_run
from pitstop.checkpointing.runs.inventory import BASE_DIRECTORY, INVENTORY, RUN_DIRECTORY, Inventory, RemoteCheckpoint
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.push_records import Arrived, Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store import file_sets, store, vetting
from pitstop.configs.errors import CheckpointError, ResourceError, RunError
from pitstop.configs.shown import human_size

RESERVE_BYTES = 16 * 1024 * 1024
"""Kept free beside the files that are fetched: records, directories, and what the client puts beside a download."""

_TRIES = 2  # a line may garble a file; twice in a row it is the file
_STAGED, _FETCHED = "run", "files"


@dataclass(frozen=True)
class Pulled:
    """The run, its one checkpoint, and the commit that they were taken from. ``base``: the base model came along."""

    run: RunDirectory
    checkpoint: RemoteCheckpoint
    repo: str
    head: str
    base: bool


def pull(
    repository: RemoteRepository,
    base_dir: Path | str,
    which: str = layout.LAST,
    number: int | None = None,
    *,
    storage: Storage | None = None,
) -> Pulled:
    """Make the run in ``repository``, with one checkpoint of it, the next run of ``base_dir`` (or run ``number``).

    ``which`` is ``last``, ``best``, a checkpoint's name in the run or the repository, or its step.

    Raises:
        InvalidRepository: the repository holds something that Pitstop did not write, or lacks something; the message names it.
        HubError: it cannot be reached, or is not there.
        RunError: a run here belongs to the repository already, ``number`` is taken, or another process pulls the same.
        ResourceError: there is no room, or the disk fails.
    """
    disk = storage or LocalStorage()
    base = Path(os.path.abspath(base_dir))
    _refuse_known(base, repository.repo)
    repository.look()
    remote_check.check_tree(repository.files)
    staging = base / f"{TEMPORARY_PREFIX}pull-{repository.repo.replace('/', '--')}-{repository.head[:12]}"
    with saving(staging):
        make_directories(disk, staging)
    with locking.exclusive(staging / layout.LOCK, f"the pull of {repository.repo}"):
        try:
            with saving(staging):
                pulled = _Pull(repository, base, staging, which, disk).into_run(number)
        except InvalidRepository:  # there is nothing to go on with
            _remove(disk, staging)
            raise
        _remove(disk, staging)
    return pulled


def _remove(disk: Storage, staging: Path) -> None:
    """What cannot be removed now goes with ``pitstop prune``. The lock goes last."""
    with contextlib.suppress(OSError):
        for path in sorted(staging.iterdir(), key=lambda path: path.name == layout.LOCK):
            disk.remove_tree(path)
        disk.remove_directory(staging)


def _refuse_known(base: Path, repo: str, uid: str | None = None) -> None:
    for record in list_runs(base):
        try:
            arrived = Outbox(Path(record.path)).arrived()
        except CheckpointError:
            continue
        if (arrived.repo or "").lower() == repo.lower() or arrived.uid == uid:
            raise RunError(
                f"{record.run} ({record.name}) is the run of {repo} already",
                hint=f"continue it with `pitstop resume {record.run if '/' in record.run else record.run_number}`, or pull into another directory with --base-dir",
            )


class _Pull:
    """One pull into the directory ``staging``, which this process has locked."""

    def __init__(self, repository: RemoteRepository, base: Path, staging: Path, which: str, disk: Storage) -> None:
        self.repository, self.base, self.staging, self.which, self.disk = repository, base, staging, which, disk
        self.fetched = staging / _FETCHED
        self.group = ""  # of the run, once its settings are known
        self.models = BaseModels(base, disk)

    def into_run(self, number: int | None) -> Pulled:
        """Fetch, check, build, install."""
        inventory = self._inventory()
        paths = {name: self._file(f"{RUN_DIRECTORY}/{name}", record) for name, record in inventory.files.items()}
        content = {name: read_regular_file(path) for name, path in paths.items()}
        config = remote_check.parse_config(content[layout.CONFIG])
        self.group = file_sets.group_of(config)
        if number is not None and os.path.lexists(self.base / self.group / layout.run_directory_name(number)):
            raise RunError(f"run {number} exists in {self.base}", hint="leave --run-number out for the next free number")
        remote_check.check_root(self.repository.files, file_sets.form_of(config))
        metadata = remote_check.parse_metadata(content[layout.METADATA], inventory)
        entry = _choose(inventory, self.which, config, self.repository.repo)
        rows = remote_check.rows_up_to(content.get(layout.METRICS, b""), entry.step)
        self._take_up(entry)
        manifest = self._manifest(entry, file_sets.form_of(config))
        base = self._base_files(inventory, manifest)
        self._fetch(inventory, entry, manifest, base)
        staged = self._build(entry, inventory, content[layout.CONFIG], rows, has_base=bool(base))
        self._vet(staged, entry, config)
        self._record(staged, inventory, config.get("hub") or {})
        metadata["base_model"] = {**metadata["base_model"], "saved": inventory.base is not None}
        run = install_run(
            self.base,
            staged,
            name=inventory.name,
            metadata=metadata,
            number=number,
            check=lambda: _refuse_known(self.base, self.repository.repo, inventory.uid),
            storage=self.disk,
        )
        return Pulled(run, entry, self.repository.repo, self.repository.head, inventory.base is not None)

    def _inventory(self) -> Inventory:
        raw = self._fetch_small(INVENTORY)
        try:
            inventory = Inventory.from_bytes(raw, INVENTORY)
        except CheckpointError as error:
            raise _invalid(INVENTORY, error) from None
        _refuse_known(self.base, self.repository.repo, inventory.uid)
        remote_check.check_places(self.repository.files, inventory)
        return inventory

    def _manifest(self, entry: RemoteCheckpoint, form: file_sets.Form) -> Manifest:
        name = f"{entry.directory}/{layout.MANIFEST}"
        if name not in self.repository.files:
            raise InvalidRepository(name, f"{INVENTORY} lists the checkpoint and it is missing")
        size = self.repository.files[name].size
        if size > MAX_BYTES:
            raise InvalidRepository(name, f"longer than {MAX_BYTES:,} bytes")
        raw = read_regular_file(self._file(name, FileRecord(size, entry.manifest_sha256)))
        try:
            manifest = parse_manifest(raw, name)
        except CheckpointError as error:
            raise _invalid(name, error) from None
        remote_check.check_manifest(manifest, entry, form)
        remote_check.check_listed(self.repository.files, entry.directory, manifest.files, name)
        return manifest

    def _base_files(self, inventory: Inventory, manifest: Manifest) -> dict[str, FileRecord]:
        """The files of the base that are to be fetched: none where it was not pushed, or is here already."""
        name = f"{BASE_DIRECTORY}/{layout.BASE_MANIFEST}"
        if inventory.base is None:
            return {}
        if name not in self.repository.files:
            raise InvalidRepository(name, "it is missing")
        self._fetch_small(name)
        try:
            digest, files = read_base_manifest(self.fetched / BASE_DIRECTORY)
        except CheckpointError as error:
            raise _invalid(name, error) from None
        if not digest == inventory.base == manifest.fingerprints.get("base"):
            raise InvalidRepository(name, "it is not the base that the checkpoint was trained on (its digest differs)")
        remote_check.check_listed(self.repository.files, BASE_DIRECTORY, files, name)
        try:
            self.models.verify(digest)
        except CheckpointError:
            return files
        return {}

    def _fetch(self, inventory: Inventory, entry: RemoteCheckpoint, manifest: Manifest, base: Mapping[str, FileRecord]) -> None:
        parts = {entry.directory: manifest.files, BASE_DIRECTORY: base}
        records = {f"{part}/{name}": record for part, files in parts.items() for name, record in files.items()}
        missing = sum(record.size for name, record in records.items() if not _is(self.fetched / name, record))
        free = self.disk.free_space(self.staging)
        if free < missing + RESERVE_BYTES:
            raise ResourceError(
                f"{self.base}: pulling {self.repository.repo} takes {human_size(missing + RESERVE_BYTES)}, {human_size(free)} are free",
                hint="free some space (pitstop prune --dry-run shows what can go) or choose another disk with --base-dir",
            )
        total = sum(record.size for record in records.values())
        already = f", {human_size(total - missing)} of it here already" if missing < total else ""
        self.repository.tell(
            f"Pulling {inventory.name} from {self.repository.repo} at {self.repository.head[:12]}: {entry.name}, {human_size(total)}{already}"
        )
        for title, part in ((entry.name, entry.directory), ("the base model", BASE_DIRECTORY)):
            for name, record in parts[part].items():
                self._file(f"{part}/{name}", record)
            if parts[part]:
                size = sum(record.size for record in parts[part].values())
                self.repository.tell(f"fetched and verified {title} ({len(parts[part])} files, {human_size(size)})")

    def _file(self, name: str, record: FileRecord) -> Path:
        """A file of the repository with this size and hash; fetched unless it is here. Nothing has parsed it."""
        path = self.fetched / name
        if name in self.repository.files and self.repository.files[name].size != record.size:
            raise InvalidRepository(name, f"it has {self.repository.files[name].size:,} bytes instead of {record.size:,}")
        for _ in range(_TRIES):
            if _is(path, record):
                return path
            self._download(name)
        if _is(path, record):
            return path
        raise InvalidRepository(name, "its content is not what was pushed (its SHA-256 differs)")

    def _fetch_small(self, name: str) -> bytes:
        """The content of a file whose hash nobody tells, fetched anew."""
        if self.repository.files[name].size > MAX_BYTES:
            raise InvalidRepository(name, f"longer than {MAX_BYTES:,} bytes")
        self._download(name)
        try:
            return read_regular_file(self.fetched / name, limit=MAX_BYTES)
        except OSError as error:
            raise InvalidRepository(name, f"it cannot be read ({error.strerror or error})") from error

    def _download(self, name: str) -> None:
        path = self.fetched / name
        if os.path.lexists(path):  # the client would take it for what it has fetched
            self.disk.unlink(path)
        self.repository.download(name, self.fetched)

    def _take_up(self, entry: RemoteCheckpoint) -> None:
        """Put back among the fetched files what a pull that died had begun to build a run of."""
        for old in sorted((self.staging / self.group).glob(f"{_STAGED}*")):
            for source, name in ((layout.weights_directory(old) / entry.name, entry.directory), (old / LINKED, BASE_DIRECTORY)):
                target = self.fetched / name
                if inspection.is_real_directory(source) and not os.path.lexists(target):
                    self.disk.rename(source, target)
            self.disk.remove_tree(old)

    def _build(self, entry: RemoteCheckpoint, inventory: Inventory, config: bytes, rows: bytes, *, has_base: bool) -> Path:
        """All of a run but metadata.json, durably; returns its directory."""
        staged = self.staging / self.group / _STAGED
        make_directories(self.disk, staged.parent)
        weights = layout.weights_directory(staged)
        for directory in (staged, weights, staged / layout.LOGS):
            self.disk.make_directory(directory)
        self.disk.write_file(staged / layout.CONFIG, config)
        self.disk.write_file(staged / layout.LOGS / layout.METRICS, rows)
        self.disk.rename(self.fetched / entry.directory, weights / entry.name)
        if has_base:
            self.disk.rename(self.fetched / BASE_DIRECTORY, staged / LINKED)
        self.disk.sync_directory(self.fetched)
        make_durable(self.disk, staged)
        if inventory.base is not None and not has_base:
            self.models.link_into(staged, inventory.base)
        return staged

    def _vet(self, staged: Path, entry: RemoteCheckpoint, config: Mapping[str, Any]) -> None:
        """The files say what a checkpoint's files say; the resume looks again, with data and model at hand."""
        directory = layout.weights_directory(staged) / entry.name
        try:
            vetting.check_checkpoint(inspection.inspect(directory), config, lambda setting: False)
        except CheckpointError as error:
            raise InvalidRepository(
                entry.directory, error.message.replace(f"{directory}/", "").replace(str(directory), "")
            ) from None

    def _record(self, staged: Path, inventory: Inventory, hub: Mapping[str, Any]) -> None:
        repo, is_private, keep_last_n = self.repository.repo, hub.get("private") is not False, hub.get("keep_last_n")
        outbox = Outbox(staged, self.disk)
        outbox.record(Arrived(repo=repo, head=self.repository.head).holding(inventory))
        outbox.open(Destination(repo, is_private, keep_last_n, push_base=inventory.base is not None))
        self.disk.sync_directory(staged)


def _choose(inventory: Inventory, which: str, config: Mapping[str, Any], repo: str) -> RemoteCheckpoint:
    """The checkpoint that the user means. ``HubError`` says which there are."""
    entries = sorted(inventory.checkpoints.values(), key=lambda entry: entry.order)
    name = layout.normal_checkpoint(which)
    if name == layout.LAST and entries:
        return entries[-1]
    if name == layout.BEST:
        checkpoint = config.get("training", {}).get("checkpoint", {})
        chosen = store.choose_best(entries, checkpoint.get("monitor") or "val_loss", checkpoint.get("mode") or "min")
        if chosen is not None:
            return chosen[0]
    for label in (lambda entry: entry.name, lambda entry: entry.directory, lambda entry: str(entry.step)):
        for entry in entries:
            if label(entry) == name:
                return entry
    names = ", ".join(entry.name for entry in entries) or "none yet"
    raise NotThere(f"{repo} has no checkpoint '{which}'", hint=f"there: {names}")


def _invalid(name: str, error: CheckpointError) -> InvalidRepository:
    return InvalidRepository(name, error.message.removeprefix(f"{name}: "), hint=error.hint)


def _is(path: Path, record: FileRecord) -> bool:
    """Whether ``path`` is a regular file of this size and hash."""
    try:
        return path.lstat().st_size == record.size and file_sha256(path) == record.sha256
    except OSError:
        return False
