"""What goes into one commit: checkpoints byte for byte, the adapter at the root, the model card, the run's own files.

Only files that a manifest names are read from a run; everything else is made here, without machine paths and tokens.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from pitstop.checkpointing.card import curve, model_card
from pitstop.checkpointing.card.facts import CardFacts
from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.disk.manifest import own_version
from pitstop.checkpointing.disk.metrics_log import read_rows
from pitstop.checkpointing.disk.storage import FileRecord, read_regular_file
from pitstop.checkpointing.runs.base_models import BASE_MANIFEST, BaseModels, read_base_manifest
from pitstop.checkpointing.runs.inventory import (
    BASE_DIRECTORY,
    CARD,
    CURVE,
    INVENTORY,
    METADATA_KEYS,
    RUN_DIRECTORY,
    Entry,
    Inventory,
)
from pitstop.checkpointing.runs.push_records import Destination
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.file_sets import form_of
from pitstop.checkpointing.store.portable_paths import portable, portable_settings
from pitstop.checkpointing.store.store import choose_best
from pitstop.configs.datasets import without_weight
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


@dataclass(frozen=True)
class Look:
    """What of the page of the repository a commit renews: the model card, and the picture of the loss (``draw``).

    ``has_curve``: there is a picture already. Drawing takes a second of a processor that the training may want.
    """

    card: bool = True
    draw: bool = True
    has_curve: bool = False


def blob_sha1(content: bytes) -> str:
    """Git's name of a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def entry_of(info: CheckpointInfo) -> Entry:
    """A committed checkpoint as the inventory lists it."""
    return Entry.of(info, hashlib.sha256(read_regular_file(info.path / layout.MANIFEST)).hexdigest())


def superseded(run: RunDirectory, entries: Iterable[Entry]) -> list[Entry]:
    """Those of ``entries`` that belong to a line of the run which a later resume from an older checkpoint left."""
    resumes = [(datetime.fromisoformat(resume["at"]), resume["step"]) for resume in _resumes(run)]
    return [entry for entry in entries if any(at > entry.order[1] and entry.step > step for at, step in resumes)]


def _resumes(run: RunDirectory) -> list[dict[str, Any]]:
    found = run.metadata().get("resumes")
    return [item for item in found or [] if isinstance(item, dict) and {"at", "step"} <= item.keys()]


def expendable(run: RunDirectory, entries: Sequence[Entry], keep_last_n: int | None) -> list[Entry]:
    """Those of ``entries`` that retention on the Hub takes away: all but the newest ``keep_last_n`` and the best."""
    if keep_last_n is None:
        return []
    newest = sorted(entries, key=lambda entry: entry.order)[-keep_last_n:]
    best = best_of(run, entries)
    return [entry for entry in entries if entry not in newest and entry != best]


def best_of(run: RunDirectory, entries: Sequence[Entry]) -> Entry | None:
    """The best of ``entries`` by the run's own metric; None where none has a metric."""
    chosen = choose_best(entries, run.store.monitor, run.store.mode)
    return chosen[0] if chosen else None


def build(
    run: RunDirectory,
    infos: Sequence[CheckpointInfo],
    before: Inventory,
    destination: Destination,
    *,
    repo: str,
    finished: bool,
    look: Look,
) -> Commit:
    """The commit that brings ``infos`` to a repository that holds ``before``.

    ``finished``: the root gets the best adapter or model instead of the newest, where the run still has it. ``CheckpointError`` for a
    checkpoint that is damaged, ``SecretFound`` for one that holds a token.
    """
    added = [entry_of(info) for info in infos]
    gone = superseded(run, before.checkpoints.values())
    kept = {entry.directory: entry for entry in before.checkpoints.values() if entry not in gone}
    entries = {**kept, **{entry.directory: entry for entry in added}}
    dropped = expendable(run, list(entries.values()), destination.keep_last_n)
    entries = {directory: entry for directory, entry in entries.items() if entry not in dropped}
    files: dict[str, Path | bytes] = {}
    hashes: dict[str, str] = {}
    for info in infos:
        if layout.step_name(info.step) in entries:
            _add_checkpoint(info, files, hashes)
    root = _add_root(run, entries, before, finished, files, hashes)
    base = _add_base(run, before.base, destination, files, hashes)
    inventory = Inventory(before.uid, run.name, entries, {}, base, root, finished)
    inventory = _add_run_files(run, inventory, files)
    _add_card(run, inventory, repo, look, files)
    files[INVENTORY] = inventory.to_bytes(own_version())
    replaced = [entry.directory for entry in added if entry.directory in before.checkpoints]
    deletions = sorted({*replaced, *(before.checkpoints.keys() - entries.keys())})
    return Commit(_message(added, run, finished), files, hashes, deletions, inventory)


def _message(added: Sequence[Entry], run: RunDirectory, finished: bool) -> str:
    if not added:
        return f"{run.name}: {'the end of training' if finished else 'records'}"
    steps = ", ".join(str(entry.step) for entry in added)
    return f"{run.name}: checkpoint{'s' if len(added) > 1 else ''} of step {steps}"[:200]


