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
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from pitstop.checkpointing.disk import inspection, layout, locking
from pitstop.checkpointing.disk.manifest import MAX_BYTES, Manifest, parse_manifest
from pitstop.checkpointing.disk.storage import (
    DIRECTORY_MODE,
    FILE_MODE,
    TEMPORARY_PREFIX,
    FileRecord,
    LocalStorage,
    Storage,
    failed_save,
    file_sha256,
    make_directories,
    read_regular_file,
)
from pitstop.checkpointing.hub import remote_check
from pitstop.checkpointing.hub.client import NotThere, Offline, RemoteFile, Unavailable
from pitstop.checkpointing.hub.remote_check import Unfit
from pitstop.checkpointing.runs.base_models import LINKED, BaseModels, read_base_manifest
from pitstop.checkpointing.runs.inventory import BASE_DIRECTORY, INVENTORY, RUN_DIRECTORY, Entry, Inventory, parse_inventory
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.push_records import Arrived, Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory, install_run
from pitstop.checkpointing.store import file_sets, vetting
from pitstop.checkpointing.store.store import choose_best
from pitstop.configs.errors import CheckpointError, HubError, ResourceError, RunError, is_disk_full
from pitstop.configs.shown import human_size

RESERVE_BYTES = 16 * 1024 * 1024
"""Kept free beside the files that are fetched: records, directories, and what the client puts beside a download."""

_REPO = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/)?[A-Za-z0-9_][A-Za-z0-9_.-]{0,95}")
_TRIES = 2  # a line may garble a file; twice in a row it is the file
_STAGED, _FETCHED = "run", "files"

Tell = Callable[[str], object]
"""Is told, in one line each, what goes on."""

Result = TypeVar("Result")


class Reader(Protocol):
    """What of ``HubClient`` a pull needs."""

    def head(self, repo: str, revision: str = "main") -> str: ...

    def files(self, repo: str, commit: str) -> dict[str, RemoteFile]: ...

    def download(self, repo: str, path: str, commit: str, directory: Path) -> Path: ...


@dataclass(frozen=True)
class Patience:
    """How long a Hub that fails is waited for, in seconds: at first, at most between two tries, and in all for one thing."""

    first_s: float = 2.0
    longest_s: float = 30.0
    total_s: float = 180.0
    sleep: Callable[[float], object] = field(default=time.sleep)


@dataclass(frozen=True)
class Pulled:
    """The run, its one checkpoint, and the commit that they were taken from. ``base``: the base model came along."""

    run: RunDirectory
    checkpoint: Entry
    repo: str
    head: str
    base: bool


def split_reference(text: str) -> tuple[str, str | None]:
    """``owner/name@checkpoint-200`` as repository and checkpoint. ``HubError`` where it is no repository id."""
    repo, at, checkpoint = text.strip().partition("@")
    if not _REPO.fullmatch(repo) or (at and not checkpoint):
        raise HubError(
            f"{text!r:.200} names no repository", hint="it reads owner/name, perhaps with a checkpoint: owner/name@checkpoint-200"
        )
    return repo, checkpoint or None


def pull(
    client: Reader,
    repo: str,
    base_dir: Path | str,
    which: str = layout.LAST,
    number: int | None = None,
    *,
    tell: Tell = lambda line: None,
    patience: Patience | None = None,
    storage: Storage | None = None,
) -> Pulled:
    """Make the run in ``repo``, with one checkpoint of it, the next run of ``base_dir`` (or run ``number``).

    ``which`` is ``last``, ``best``, a checkpoint's name in the run or the repository, or its step.

    Raises:
        Unfit: the repository holds something that Pitstop did not write, or lacks something; the message names it.
        HubError: it cannot be reached, or is not there.
        RunError: a run here belongs to the repository already, ``number`` is taken, or another process pulls the same.
        ResourceError: there is no room, or the disk fails.
    """
    split_reference(repo)
    disk = storage or LocalStorage()
    base = Path(os.path.abspath(base_dir))
    _refuse_known(base, repo)
    hub = _Hub(client, repo, patience or Patience(), tell)
    hub.look()
    remote_check.check_tree(hub.files)
    staging = base / f"{TEMPORARY_PREFIX}pull-{repo.replace('/', '--')}-{hub.head[:12]}"
    try:
        make_directories(disk, staging)
    except OSError as error:
        raise failed_save(staging, error) from error
    with locking.exclusive(staging / layout.LOCK, f"the pull of {repo}"):
        try:
            pulled = _Pull(hub, base, staging, which, disk, tell).into_run(number)
        except Unfit:  # there is nothing to go on with
            _remove(disk, staging)
            raise
        except OSError as error:
            raise failed_save(staging, error) from error
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


