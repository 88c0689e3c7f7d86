"""A run directory: its files, settings, metadata, status and lock."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypedDict

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.disk.dotted import at, replaced
from pitstop.checkpointing.disk.inspection import CheckpointInfo, read_object
from pitstop.checkpointing.disk.storage import LocalStorage, Storage, atomic_write, free_name, read_regular_file, saving
from pitstop.checkpointing.runs import link_guard, listing, name_links
from pitstop.checkpointing.runs.metadata import (
    INTERRUPTED,
    MAX_BYTES,
    Metadata,
    RecordedBest,
    RecordedCheckpoint,
    RecordedResume,
    plain_number,
)
from pitstop.checkpointing.store.portable_paths import full_settings
from pitstop.checkpointing.store.store import CheckpointStore, choose_best
from pitstop.configs.errors import CheckpointError, RunError


class MetadataChanges(TypedDict, total=False):
    """What running code changes of metadata.json, as JSON holds it."""

    status: str
    status_reason: str
    method: str | None
    progress: Mapping[str, float | None]
    checkpoints: Sequence[Mapping[str, Any]]
    best_checkpoint: Mapping[str, Any] | None
    lora_config: Mapping[str, Any]
    base_model: Mapping[str, Any]
    resumes: Sequence[Mapping[str, Any]]
    trackers: Mapping[str, Mapping[str, str]]
    batch_size_changes: Sequence[Mapping[str, Any]]
    usage: Mapping[str, float]


class RunDirectory:
    """One run on disk. Reading needs nothing; whoever writes holds ``lock``."""

    def __init__(self, path: Path, storage: Storage | None = None) -> None:
        number = layout.run_number(path.name)
        if number is None:
            raise RunError(f"{path} is not a run directory; they are named run_001, run_002, …")
        self.path = path
        self.number = number
        self.storage: Storage = storage or LocalStorage()
        """What everything durable is written through."""
        self._updating = threading.RLock()  # a save in the background and the training thread both report

    @property
    def group(self) -> str:
        """``base_training`` for the runs that train a base model, else empty."""
        return layout.BASE_TRAINING if self.path.parent.name == layout.BASE_TRAINING else ""

    @property
    def base_dir(self) -> Path:
        """The directory of all runs, to which the paths in the metadata are relative."""
        return self.path.parent.parent if self.group else self.path.parent

    @property
    def label(self) -> str:
        """``run_003`` or ``base_training/run_003``."""
        return f"{self.group}/{self.path.name}" if self.group else self.path.name

    @property
    def ref(self) -> str:
        """What a user types to mean this run: ``3`` or ``base_training/3``."""
        return f"{self.group}/{self.number}" if self.group else str(self.number)

    @property
    def logs_dir(self) -> Path:
        return self.path / layout.LOGS

    @property
    def metrics_path(self) -> Path:
        return self.logs_dir / layout.METRICS

    @functools.cached_property
    def store(self) -> CheckpointStore:
        """The run's checkpoints; the best one is judged by the run's own ``training.checkpoint.monitor`` and ``mode``."""
        settings = at(self.settings(), "training.checkpoint")
        settings = settings if isinstance(settings, dict) else {}
        return CheckpointStore(
            layout.weights_directory(self.path),
            self.storage,
            monitor=monitor if isinstance(monitor := settings.get("monitor"), str) and monitor else "val_loss",
            mode="max" if settings.get("mode") == "max" else "min",
        )

    def settings(self) -> dict[str, Any]:
        """The settings in force: those in the newest checkpoint, and what the last resume changed if it went on from there.

        Without such a checkpoint those of the start; {} when config.json is missing. ``CheckpointError`` when it is damaged.
        """
        infos = CheckpointStore(layout.weights_directory(self.path)).list()
        settings = read_object(infos[-1], layout.TRAINER_STATE).get("settings") if infos else None
        if not isinstance(settings, dict):
            settings = self.initial_settings() if (self.path / layout.CONFIG).exists() else {}
        return self.with_last_changes(self.with_full_paths(settings, infos[-1]), infos[-1].name) if infos else settings

    def with_full_paths(self, settings: dict[str, Any], info: CheckpointInfo) -> dict[str, Any]:
        """``settings`` as the checkpoint ``info`` holds them, with the paths of this machine as far as the run knows them."""
        config = {}
        with suppress(CheckpointError):  # lost: what the checkpoint says must do
            config = self.config()
        return full_settings(settings, self.readable_metadata().paths(config, info.name, info.step))

    def with_last_changes(self, settings: dict[str, Any], checkpoint: str) -> dict[str, Any]:
        """``settings`` of ``checkpoint`` with what the last resume changed, if that went on from there and saved nothing since."""
        for path, pair in self.last_changes(checkpoint).items():
            if isinstance(pair, list) and pair:
                settings = replaced(settings, path, pair[-1])
        return settings

    def last_changes(self, checkpoint: str) -> Mapping[str, Any]:
        """What the last resume changed, as {setting: [old, new]}, if it started from ``checkpoint``; the pairs are unchecked."""
        resume = self.last_resume()
        return resume.changes if resume.checkpoint == checkpoint else {}

    def last_resume(self) -> RecordedResume:
        """What is on record of the newest resume; empty where there is none."""
        return next(reversed(self.readable_metadata().resumes), RecordedResume())

    @property
    def name(self) -> str:
        """The run's unique name; its directory's name where the metadata is lost."""
        return self.readable_metadata().name or self.path.name

    def config(self) -> dict[str, Any]:
        """The settings of the start. ``CheckpointError`` when config.json is missing or damaged."""
        return self._read_json(layout.CONFIG, "the settings that the run started with are lost; start a new run")

    def initial_settings(self) -> dict[str, Any]:
        """The settings of the start, without where each was set. Raises as ``config``."""
        return {key: value for key, value in self.config().items() if key != layout.SOURCES}

    def metadata(self) -> Metadata:
        """metadata.json. ``CheckpointError`` when it is missing or damaged; ``rebuild_metadata`` helps then."""
        return Metadata(self._read_json(layout.METADATA, f"`pitstop resume {self.label}` rebuilds it from the checkpoints"))

    def readable_metadata(self) -> Metadata:
        """metadata.json; empty where it is missing or damaged."""
        try:
            return self.metadata()
        except CheckpointError:
            return Metadata()

    def _read_json(self, name: str, hint: str) -> dict[str, Any]:
        path = self.path / name
        try:
            content = json.loads(read_regular_file(path, limit=MAX_BYTES))
        except OSError as error:
            raise CheckpointError(f"{path}: {error.strerror or error}", hint=hint) from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{path}: damaged ({error})", hint=hint) from error
        if not isinstance(content, dict):
            raise CheckpointError(f"{path}: damaged (a JSON object is expected)", hint=hint)
        return content

    def status(self) -> str:
        """The status as it is now: ``interrupted`` where the file says ``running`` but no process holds the lock."""
        return listing.effective_status(str(self.path), self.readable_metadata())

    def check_made_by_train(self, command: str, hint: str) -> None:
        """``RunError`` for a run that a program made through the Python API: ``command`` needs settings that it does not have."""
        with suppress(CheckpointError):  # damaged: the command itself says so
            if self.config().get(layout.MADE_BY) == layout.MANAGER:
                raise RunError(
                    f"{self.label} was made by a program through CheckpointManager, so `pitstop {command}` cannot take it",
                    hint=hint,
                )

    def update_metadata(self, changes: MetadataChanges) -> Metadata:
        """Replace top-level keys of metadata.json, durably and in one step; returns the whole. ``ResourceError``."""
        with self._updating:
            metadata = self.metadata().changed({**changes, "updated_at": _time_text()})
            self._write_metadata(metadata)
            return metadata

    def _write_metadata(self, metadata: Metadata) -> None:
        path = self.path / layout.METADATA
        with saving(path):
            atomic_write(self.storage, path, metadata.to_bytes())

    def record_checkpoint(self, info: CheckpointInfo, changes: MetadataChanges | None = None) -> Metadata:
        """Put a checkpoint just committed on record, with other ``changes`` in the same write; returns the metadata."""
        infos = [earlier for earlier in self.store.list() if earlier.name != info.name]
        infos = sorted([*infos, info], key=lambda checkpoint: checkpoint.order)
        return self.update_metadata({**self.checkpoint_changes(infos), **(changes or {})})

    def sync_checkpoints(self, changes: MetadataChanges | None = None) -> Metadata:
        """Make ``checkpoints`` and ``best_checkpoint`` say what the store holds; returns the metadata."""
        return self.update_metadata({**self.checkpoint_changes(self.store.list()), **(changes or {})})

    def record_resume(self, info: CheckpointInfo, changes: Mapping[str, Any], **details: Any) -> Metadata:
        """Add to ``resumes``: when, from which checkpoint, ``changes`` as {setting: [old, new]}, and further ``details``.

        In one write with what the store holds now, and the progress of the checkpoint: what came after it has been set aside.
        """
        now = datetime.now().astimezone().isoformat()  # to the microsecond, as checkpoints are dated
        entry = {"at": now, "checkpoint": info.name, "step": info.step, "epoch": plain_number(info.epoch)}
        entry["changes"] = {setting: list(pair) for setting, pair in changes.items()}
        with self._updating:
            metadata = self.metadata().standing_at(info)
            resumes = [*(resume.content for resume in metadata.resumes), {**entry, **details}]
            return self.sync_checkpoints({"resumes": resumes, "progress": metadata.progress.content})

    def checkpoint_changes(self, infos: list[CheckpointInfo]) -> MetadataChanges:
        """What a change of the checkpoints to ``infos`` changes in metadata.json."""
        best = self.best_entry(infos)
        recorded = [RecordedCheckpoint.of(info, self.base_dir).content for info in infos]
        return {"checkpoints": recorded, "best_checkpoint": None if best is None else best.content}

    def best_entry(self, infos: list[CheckpointInfo]) -> RecordedBest | None:
        """What metadata.json says of the best one of ``infos``; None where none has a metric to go by."""
        choice = choose_best(infos, self.store.monitor, self.store.mode)
        if choice is None:
            return None
        info, metric, mode = choice
        return RecordedBest.by(metric, mode, RecordedCheckpoint.of(info, self.base_dir))

    def rebuild_metadata(self) -> Metadata:
        """Write metadata.json anew from config.json and the checkpoints; a damaged one is kept beside it.

        What only the lost file knew (environment, resumes) comes back empty. ``CheckpointError`` when config.json is lost too.
        """
        config = self.config()
        infos = self.store.list()
        path = self.path / layout.METADATA
        with self._updating:
            if os.path.lexists(path):
                self.storage.rename(path, free_name(path.with_name(f"{layout.METADATA}.damaged")))
            started = datetime.fromtimestamp((self.path / layout.CONFIG).stat().st_mtime).astimezone()
            link = next(iter(name_links.entries(self.base_dir, self.label)), self.path)  # its name by the links in by-name
            metadata = Metadata.initial(self.number, link.name, config, started)
            metadata = metadata.changed({"status": INTERRUPTED, "rebuilt_at": _time_text(), **self.checkpoint_changes(infos)})
            metadata = metadata.standing_at(infos[-1] if infos else None)
            self._write_metadata(metadata)
        return metadata

    @contextmanager
    def lock(self, owner: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Be the run's only writer. ``RunError`` names another one; ``CheckpointError`` where a link leads out of the run."""
        link_guard.check_own(self.path)
        with locking.exclusive(self.path / layout.LOCK, self.label, owner):
            yield

    def is_locked(self) -> bool:
        """Whether some process is writing the run now."""
        return locking.is_locked(self.path / layout.LOCK)


def _time_text() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
