"""A run as text and plain dictionaries, for ``CheckpointManager``. Reads only, and imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import CheckpointInfo, read_verified
from pitstop.checkpointing.runs.metadata import RecordedCheckpoint
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, SettingsError
from pitstop.configs.shown import human_size


def checkpoints(run: RunDirectory) -> list[dict[str, Any]]:
    """The whole checkpoints by step, as metadata.json lists them."""
    return [dict(RecordedCheckpoint.of(info, run.base_dir).content) for info in run.store.list()]


def best(run: RunDirectory) -> dict[str, Any] | None:
    """The best checkpoint with the metric that it was chosen by; None where none has a metric."""
    entry = run.best_entry(run.store.list())
    return None if entry is None else dict(entry.content)


def text(run: RunDirectory) -> str:
    """The run in a few lines."""
    metadata = run.metadata()
    infos = run.store.list()
    best = run.best_entry(infos)
    lines = [
        f"Run {run.number}: {metadata.name} ({run.status()})",
        f"  experiment   {metadata.experiment_name or '-'}",
        f"  created      {metadata.created_at}",
        f"  progress     step {metadata.progress.step or 0}, epoch {metadata.progress.epoch or 0:g}",
        f"  checkpoints  {len(infos)} ({human_size(sum(info.size for info in infos))}) in {run.store.directory}",
    ]
    for info in infos:
        mark = "  ← best" if best is not None and info.name == best.name else ""
        metrics = " ".join(
            f"{name}={'nan' if value is None else format(value, '.4g')}" for name, value in sorted(info.metrics.items())
        )
        lines.append(f"    {info.name}  step {info.step}  {metrics}{mark}".rstrip())
    return "\n".join(lines)


def adapter_config(info: CheckpointInfo) -> dict[str, Any]:
    """What the adapter of a checkpoint is like; {} where it has none that can be read."""
    try:
        content = json.loads(read_verified(info, layout.ADAPTER_CONFIG))
    except (CheckpointError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def plain(config: Mapping[str, Any]) -> dict[str, Any]:
    """``config`` as JSON gives it back. ``SettingsError`` names what JSON cannot hold."""
    try:
        copied = json.loads(json.dumps(config, allow_nan=False, default=_as_text))
    except (TypeError, ValueError) as error:
        raise SettingsError(
            f"training_config or lora_config cannot be written as JSON: {error}",
            hint="give numbers, text, lists and dictionaries",
        ) from error
    return dict(copied)


def _as_text(value: Any) -> Any:
    if isinstance(value, (set, frozenset)):
        return sorted(value)
    if hasattr(value, "__fspath__"):
        return str(value)
    raise TypeError(f"a {type(value).__name__} ({str(value)[:60]})")
