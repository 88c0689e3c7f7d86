"""A run's own documents as another machine may have them: without secrets and without paths of this one."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pitstop.checkpointing.disk import layout, metrics_log
from pitstop.checkpointing.runs.inventory import METADATA_KEYS
from pitstop.checkpointing.runs.metadata import Metadata
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.portable_paths import portable, portable_settings
from pitstop.configs.secrets import mask


@dataclass(frozen=True)
class PortableRun:
    """config.json without where its values came from, what of metadata.json another machine needs, and the log's rows of a step."""

    config: Mapping[str, Any]
    metadata: Metadata
    rows: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, run: RunDirectory) -> PortableRun:
        """Read what ``run`` says now. ``CheckpointError`` where it is damaged."""
        recorded = run.metadata().content
        metadata = Metadata({key: _without_paths(recorded.get(key)) for key in METADATA_KEYS})
        rows = [row for row in metrics_log.read_rows(run.metrics_path) if type(row.get("step")) is int]
        return cls(portable_settings(run.initial_settings()), metadata, rows)

    def files(self, last_step: int) -> dict[str, bytes]:
        """The documents by name, as they are written; the log of metrics goes as far as ``last_step``."""
        return {
            layout.CONFIG: _document(self.config),
            layout.METADATA: _document(self.metadata.content),
            layout.METRICS: "".join(json.dumps(row) + "\n" for row in self.rows if row["step"] <= last_step).encode(),
        }


def _without_paths(value: Any) -> Any:
    if isinstance(value, str):
        return portable(value)
    if isinstance(value, dict):
        return {key: _without_paths(item) for key, item in value.items()}
    return [_without_paths(item) for item in value] if isinstance(value, list) else value


def _document(content: Mapping[str, Any]) -> bytes:
    return mask(json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()