class _Hub:
    """One repository at one commit, with patience."""

    def __init__(self, client: Reader, repo: str, patience: Patience, tell: Tell) -> None:
        self.repo = repo
        self.head = ""
        self.files: Mapping[str, RemoteFile] = {}
        self._client, self._patience, self._tell = client, patience, tell

    def look(self) -> None:
        """See where the repository stands and what it holds there. Everything after goes by that commit."""
        self.head = self._patiently(lambda: self._client.head(self.repo))
        self.files = self._patiently(lambda: self._client.files(self.repo, self.head))

    def download(self, name: str, directory: Path) -> None:
        """Fetch one file into ``directory`` under its name in the repository."""
        self._patiently(lambda: self._client.download(self.repo, name, self.head, directory))

    def _patiently(self, call: Callable[[], Result]) -> Result:
        started, waited, pause = time.monotonic(), 0.0, self._patience.first_s
        while True:
            try:
                return call()
            except Offline as error:
                raise HubError(f"{self.repo} cannot be pulled: {error.reason}", hint="unset it to use the Hub") from error
            except Unavailable as error:
                if error.__cause__ is not None and is_disk_full(error.__cause__):
                    raise ResourceError(
                        f"{self.repo} cannot be pulled: the disk is full ({error.reason})",
                        hint="free some space; what was fetched is kept, and the same command goes on from there",
                    ) from error
                wait = max(pause, error.wait_s or 0.0)
                if max(waited, time.monotonic() - started) + wait > self._patience.total_s:
                    raise HubError(
                        f"{self.repo} cannot be pulled: {error.reason}",
                        hint="check the connection; what was fetched is kept, and the same command goes on from there",
                    ) from error
                self._tell(f"the Hub fails ({error.reason}); next try in {wait:.0f} s")
                self._patience.sleep(wait)
                waited += wait
                pause = min(2 * pause, self._patience.longest_s)


