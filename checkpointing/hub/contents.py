"""What goes into one commit: checkpoints byte for byte, the adapter at the root, the model card, the run's own files.

Only files that a manifest names are read from a run; everything else is made here, without machine paths and tokens.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pitstop.checkpointing.card.page import PageUpdate, page_files
from pitstop.checkpointing.disk import layout, manifest
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.disk.storage import FileRecord, read_regular_file
from pitstop.checkpointing.runs.base_models import BASE_MANIFEST, BaseModels, read_base_manifest
from pitstop.checkpointing.runs.inventory import BASE_DIRECTORY, CARD, INVENTORY, RUN_DIRECTORY, Inventory, RemoteCheckpoint
from pitstop.checkpointing.runs.portable_run import PortableRun
from pitstop.checkpointing.runs.push_records import Destination
from pitstop.checkpointing.runs.retention import best_entry, expendable, superseded
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.file_sets import form_of
from pitstop.configs.errors import CheckpointError, HubError
from pitstop.configs.secrets import mask

_TEXTS = re.compile(r"\.(json|jsonl|md|txt)$")


class SecretFound(HubError):
    """A file that was to be pushed holds a token."""


@dataclass(frozen=True)
class Commit:
    """``files`` by path in the repository, as a path on disk or as content; ``hashes`` that those on disk must have."""

    message: str
    files: Mapping[str, Path | bytes]
    hashes: Mapping[str, str]
    deletions: Sequence[str]
    inventory: Inventory

    @property
    def card(self) -> str | None:
        """Git's hash of the model card in it, if there is one."""
        content = self.files.get(CARD)
        return blob_sha1(content) if isinstance(content, bytes) else None


def blob_sha1(content: bytes) -> str:
    """Git's name of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def entry_of(info: CheckpointInfo) -> RemoteCheckpoint:
    """A committed checkpoint as the inventory lists it."""
    return RemoteCheckpoint.of(info, hashlib.sha256(read_regular_file(info.path / layout.MANIFEST)).hexdigest())


def build(
    run: RunDirectory,
    infos: Sequence[CheckpointInfo],
    remote: Inventory,
    destination: Destination,
    *,
    repo: str,
    finished: bool,
    page: PageUpdate,
) -> Commit:
    """The commit that brings ``infos`` to a repository that holds ``remote``.

    ``finished``: the root gets the best adapter or model instead of the newest, where the run still has it. ``CheckpointError`` for a
    checkpoint that is damaged, ``SecretFound`` for one that holds a token.
    """
    additions = {entry.directory: entry for entry in map(entry_of, infos)}
    outdated = superseded(run, remote.checkpoints.values())
    entries = {directory: entry for directory, entry in remote.checkpoints.items() if entry not in outdated} | additions
    dropped = expendable(run, list(entries.values()), destination.keep_last_n)
    entries = {directory: entry for directory, entry in entries.items() if entry not in dropped}
    content = _Content()
    for info in infos:
        if layout.step_name(info.step) in entries:
            content.add_checkpoint(info)
    root = _add_root(run, entries, remote, finished, content)
    base = _add_base(run, remote.base, destination, content)
    newest = max((entry.step for entry in entries.values()), default=-1)
    documents = PortableRun.of(run)
    records = content.add_run_files(documents.files(newest))
    inventory = Inventory(remote.uid, run.name, entries, records, base, root, finished)
    content.files.update(page_files(run, documents, inventory, repo, page))
    content.files[INVENTORY] = inventory.to_bytes(manifest.own_version())
    replaced = additions.keys() & remote.checkpoints.keys()
    deletions = sorted(replaced | (remote.checkpoints.keys() - entries.keys()))
    return Commit(_message(list(additions.values()), run, finished), content.files, content.hashes, deletions, inventory)


def _message(additions: Sequence[RemoteCheckpoint], run: RunDirectory, finished: bool) -> str:
    if not additions:
        return f"{run.name}: {'the end of training' if finished else 'records'}"
    steps = ", ".join(str(entry.step) for entry in additions)
    return f"{run.name}: checkpoint{'s' if len(additions) > 1 else ''} of step {steps}"[:200]


class _Content:
    """The files of a commit in the making, as ``Commit`` has them."""

    def __init__(self) -> None:
        self.files: dict[str, Path | bytes] = {}
        self.hashes: dict[str, str] = {}

    def add_file(self, name: str, path: Path, record: FileRecord) -> None:
        self.files[name] = path
        self.hashes[name] = record.sha256

    def add_checkpoint(self, info: CheckpointInfo) -> None:
        directory = layout.step_name(info.step)
        for name, record in info.manifest.files.items():
            _check_text(info.path / name)
            self.add_file(f"{directory}/{name}", info.path / name, record)
        self.files[f"{directory}/{layout.MANIFEST}"] = info.manifest.to_bytes()

    def add_run_files(self, documents: Mapping[str, bytes]) -> dict[str, FileRecord]:
        """Their records for the inventory."""
        self.files.update({f"{RUN_DIRECTORY}/{name}": document for name, document in documents.items()})
        return {name: FileRecord(len(document), hashlib.sha256(document).hexdigest()) for name, document in documents.items()}


def _check_text(path: Path) -> None:
    if not _TEXTS.search(path.name):
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if mask(text) != text:
        raise SecretFound(
            f"{path} holds something that looks like a token, so it is not pushed", hint="take the token out of the settings"
        )


def _add_root(
    run: RunDirectory, entries: Mapping[str, RemoteCheckpoint], remote: Inventory, finished: bool, content: _Content
) -> str | None:
    """Put adapter or model of the newest checkpoint, at the end of the best one, at the root; returns whose lies there."""
    newest = max(entries.values(), key=lambda entry: entry.order, default=None)
    chosen = (best_entry(run, list(entries.values())) if finished else None) or newest
    if chosen is None:
        return None
    if remote.root is not None and remote.checkpoints[remote.root] == chosen:  # not only another one of the same step
        return remote.root
    local = {(info.name, info.saved_at.isoformat()): info for info in run.store.list()}
    info = local.get((chosen.name, chosen.saved_at)) or (local.get((newest.name, newest.saved_at)) if newest else None)
    if info is None:
        return remote.root if remote.root in entries else None
    for name, file in form_of(run.config()).served(info.manifest.files.keys()).items():
        content.add_file(name, info.path / file, info.manifest.files[file])
    return layout.step_name(info.step)


def _add_base(run: RunDirectory, pushed: str | None, destination: Destination, content: _Content) -> str | None:
    """Put the run's base there, where that is asked for and none was ``pushed``; returns the digest of the one there."""
    if not destination.push_base or pushed is not None or form_of(run.config()).full_model:
        return pushed
    location = BaseModels(run.base_dir).base_path(run.path)
    digest, records = read_base_manifest(location)
    for name, record in records.items():
        content.add_file(f"{BASE_DIRECTORY}/{name}", location / name, record)
    content.files[f"{BASE_DIRECTORY}/{BASE_MANIFEST}"] = read_regular_file(location / BASE_MANIFEST)
    return digest


def local_checkpoints(run: RunDirectory) -> list[CheckpointInfo]:
    """The whole checkpoints of the run, ascending by step; of several of one step only the newest."""
    newest = {info.step: info for info in run.store.list()}
    return list(newest.values())


def check_pushable(run: RunDirectory) -> None:
    """``CheckpointError`` where the run lacks what the repository needs to be resumed from."""
    run.config()
    run.metadata()
    if not run.store.list():
        raise CheckpointError(f"{run.label} has no checkpoint yet", hint="train it first; there is nothing to push")
