"""Everything that is on disk about one run, as plain values: what ``show`` prints and what its ``--json`` holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout, locking
from pitstop.checkpointing.disk.inspection import tree_files, tree_size
from pitstop.checkpointing.disk.storage import read_regular_file
from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.base_models import LINKED, BaseModels
from pitstop.checkpointing.runs.push_records import standing
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import ScannedCheckpoint
from pitstop.configs.errors import CheckpointError

_LONGEST_NOTE = 1 << 20
_METADATA_KEYS = (
    "experiment_name",
    "task",
    "method",
    "model",
    "dataset",
    "status_reason",
    "created_at",
    "updated_at",
    "progress",
    "usage",
    "best_checkpoint",
    "resumes",
    "environment",
    "data",
    "base_model",
    "notices",
)


def report(run: RunDirectory, *, verify: bool, checkpoint: str | None = None) -> dict[str, Any]:
    """All about ``run``; with ``verify`` every checkpoint is hashed again. ``checkpoint`` adds the contents of that one.

    Raises:
        CheckpointError: the run has no ``checkpoint`` of that name, or a newer Pitstop wrote it.
    """
    problems: list[str] = []
    metadata = _metadata(run, problems)
    config = _config(run, problems)
    result: dict[str, Any] = {
        "run_number": run.number,
        "run": run.label,
        "path": str(run.path),
        "name": metadata.get("name") or run.path.name,
        "status": run.status(),
        "in_use_by": locking.owner_of(run.path / layout.LOCK) if run.is_locked() else None,
        **{key: metadata.get(key) for key in _METADATA_KEYS},
        "sources": sources if isinstance(sources := config.pop(layout.SOURCES, None), dict) else {},
        "settings": config,
        "checkpoints": (checkpoints := _checkpoints(run, verify)),
        "hub": _hub(run, checkpoints),
        "set_aside": _set_aside(run),
        "disk": disk_use(run),
        "problems": problems,
    }
    if checkpoint is not None:
        result["checkpoint"] = _contents(run, checkpoint)
    return result


def _metadata(run: RunDirectory, problems: list[str]) -> dict[str, Any]:
    """metadata.json without the parts that are of another type than Pitstop writes: other tools may have had it."""
    try:
        metadata = run.metadata()
    except CheckpointError as error:
        problems.append(error.with_hint)
        return {}
    misfits = [key for key in metadata.misfits() if key in ("name", *_METADATA_KEYS)]
    if misfits:
        problems.append(f"{layout.METADATA}: {', '.join(misfits)}: not what Pitstop writes, so not shown")
    return {key: value for key, value in metadata.content.items() if key not in misfits}


def _config(run: RunDirectory, problems: list[str]) -> dict[str, Any]:
    try:
        return run.config()
    except CheckpointError as error:
        problems.append(error.with_hint)
        return {}


def _checkpoints(run: RunDirectory, verify: bool) -> list[dict[str, Any]]:
    entries = run.store.verify_all() if verify else run.store.scan()
    ordered = sorted((entry.info.order, entry.name, entry) for entry in entries if entry.info is not None)
    intact = [entry for _, _, entry in ordered]
    damaged = [entry for entry in entries if entry.info is None]
    pins = retention.pins(run)
    return [_checkpoint(entry, verify, pins.get(entry.name, ())) for entry in [*intact, *damaged]]


def _checkpoint(entry: ScannedCheckpoint, verified: bool, pins: Sequence[str]) -> dict[str, Any]:
    info = entry.info
    return {
        "name": entry.name,
        "step": info.step if info else None,
        "epoch": info.epoch if info else None,
        "metrics": dict(info.metrics) if info else {},
        "size_bytes": info.size if info else None,
        "saved_at": info.saved_at.isoformat() if info else None,
        "state": "damaged" if info is None else "verified" if verified else "complete",
        "problem": entry.problem,
        "pins": list(pins),
    }


def _hub(run: RunDirectory, checkpoints: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    intact = [(entry["name"], entry["step"], entry["saved_at"]) for entry in checkpoints if entry["step"] is not None]
    hub = standing(run.path, intact)
    waiting = None if hub is None or hub.waiting is None else list(hub.waiting)
    return {**hub.as_dict(), "waiting": waiting} if hub else None


def _set_aside(run: RunDirectory) -> list[dict[str, Any]]:
    return [
        {
            "name": path.name,
            "where": directory,
            "path": str(path),
            "reason": _note(path.with_name(f"{path.name}.reason.txt")),
            "size_bytes": tree_size(path),
        }
        for directory in (layout.DAMAGED, layout.SUPERSEDED)
        for path in run.store.set_aside(directory)
    ]


def _note(path: Path) -> str | None:
    try:
        return read_regular_file(path, limit=_LONGEST_NOTE).decode(errors="backslashreplace").strip()
    except OSError:
        return None


def _contents(run: RunDirectory, checkpoint: str) -> dict[str, Any]:
    info = run.store.resolve(checkpoint)
    manifest = info.manifest
    return {
        "name": info.name,
        "path": str(info.path),
        "step": info.step,
        "epoch": info.epoch,
        "metrics": dict(info.metrics),
        "saved_at": info.saved_at.isoformat(),
        "size_bytes": info.size,
        "world_size": manifest.world_size,
        "files": {name: {"size_bytes": record.size, "sha256": record.sha256} for name, record in sorted(manifest.files.items())},
        "fingerprints": dict(manifest.fingerprints),
        "versions": dict(manifest.versions),
        "pitstop_version": manifest.pitstop_version,
    }


def disk_use(run: RunDirectory) -> dict[str, Any]:
    """Bytes of the run's parts. The base model counts apart: runs that share it share its blocks on the disk."""
    weights = layout.weights_directory(run.path)
    aside = sum(tree_size(weights / directory) for directory in (layout.DAMAGED, layout.SUPERSEDED))
    base = _base_model(run)
    total = tree_size(run.path) - (base["size_bytes"] if base and base["linked"] else 0)
    return {
        "own_bytes": total,
        "checkpoints_bytes": tree_size(weights) - aside,
        "set_aside_bytes": aside,
        "logs_bytes": tree_size(run.logs_dir),
        "base_model": base,
    }


def _base_model(run: RunDirectory) -> dict[str, Any] | None:
    linked = run.path / LINKED
    try:
        location = BaseModels(run.base_dir).base_location(run.path)
    except CheckpointError:
        return None
    size = tree_size(location)
    # Runs that hold hard links to this base; the copy in .base_models is one link more.
    links = [status.st_nlink for status in tree_files(linked)] if location == linked else []
    runs = max(min(links, default=2) - 1, 1) if location == linked else None
    return {
        "path": str(location),
        "size_bytes": size,
        "linked": location == linked,
        "shared_by_runs": runs,
        "saved_bytes": size * (runs - 1) if runs else None,
    }