class _Pull:
    """One pull into the directory ``staging``, which this process has locked."""

    def __init__(self, hub: _Hub, base: Path, staging: Path, which: str, disk: Storage, tell: Tell) -> None:
        self.hub, self.base, self.staging, self.which, self.disk, self.tell = hub, base, staging, which, disk, tell
        self.fetched = staging / _FETCHED
        self.group = ""  # of the run, once its settings are known
        self.models = BaseModels(base, disk)

    def into_run(self, number: int | None) -> Pulled:
        """Fetch, check, build, install."""
        inventory = self._inventory()
        content = self._run_files(inventory)
        config = remote_check.parse_config(content[layout.CONFIG])
        self.group = file_sets.group_of(config)
        self._refuse_taken(number)
        remote_check.check_root(self.hub.files, file_sets.form_of(config))
        metadata = remote_check.parse_metadata(content[layout.METADATA], inventory)
        entry = _choose(inventory, self.which, config, self.hub.repo)
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
            check=lambda: _refuse_known(self.base, self.hub.repo, inventory.uid),
            storage=self.disk,
        )
        return Pulled(run, entry, self.hub.repo, self.hub.head, inventory.base is not None)

    # What the repository says

    def _inventory(self) -> Inventory:
        raw = self._fetch_small(INVENTORY)
        try:
            inventory = parse_inventory(raw, INVENTORY)
        except CheckpointError as error:
            raise _unfit(INVENTORY, error) from None
        _refuse_known(self.base, self.hub.repo, inventory.uid)
        remote_check.check_places(self.hub.files, inventory)
        return inventory

    def _run_files(self, inventory: Inventory) -> dict[str, bytes]:
        paths = {name: self._file(f"{RUN_DIRECTORY}/{name}", record) for name, record in inventory.files.items()}
        return {name: read_regular_file(path) for name, path in paths.items()}

    def _refuse_taken(self, number: int | None) -> None:
        if number is not None and os.path.lexists(self.base / self.group / layout.run_directory_name(number)):
            raise RunError(f"run {number} exists in {self.base}", hint="leave --run-number out for the next free number")

    def _manifest(self, entry: Entry, form: file_sets.Form) -> Manifest:
        name = f"{entry.directory}/{layout.MANIFEST}"
        if name not in self.hub.files:
            raise Unfit(name, f"{INVENTORY} lists the checkpoint and it is missing")
        size = self.hub.files[name].size
        if size > MAX_BYTES:
            raise Unfit(name, f"longer than {MAX_BYTES:,} bytes")
        raw = read_regular_file(self._file(name, FileRecord(size, entry.manifest_sha256)))
        try:
            manifest = parse_manifest(raw, name)
        except CheckpointError as error:
            raise _unfit(name, error) from None
        remote_check.check_manifest(manifest, entry, form)
        remote_check.check_listed(self.hub.files, entry.directory, manifest.files, name)
        return manifest

    def _base_files(self, inventory: Inventory, manifest: Manifest) -> dict[str, FileRecord]:
        """The files of the base that are to be fetched: none where it was not pushed, or is here already."""
        name = f"{BASE_DIRECTORY}/{layout.BASE_MANIFEST}"
        if inventory.base is None:
            return {}
        if name not in self.hub.files:
            raise Unfit(name, "it is missing")
        self._fetch_small(name)
        try:
            digest, files = read_base_manifest(self.fetched / BASE_DIRECTORY)
        except CheckpointError as error:
            raise _unfit(name, error) from None
        if not digest == inventory.base == manifest.fingerprints.get("base"):
            raise Unfit(name, "it is not the base that the checkpoint was trained on (its digest differs)")
        remote_check.check_listed(self.hub.files, BASE_DIRECTORY, files, name)
        return {} if self._is_here(digest) else files

    def _is_here(self, digest: str) -> bool:
        try:
            self.models.verify(digest)
        except CheckpointError:
            return False
        return True

    # Fetching

    def _fetch(self, inventory: Inventory, entry: Entry, manifest: Manifest, base: Mapping[str, FileRecord]) -> None:
        parts = {entry.directory: manifest.files, BASE_DIRECTORY: base}
        wanted = {f"{part}/{name}": record for part, files in parts.items() for name, record in files.items()}
        missing = sum(record.size for name, record in wanted.items() if not _is(self.fetched / name, record))
        self._check_room(missing)
        total = sum(record.size for record in wanted.values())
        already = f", {human_size(total - missing)} of it here already" if missing < total else ""
        self.tell(
            f"Pulling {inventory.name} from {self.hub.repo} at {self.hub.head[:12]}: {entry.name}, {human_size(total)}{already}"
        )
        for what, part in ((entry.name, entry.directory), ("the base model", BASE_DIRECTORY)):
            for name, record in parts[part].items():
                self._file(f"{part}/{name}", record)
            if parts[part]:
                size = sum(record.size for record in parts[part].values())
                self.tell(f"fetched and verified {what} ({len(parts[part])} files, {human_size(size)})")

    def _check_room(self, needed: int) -> None:
        free = self.disk.free_space(self.staging)
        if free < needed + RESERVE_BYTES:
            raise ResourceError(
                f"{self.base}: pulling {self.hub.repo} takes {human_size(needed + RESERVE_BYTES)}, {human_size(free)} are free",
                hint="free some space (pitstop prune --dry-run shows what can go) or choose another disk with --base-dir",
            )

    def _file(self, name: str, record: FileRecord) -> Path:
        """A file of the repository with this size and hash; fetched unless it is here. Nothing has parsed it."""
        path = self.fetched / name
        if name in self.hub.files and self.hub.files[name].size != record.size:
            raise Unfit(name, f"it has {self.hub.files[name].size:,} bytes instead of {record.size:,}")
        for _ in range(_TRIES):
            if _is(path, record):
                return path
            self._download(name)
        if _is(path, record):
            return path
        raise Unfit(name, "its content is not what was pushed (its SHA-256 differs)")

    def _fetch_small(self, name: str) -> bytes:
        """The content of a file whose hash nobody tells, fetched anew."""
        if self.hub.files[name].size > MAX_BYTES:
            raise Unfit(name, f"longer than {MAX_BYTES:,} bytes")
        self._download(name)
        try:
            return read_regular_file(self.fetched / name, limit=MAX_BYTES)
        except OSError as error:
            raise Unfit(name, f"it cannot be read ({error.strerror or error})") from error

    def _download(self, name: str) -> None:
        path = self.fetched / name
        if os.path.lexists(path):  # the client would take it for what it has fetched
            self.disk.unlink(path)
        self.hub.download(name, self.fetched)

    # Building

    def _take_up(self, entry: Entry) -> None:
        """Put back among the fetched files what a pull that died had begun to build a run of."""
        for old in sorted((self.staging / self.group).glob(f"{_STAGED}*")):
            for there, here in ((layout.weights_directory(old) / entry.name, entry.directory), (old / LINKED, BASE_DIRECTORY)):
                target = self.fetched / here
                if inspection.is_real_directory(there) and not os.path.lexists(target):
                    self.disk.rename(there, target)
            self.disk.remove_tree(old)

    def _build(self, entry: Entry, inventory: Inventory, config: bytes, rows: bytes, *, has_base: bool) -> Path:
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
        _make_durable(self.disk, staged)
        if inventory.base is not None and not has_base:
            self.models.link_into(staged, inventory.base)
        return staged

    def _vet(self, staged: Path, entry: Entry, config: Mapping[str, Any]) -> None:
        """The files say what a checkpoint's files say; the resume looks again, with data and model at hand."""
        directory = layout.weights_directory(staged) / entry.name
        try:
            vetting.check_checkpoint(inspection.inspect(directory), config, lambda setting: False)
        except CheckpointError as error:
            raise Unfit(entry.directory, error.message.replace(f"{directory}/", "").replace(str(directory), "")) from None

    def _record(self, staged: Path, inventory: Inventory, hub: Mapping[str, Any]) -> None:
        pushed = {directory: entry.to_dict() for directory, entry in inventory.checkpoints.items()}
        outbox = Outbox(staged, self.disk)
        outbox.record(
            Arrived(
                uid=inventory.uid,
                repo=self.hub.repo,
                head=self.hub.head,
                pushed=pushed,
                root=inventory.root,
                base=inventory.base,
                finished=inventory.finished,
            )
        )
        outbox.open(
            Destination(
                repo=self.hub.repo,
                private=hub.get("private") is not False,
                keep_last_n=hub.get("keep_last_n"),
                push_base=inventory.base is not None,
            )
        )
        self.disk.sync_directory(staged)


