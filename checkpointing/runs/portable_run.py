"""A run's own documents as another machine may have them: without secrets and without paths of this one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pitstop.checkpointing.disk import layout, metrics_log
from pitstop.checkpointing.runs.inventory import METADATA_KEYS
from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.portable_paths import portable, portable_settings
from pitstop.configs.secrets import mask


def portable_config(run: RunDirectory) -> dict[str, Any]:
    """config.json without where its values came from, and without machine paths."""
    return portable_settings({key: value for key, value in run.config().items() if key != "sources"})


def portable_metadata(run: RunDirectory) -> Metadata:
    """The part of metadata.json that another machine needs, without machine paths."""
    metadata = run.metadata()
    return Metadata({key: _without_paths(metadata.content.get(key)) for key in METADATA_KEYS})


def _without_paths(value: Any) -> Any:
    if isinstance(value, str):
        return portable(value)
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def step_rows(run: RunDirectory) -> list[dict[str, Any]]:
    """The rows of metrics.jsonl that belong to a step."""
    return [row for row in metrics_log.read_rows(run.metrics_path) if type(row.get("step")) is int]


def portable_files(run: RunDirectory, last_step: int) -> dict[str, bytes]:
    """The documents by name, as they are written; the log of metrics goes as far as ``last_step``."""
    return {
        layout.CONFIG: _document(portable_config(run)),
        layout.METADATA: _document(portable_metadata(run).content),
        layout.METRICS: "".join(json.dumps(row) + "\n" for row in step_rows(run) if row["step"] <= last_step).encode(),
    }


def _document(content: Mapping[str, Any]) -> bytes:
    return mask(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