def _add_checkpoint(info: CheckpointInfo, files: dict[str, Path | bytes], hashes: dict[str, str]) -> None:
    directory = layout.step_name(info.step)
    for name, record in info.manifest.files.items():
        _check_text(info.path / name)
        files[f"{directory}/{name}"] = info.path / name
        hashes[f"{directory}/{name}"] = record.sha256
    files[f"{directory}/{layout.MANIFEST}"] = info.manifest.to_bytes()


def _check_text(path: Path) -> None:
    if not _TEXTS.search(path.name):
        return
    text = path.read_text(encoding="utf-8", errors="replace")
    if mask(text) != text:
        raise SecretFound(
            f"{path} holds something that looks like a token, so it is not pushed", hint="take the token out of the settings"
        )


def _add_root(
    run: RunDirectory,
    entries: Mapping[str, Entry],
    before: Inventory,
    finished: bool,
    files: dict[str, Path | bytes],
    hashes: dict[str, str],
) -> str | None:
    """Put adapter or model of the newest checkpoint, at the end of the best one, at the root; returns whose lies there."""
    newest = max(entries.values(), key=lambda entry: entry.order, default=None)
    wanted = (best_of(run, list(entries.values())) if finished else None) or newest
    if wanted is None:
        return None
    if before.root is not None and before.checkpoints[before.root] == wanted:  # not only another one of the same step
        return before.root
    local = {(info.name, info.saved_at.isoformat()): info for info in run.store.list()}
    info = local.get((wanted.name, wanted.saved_at)) or (local.get((newest.name, newest.saved_at)) if newest else None)
    if info is None:
        return before.root if before.root in entries else None
    for name, file in form_of(run.config()).served(info.manifest.files.keys()).items():
        files[name] = info.path / file
        hashes[name] = info.manifest.files[file].sha256
    return layout.step_name(info.step)


def _add_base(
    run: RunDirectory,
    before: str | None,
    destination: Destination,
    files: dict[str, Path | bytes],
    hashes: dict[str, str],
) -> str | None:
    if not destination.push_base or before is not None or form_of(run.config()).whole:
        return before
    location = BaseModels(run.base_dir).base_path(run.path)
    digest, records = read_base_manifest(location)
    for name, record in records.items():
        files[f"{BASE_DIRECTORY}/{name}"] = location / name
        hashes[f"{BASE_DIRECTORY}/{name}"] = record.sha256
    files[f"{BASE_DIRECTORY}/{BASE_MANIFEST}"] = read_regular_file(location / BASE_MANIFEST)
    return digest


def _add_run_files(run: RunDirectory, inventory: Inventory, files: dict[str, Path | bytes]) -> Inventory:
    newest = inventory.newest()
    rows = [row for row in _rows(run) if newest is not None and row["step"] <= newest.step]
    contents = {
        layout.CONFIG: _json(config_of(run)),
        layout.METADATA: _json(metadata_of(run)),
        layout.METRICS: "".join(json.dumps(row) + "\n" for row in rows).encode(),
    }
    records = {name: FileRecord(len(data), hashlib.sha256(data).hexdigest()) for name, data in contents.items()}
    files.update({f"{RUN_DIRECTORY}/{name}": data for name, data in contents.items()})
    return replace(inventory, files=records)


def _rows(run: RunDirectory) -> list[dict[str, Any]]:
    return [row for row in read_rows(run.metrics_path) if type(row.get("step")) is int]


def config_of(run: RunDirectory) -> dict[str, Any]:
    """config.json as others may see it: without where its values came from, and without machine paths."""
    return portable_settings({key: value for key, value in run.config().items() if key != "sources"})


def metadata_of(run: RunDirectory) -> dict[str, Any]:
    """The part of metadata.json that another machine needs, without machine paths."""
    metadata = run.metadata()
    return {key: _without_paths(metadata.get(key)) for key in METADATA_KEYS}


def _without_paths(value: Any) -> Any:
    if isinstance(value, str):
        return portable(value)
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def _json(content: Mapping[str, Any]) -> bytes:
    return mask(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _add_card(run: RunDirectory, inventory: Inventory, repo: str, look: Look, files: dict[str, Path | bytes]) -> None:
    picture = curve.loss_curve(_rows(run), run.name) if look.draw else None
    if picture is not None:
        files[CURVE] = picture
    if not look.card:
        return
    best = best_of(run, list(inventory.checkpoints.values()))
    facts = CardFacts(
        repo=repo,
        name=run.name,
        checkpoints=inventory.checkpoints,
        settings=config_of(run),
        metadata=metadata_of(run),
        root=inventory.root,
        best=best.directory if best else None,
        finished=inventory.finished,
        base_pushed=inventory.base is not None,
        has_curve=look.has_curve or picture is not None,
        local=_local_names(run),
    )
    files[CARD] = mask(model_card.model_card(facts)).encode()


def _local_names(run: RunDirectory) -> list[str]:
    """Relative paths of this machine among the settings, which may read like ids on the Hub (``data/train``)."""
    config = run.config()
    data = config.get("data") or {}
    names = [(config.get("model") or {}).get("id"), *(data.get("train") or []), *(data.get("eval") or [])]
    places = [place for name in names if isinstance(name, str) for place in {name, without_weight(name)}]
    return [place for place in places if Path(place).exists()]


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