def _choose(inventory: Inventory, which: str, config: Mapping[str, Any], repo: str) -> Entry:
    """The checkpoint that the user means. ``HubError`` says which there are."""
    entries = sorted(inventory.checkpoints.values(), key=lambda entry: entry.order)
    name = layout.normal_checkpoint(which)
    if name == layout.LAST and entries:
        return entries[-1]
    if name == layout.BEST:
        checkpoint = config.get("training", {}).get("checkpoint", {})
        chosen = choose_best(entries, checkpoint.get("monitor") or "val_loss", checkpoint.get("mode") or "min")
        if chosen is not None:
            return chosen[0]
    for known in (lambda entry: entry.name, lambda entry: entry.directory, lambda entry: str(entry.step)):
        for entry in entries:
            if known(entry) == name:
                return entry
    there = ", ".join(entry.name for entry in entries) or "none yet"
    raise NotThere(f"{repo} has no checkpoint '{which}'", hint=f"there: {there}")


def _unfit(name: str, error: CheckpointError) -> Unfit:
    return Unfit(name, error.message.removeprefix(f"{name}: "), hint=error.hint)


def _is(path: Path, record: FileRecord) -> bool:
    """Whether ``path`` is a regular file of this size and hash."""
    try:
        return path.lstat().st_size == record.size and file_sha256(path) == record.sha256
    except OSError:
        return False


def _make_durable(disk: Storage, root: Path) -> None:
    """Make all below ``root`` private, and sync what another library wrote there."""
    for directory, _, names in os.walk(root, topdown=False):
        for name in names:
            path = Path(directory) / name
            path.chmod(FILE_MODE)
            descriptor = disk.open_append(path)  # writable: some systems sync only such descriptors
            try:
                disk.sync_file(descriptor)
            finally:
                disk.close(descriptor)
        Path(directory).chmod(DIRECTORY_MODE)
        disk.sync_directory(Path(directory))
