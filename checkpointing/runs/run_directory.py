"""A run directory: its files, settings, metadata, status and lock."""

from __future__ import annotations

import functools
import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.disk.dotted import at, replaced
from pitstop.checkpointing.disk.inspection import CheckpointInfo, read_verified
from pitstop.checkpointing.disk.storage import LocalStorage, Storage, atomic_write, failed_save, read_regular_file
from pitstop.checkpointing.runs import link_guard, name_links
from pitstop.checkpointing.runs.listing import INTERRUPTED, MAX_BYTES, effective_status
from pitstop.checkpointing.runs.metadata import initial_metadata, json_bytes, now_text, plain_number
from pitstop.checkpointing.store.portable_paths import full_settings, known_places
from pitstop.checkpointing.store.store import CheckpointStore, choose_best, free_name
from pitstop.configs.errors import CheckpointError, RunError


class RunDirectory:
    """One run on disk. Reading needs nothing; whoever writes holds ``lock``."""

    def __init__(self, path: Path, storage: Storage | None = None) -> None:
        number = layout.run_number(path.name)
        if number is None:
            raise RunError(f"{path} is not a run directory; they are named run_001, run_002, …")
        self.path = path
        self.number = number
        self._storage: Storage = storage or LocalStorage()
        self._updating = threading.RLock()  # a save in the background and the training thread both report

    @property
    def storage(self) -> Storage:
        """What everything durable is written through."""
        return self._storage

    # Where things are

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
            self._storage,
            monitor=monitor if isinstance(monitor := settings.get("monitor"), str) and monitor else "val_loss",
            mode="max" if settings.get("mode") == "max" else "min",
        )

    def settings(self) -> dict[str, Any]:
        """The settings in force: those in the newest checkpoint, and what the last resume changed if it went on from there.

        Without such a checkpoint those of the start; {} when config.json is missing. ``CheckpointError`` when it is damaged.
        """
        infos = CheckpointStore(layout.weights_directory(self.path)).list()
        settings = _settings_in(infos[-1]) if infos else None
        if settings is None:
            settings = self.config() if (self.path / layout.CONFIG).exists() else {}
        return self.with_last_changes(self.with_full_paths(settings, infos[-1]), infos[-1].name) if infos else settings

    def with_full_paths(self, settings: dict[str, Any], info: CheckpointInfo) -> dict[str, Any]:
        """``settings`` as the checkpoint ``info`` holds them, with the paths of this machine as far as the run knows them."""
        resumes, config = self._resumes(), {}
        with suppress(CheckpointError):  # lost: what the checkpoint says must do
            config = self.config()
        return full_settings(settings, known_places(config, resumes, info.name, info.step))

    def with_last_changes(self, settings: dict[str, Any], checkpoint: str) -> dict[str, Any]:
        """``settings`` of ``checkpoint`` with what the last resume changed, if that went on from there and saved nothing since."""
        for path, pair in self.last_changes(checkpoint).items():
            if isinstance(pair, list) and pair:
                settings = replaced(settings, path, pair[-1])
        return settings

    def last_changes(self, checkpoint: str) -> dict[str, Any]:
        """What the last resume changed, as {setting: [old, new]}, if it started from ``checkpoint``; unchecked."""
        last = self.last_resume()
        changes = last.get("changes")
        return changes if last.get("checkpoint") == checkpoint and isinstance(changes, dict) else {}

    def _resumes(self) -> list[Any]:
        try:
            resumes = self.metadata().get("resumes")
        except CheckpointError:
            return []
        return resumes if isinstance(resumes, list) else []

    def last_resume(self) -> dict[str, Any]:
        """What is on record of the newest resume, unchecked; {} where there is none."""
        last = next(reversed(self._resumes()), None)
        return last if isinstance(last, dict) else {}

    # What is known of it

    @property
    def name(self) -> str:
        """The run's unique name; its directory's name where the metadata is lost."""
        try:
            return str(self.metadata().get("name") or self.path.name)
        except CheckpointError:
            return self.path.name

    def config(self) -> dict[str, Any]:
        """The settings of the start. ``CheckpointError`` when config.json is missing or damaged."""
        return self._read_json(layout.CONFIG, "the settings that the run started with are lost; start a new run")

    def metadata(self) -> dict[str, Any]:
        """metadata.json. ``CheckpointError`` when it is missing or damaged; ``rebuild_metadata`` helps then."""
        return self._read_json(layout.METADATA, f"`pitstop resume {self.label}` rebuilds it from the checkpoints")

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
        try:
            return effective_status(str(self.path), self.metadata())
        except CheckpointError:
            return effective_status(str(self.path), {})

    def check_made_by_train(self, command: str, hint: str) -> None:
        """``RunError`` for a run that a program made through the Python API: ``command`` needs settings that it does not have."""
        with suppress(CheckpointError):  # damaged: the command itself says so
            if self.config().get(layout.MADE_BY) == layout.MANAGER:
                raise RunError(
                    f"{self.label} was made by a program through CheckpointManager, so `pitstop {command}` cannot take it",
                    hint=hint,
                )

    # Changing it

    def update_metadata(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Replace top-level keys of metadata.json, durably and in one step; returns the whole. ``ResourceError``."""
        with self._updating:
            metadata = {**self.metadata(), **changes, "updated_at": now_text()}
            self._write_json(layout.METADATA, metadata)
            return metadata

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.path / name
        try:
            atomic_write(self._storage, path, json_bytes(content))
        except OSError as error:
            raise failed_save(path, error) from error

    def record_checkpoint(self, info: CheckpointInfo, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Put a checkpoint just committed on record, with other ``changes`` in the same write; returns the metadata."""
        infos = [earlier for earlier in self.store.list() if earlier.name != info.name]
        infos = sorted([*infos, info], key=lambda checkpoint: checkpoint.order)
        return self.update_metadata({**self.checkpoint_keys(infos), **(changes or {})})

    def sync_checkpoints(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make ``checkpoints`` and ``best_checkpoint`` say what the store holds; returns the metadata."""
        return self.update_metadata({**self.checkpoint_keys(self.store.list()), **(changes or {})})

    def record_resume(self, info: CheckpointInfo, changes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Add to ``resumes``: when, from which checkpoint, ``changes`` as {setting: [old, new]}, and what else is given."""
        at = datetime.now().astimezone().isoformat()  # to the microsecond, as checkpoints are dated
        entry = {"at": at, "checkpoint": info.name, "step": info.step, "epoch": plain_number(info.epoch)}
        entry["changes"] = {setting: list(pair) for setting, pair in changes.items()}
        with self._updating:
            resumes = self.metadata().get("resumes")
            return self.update_metadata({"resumes": [*(resumes if isinstance(resumes, list) else []), {**entry, **more}]})

    def checkpoint_keys(self, infos: list[CheckpointInfo]) -> dict[str, Any]:
        """``checkpoints`` and ``best_checkpoint`` of metadata.json for the checkpoints ``infos``."""
        return {"checkpoints": [self.entry(info) for info in infos], "best_checkpoint": self.best_entry(infos)}

    def best_entry(self, infos: list[CheckpointInfo]) -> dict[str, Any] | None:
        """What metadata.json says of the best one of ``infos``; None where none has a metric to go by."""
        chosen = choose_best(infos, self.store.monitor, self.store.mode)
        if chosen is None:
            return None
        info, metric, mode = chosen
        best = {**self.entry(info), "metric": metric, "mode": mode, "value": info.metrics[metric]}
        del best["size"], best["saved_at"]
        return best

    def entry(self, info: CheckpointInfo) -> dict[str, Any]:
        """What metadata.json says of one checkpoint."""
        return {
            "name": info.name,
            "epoch": plain_number(info.epoch),
            "step": info.step,
            "path": info.path.relative_to(self.base_dir).as_posix(),
            "metrics": dict(info.metrics),
            "saved_at": info.saved_at.isoformat(),
            "size": info.size,
        }

    def rebuild_metadata(self) -> dict[str, Any]:
        """Write metadata.json anew from config.json and the checkpoints; a damaged one is kept beside it.

        What only the lost file knew (environment, resumes) comes back empty. ``CheckpointError`` when config.json is lost too.
        """
        config = self.config()
        infos = self.store.list()
        path = self.path / layout.METADATA
        with self._updating:
            if os.path.lexists(path):
                self._storage.rename(path, free_name(path.with_name(f"{layout.METADATA}.damaged")))
            started = datetime.fromtimestamp((self.path / layout.CONFIG).stat().st_mtime).astimezone()
            entry = next(iter(name_links.entries(self.base_dir, self.label)), None)  # its name by the links in by-name
            name = entry.name if entry is not None else self.path.name
            metadata = initial_metadata(self.number, name, config, started)
            metadata |= {"status": INTERRUPTED, "rebuilt_at": now_text(), **self.checkpoint_keys(infos)}
            if infos:
                metadata["progress"] = {**metadata["progress"], "step": infos[-1].step, "epoch": plain_number(infos[-1].epoch)}
            self._write_json(layout.METADATA, metadata)
        return metadata

    # Having it to oneself

    @contextmanager
    def lock(self, owner: Mapping[str, Any] | None = None) -> Iterator[None]:
        """Be the run's only writer. ``RunError`` names the process that is, when there is one.

        ``CheckpointError`` when a part of the run is a link that would lead writing out of it.
        """
        link_guard.check_own(self.path)
        with locking.exclusive(self.path / layout.LOCK, self.label, owner):
            yield

    def is_locked(self) -> bool:
        """Whether some process is writing the run now."""
        return locking.is_locked(self.path / layout.LOCK)


def _settings_in(info: CheckpointInfo) -> dict[str, Any] | None:
    """The settings in force when a checkpoint was saved; None where it holds none that can be trusted."""
    try:
        content = json.loads(read_verified(info, layout.TRAINER_STATE))
    except (CheckpointError, ValueError, RecursionError):
        return None
    settings = content.get("settings") if isinstance(content, dict) else None
    return settings if isinstance(settings, dict) else None
