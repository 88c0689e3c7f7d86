"""Run directories: allocation, configuration, metadata, lock; and finding the run that a user means."""

# Abspath keeps links as the user named them, which resolve() does not.
# ruff: noqa: PTH100, PTH208
from __future__ import annotations

import errno
import functools
import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.disk.dotted import at, replaced
from pitstop.checkpointing.disk.inspection import CheckpointInfo, read_verified
from pitstop.checkpointing.disk.storage import (
    LocalStorage,
    Storage,
    atomic_write,
    failed_save,
    links_unsupported,
    make_directories,
    read_regular_file,
)
from pitstop.checkpointing.runs import link_guard, name_links, push_records
from pitstop.checkpointing.runs.listing import INTERRUPTED, MAX_BYTES, RunRecord, effective_status, list_runs
from pitstop.checkpointing.store.portable_paths import full_settings, known_places
from pitstop.checkpointing.store.store import CheckpointStore, choose_best, free_name
from pitstop.configs.datasets import without_weight
from pitstop.configs.errors import CheckpointError, PitstopError, RunError

__all__ = ["RunDirectory", "RunRecord", "create_run", "find_run", "install_run", "list_runs", "locate"]

METADATA_VERSION = 1


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
        last = self._last_resume()
        changes = last.get("changes")
        return changes if last.get("checkpoint") == checkpoint and isinstance(changes, dict) else {}

    def _resumes(self) -> list[Any]:
        try:
            resumes = self.metadata().get("resumes")
        except CheckpointError:
            return []
        return resumes if isinstance(resumes, list) else []

    def _last_resume(self) -> dict[str, Any]:
        last = next(reversed(self._resumes()), None)
        return last if isinstance(last, dict) else {}

    def pins(self, *, uploads: bool = True) -> dict[str, tuple[str, ...]]:
        """The checkpoints that retention never deletes, whatever their age, each with the reasons.

        ``best``, ``last``, ``resumed from`` (what the newest resume started from), ``best pointer`` or ``last pointer``
        where that still leads to another one, ``base of run_002`` where another run stands on it, and, with ``uploads``,
        ``not on the Hub yet`` in a run that is pushed. Reads manifests and metadata.json and hashes nothing.
        ``NewerFormatError``.
        """
        infos = self.store.list()
        reasons = self.store.pins(infos)
        started = self._last_resume().get("checkpoint")
        if any(info.name == started for info in infos):
            reasons.setdefault(str(started), []).append("resumed from")
        for name, labels in self.standing_on_it().items():
            if any(info.name == name for info in infos):
                reasons.setdefault(name, []).extend(f"base of {label}" for label in labels)
        if uploads:
            for name in self.not_on_the_hub(infos):
                reasons.setdefault(name, []).append("not on the Hub yet")
        return {name: tuple(why) for name, why in reasons.items()}

    def standing_on_it(self) -> dict[str, list[str]]:
        """The runs beside this one whose base is one of its checkpoints: checkpoint → labels. Only a base training has any."""
        if not self.group:
            return {}
        from pitstop.checkpointing.runs.base_runs import users_of  # it looks through all runs

        return users_of(self)

    def not_on_the_hub(self, infos: list[CheckpointInfo] | None = None) -> list[str]:
        """The checkpoints (of ``infos``, if they are listed already) that are still to be pushed; none in a run that is not."""
        infos = self.store.list() if infos is None else infos
        box = push_records.Outbox(self.path)
        try:
            destination = box.destination()
            if destination is None:
                return []
            arrived, keep_last_n = box.arrived(), destination.keep_last_n
        except CheckpointError:  # damaged: nobody knows what has arrived, so nothing may go
            arrived, keep_last_n = push_records.Arrived(), None
        return push_records.behind(arrived, [(info.name, info.step, info.saved_at.isoformat()) for info in infos], keep_last_n)

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
            metadata = {**self.metadata(), **changes, "updated_at": _now_text()}
            self._write_json(layout.METADATA, metadata)
            return metadata

    def _write_json(self, name: str, content: Mapping[str, Any]) -> None:
        path = self.path / name
        try:
            atomic_write(self._storage, path, _json_bytes(content))
        except OSError as error:
            raise failed_save(path, error) from error

    def record_checkpoint(self, info: CheckpointInfo, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Put a checkpoint just committed on record, with other ``changes`` in the same write; returns the metadata."""
        infos = [known for known in self.store.list() if known.name != info.name]
        infos = sorted([*infos, info], key=lambda known: known.order)
        return self.update_metadata({**self._checkpoint_keys(infos), **(changes or {})})

    def sync_checkpoints(self, changes: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make ``checkpoints`` and ``best_checkpoint`` say what the store holds; returns the metadata."""
        return self.update_metadata({**self._checkpoint_keys(self.store.list()), **(changes or {})})

    def record_resume(self, info: CheckpointInfo, changes: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        """Add to ``resumes``: when, from which checkpoint, ``changes`` as {setting: [old, new]}, and what else is given."""
        at = datetime.now().astimezone().isoformat()  # to the microsecond, as checkpoints are dated
        entry = {"at": at, "checkpoint": info.name, "step": info.step, "epoch": _plain(info.epoch)}
        entry["changes"] = {setting: list(pair) for setting, pair in changes.items()}
        with self._updating:
            resumes = self.metadata().get("resumes")
            return self.update_metadata({"resumes": [*(resumes if isinstance(resumes, list) else []), {**entry, **more}]})

    def _checkpoint_keys(self, infos: list[CheckpointInfo]) -> dict[str, Any]:
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
            "epoch": _plain(info.epoch),
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
            metadata = _initial_metadata(self.number, _name_on_record(self) or self.path.name, config, started)
            metadata |= {"status": INTERRUPTED, "rebuilt_at": _now_text(), **self._checkpoint_keys(infos)}
            if infos:
                metadata["progress"] = {**metadata["progress"], "step": infos[-1].step, "epoch": _plain(infos[-1].epoch)}
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


def create_run(
    base_dir: Path | str,
    *,
    name: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    number: int | None = None,
    group: str = "",
    now: datetime | None = None,
    storage: Storage | None = None,
) -> RunDirectory:
    """Start a run: the next free number (or ``number``), a unique name, config.json and metadata.json, all durable.

    ``name`` gets -2, -3, … when another run has it; see ``RunDirectory.name``. ``metadata`` overrides what is derived from
    ``config``. ``group`` is ``base_training`` or empty. ``RunError`` when ``number`` exists or nothing can be written here,
    ``ResourceError`` when the disk is full; nothing is left of the attempt then.
    """
    disk: Storage = storage or LocalStorage()
    base = Path(os.path.abspath(base_dir))
    claimed: list[Path] = []
    try:
        make_directories(disk, base / group)
        make_directories(disk, base / layout.BY_NAME)
        with name_links.alone(base):
            run = _claim(base / group, disk, name, number, claimed)
        _fill(run, disk, claimed[-1].name, config, metadata, now or datetime.now().astimezone())
    except BaseException as error:
        for path in reversed(claimed):
            disk.remove_tree(path)
        if isinstance(error, OSError):
            raise _not_made(claimed[0] if claimed else base / group, error) from error
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
            path = _free_place(base / group, number)
            label = f"{group}/{path.name}" if group else path.name
            named = staged.with_name(path.name)  # what is told of a run depends on its number
            disk.rename(staged, named)
            content = _describe_staged(RunDirectory(named, disk), metadata)
            _drop_stale_names(disk, base, label)
            entry = _claim_name(disk, base / layout.BY_NAME, name, f"../{label}")
            undo.append(lambda: disk.unlink(entry))
            disk.write_file(named / layout.METADATA, _json_bytes({**content, "name": entry.name}))
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


def _free_place(base: Path, number: int | None) -> Path:
    path = base / layout.run_directory_name(number if number is not None else _highest(base) + 1)
    if os.path.lexists(path):
        raise _taken(number, path)
    return path


def _describe_staged(run: RunDirectory, metadata: Mapping[str, Any]) -> dict[str, Any]:
    infos = run.store.list()
    run.store.repair_pointers()
    content = _initial_metadata(run.number, run.path.name, run.config(), datetime.now().astimezone())
    content |= {"status": INTERRUPTED, **metadata, **run._checkpoint_keys(infos)}
    if infos:
        content["progress"] = {**content["progress"], "step": infos[-1].step, "epoch": _plain(infos[-1].epoch)}
    return content


def _claim(directory: Path, storage: Storage, name: str, number: int | None, claimed: list[Path]) -> RunDirectory:
    """Take number and name; what is made is added to ``claimed``: the run's directory, then its entry in by-name."""
    claimed.append(_claim_number(storage, directory, number))
    run = RunDirectory(claimed[0], storage)
    _drop_stale_names(storage, run.base_dir, run.label)
    names = run.base_dir / layout.BY_NAME
    claimed.append(_claim_name(storage, names, name, f"../{run.label}"))
    storage.sync_directory(names)
    return run


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
    return RunError(
        f"run {number} exists: {path}",
        hint=f"continue it with `pitstop resume {_shown(number, path)}`, or leave --run-number out for a new run",
    )


def _shown(number: int | None, path: Path) -> str:
    return f"{layout.BASE_TRAINING}/{number}" if path.parent.name == layout.BASE_TRAINING else f"--run-number {number}"


def _highest(directory: Path) -> int:
    return max((layout.run_number(name) or 0 for name in os.listdir(directory)), default=0)


def _fill(
    run: RunDirectory,
    storage: Storage,
    name: str,
    config: Mapping[str, Any],
    metadata: Mapping[str, Any],
    now: datetime,
) -> None:
    for directory in (layout.weights_directory(run.path), run.logs_dir):
        storage.make_directory(directory)
    content = {**_initial_metadata(run.number, name, config, now), **metadata}
    content |= {"run_number": run.number, "name": name}
    storage.write_file(run.path / layout.CONFIG, _json_bytes(config))
    storage.write_file(run.path / layout.METADATA, _json_bytes(content))
    storage.sync_directory(run.path)
    storage.sync_directory(run.path.parent)


def _claim_name(storage: Storage, names: Path, name: str, target: str) -> Path:
    from pitstop.naming.names import unique  # it imports the schema, which takes longer than reading a run

    while True:
        path = names / unique(name, lambda candidate: os.path.lexists(names / candidate))
        try:
            _link_name(storage, path, target)
        except FileExistsError:
            continue  # two runs of one second: the other was quicker
        return path


def _link_name(storage: Storage, path: Path, target: str) -> None:
    try:
        storage.symlink(target, path)
    except (OSError, NotImplementedError) as error:
        if not links_unsupported(error):
            raise
        storage.write_file(path, f"{target}\n".encode())


def _initial_metadata(number: int, name: str, config: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    moment = now.isoformat(timespec="seconds") if now.tzinfo else now.astimezone().isoformat(timespec="seconds")
    return {
        "format_version": METADATA_VERSION,
        "run_number": number,
        "name": name,
        "experiment_name": at(config, "naming.experiment_name"),
        "task": at(config, "training.task"),
        "method": at(config, "training.method"),
        "model": at(config, "model.id"),
        "dataset": _dataset_text(at(config, "data.train"), at(config, "data.label"), at(config, "data.classes")),
        "status": "created",
        "created_at": moment,
        "updated_at": moment,
        "progress": {
            "step": 0,
            "total_steps": at(config, "training.max_steps"),
            "epoch": 0,
            "total_epochs": at(config, "training.epochs"),
        },
        "checkpoints": [],
        "best_checkpoint": None,
        "training_config": at(config, "training") or {},
        "lora_config": at(config, "lora") or {},
        "environment": {},
        "data": {},
        "base_model": {},
        "resumes": [],
    }


def _dataset_text(sources: Any, label: Any, classes: Any) -> str | None:
    """What lists call the data: its label or its place, and how many classes were chosen: ``Trees (5)``."""
    if not isinstance(sources, list) or not sources:
        return None
    chosen = f" ({len(classes)})" if isinstance(classes, list) and classes else ""
    if isinstance(label, str) and label:
        return label + chosen
    first = without_weight(str(sources[0])).replace("\\", "/").rstrip("/").rsplit("/", 1)[-1]
    return (first if len(sources) == 1 else f"{first} +{len(sources) - 1}") + chosen


def _name_on_record(run: RunDirectory) -> str | None:
    """The run's name by the links in by-name."""
    return next((entry.name for entry in name_links.entries(run.base_dir, run.label)), None)


def _settings_in(info: CheckpointInfo) -> dict[str, Any] | None:
    """The settings in force when a checkpoint was saved; None where it holds none that can be trusted."""
    try:
        content = json.loads(read_verified(info, layout.TRAINER_STATE))
    except (CheckpointError, ValueError, RecursionError):
        return None
    settings = content.get("settings") if isinstance(content, dict) else None
    return settings if isinstance(settings, dict) else None


# Finding


def find_run(base_dir: Path | str, ref: str | int) -> RunDirectory:
    """The run that ``ref`` means (see ``layout.parse_run_ref``). ``RunError`` says what was looked for and what is there."""
    return locate(base_dir, ref)[0]


def locate(base_dir: Path | str, ref: str | int) -> tuple[RunDirectory, str | None]:
    """As ``find_run``, with the checkpoint that ``ref`` picks (``3@best``, or a path to a checkpoint), if it picks one."""
    base = Path(os.path.abspath(base_dir))
    wanted = layout.parse_run_ref(ref)
    if wanted.path is not None:
        found = _by_path(wanted.path)
    elif wanted.number is not None:
        found = _by_number(base, wanted)
    else:
        found = _by_name(base, str(wanted.name))
    if found is None:
        raise _no_such_run(base, wanted)
    path, checkpoint = found
    if path.is_symlink():
        raise link_guard.linked_run(path)
    return RunDirectory(path), wanted.checkpoint or checkpoint


def _by_number(base: Path, wanted: layout.RunRef) -> tuple[Path, str | None] | None:
    name = layout.run_directory_name(wanted.number or 0)
    path = base / wanted.group / name
    if path.is_dir():
        return path, None
    typed_a_name = wanted.text.startswith("run_") and Path(name).is_dir()
    return (Path(os.path.abspath(name)), None) if typed_a_name else None


def _by_path(path: Path) -> tuple[Path, str | None] | None:
    path = Path(os.path.abspath(path))
    if layout.is_checkpoint_name(path.name) or path.name in layout.POINTERS:
        run = path.parent.parent
        inside = layout.run_number(run.name) is not None and path.parent == layout.weights_directory(run)
        return (run, path.name) if inside and os.path.lexists(path) else None
    path = path.resolve()
    return (path, None) if layout.run_number(path.name) is not None and path.is_dir() else None


def _by_name(base: Path, name: str) -> tuple[Path, str | None] | None:
    target = name_links.target(base / layout.BY_NAME / name)
    if target is not None:
        path = Path(os.path.normpath(base / layout.BY_NAME / target))
        inside = path.parent in (base, base / layout.BASE_TRAINING)
        if inside and layout.run_number(path.name) is not None and path.is_dir():
            return path, None
    named = [record for record in list_runs(base) if record.name == name]
    return (base / named[-1].run, None) if named else None


def _no_such_run(base: Path, wanted: layout.RunRef) -> PitstopError:
    if wanted.path is not None:
        return RunError(
            f"{wanted.path} is neither a run directory nor a checkpoint in one",
            hint="a run directory is named like run_003; `pitstop list-runs` shows what there is",
        )
    records = list_runs(base)
    if not records:
        return RunError(
            f"run '{wanted.text}' not found: there are no runs in {base}",
            hint="start one with `pitstop train`, or point at another directory with --base-dir",
        )
    return RunError(f"run '{wanted.text}' not found in {base}", hint=_what_is_there(wanted, records))


def _what_is_there(wanted: layout.RunRef, records: list[RunRecord]) -> str:
    if wanted.name is not None:
        import difflib

        near = difflib.get_close_matches(wanted.name, [record.name for record in records], n=1)
        if near:
            return f"did you mean {near[0]}? `pitstop list-runs` shows all {len(records)}"
    shown = [record.run for record in records[-8:]]
    more = f"{len(records) - len(shown)} older ones, " if len(records) > len(shown) else ""
    return f"there: {more}{', '.join(shown)}"


def _not_made(path: Path, error: OSError) -> PitstopError:
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG}:
        return RunError(
            f"no run can be made in {path}: {error.strerror or error}",
            hint="choose another directory with --base-dir (OUTPUT_DIR), or make this one writable",
        )
    return failed_save(path, error)


def _plain(number: float) -> float:
    return int(number) if float(number).is_integer() else number


def _json_bytes(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _now_text() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
