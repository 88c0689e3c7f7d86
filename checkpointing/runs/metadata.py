"""metadata.json: what a run says of itself, beside the settings it was started with."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from pitstop.checkpointing.disk.dotted import at
from pitstop.configs.datasets import without_weight

METADATA_VERSION = 1


def initial_metadata(number: int, name: str, config: Mapping[str, Any], moment: datetime) -> dict[str, Any]:
    """metadata.json of a run that starts at ``moment`` with the settings ``config``."""
    created = (moment if moment.tzinfo else moment.astimezone()).isoformat(timespec="seconds")
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
        "created_at": created,
        "updated_at": created,
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


def plain_number(number: float) -> float:
    """``number`` as an integer where it is one."""
    return int(number) if float(number).is_integer() else number


def json_bytes(content: Mapping[str, Any]) -> bytes:
    """``content`` as the JSON files of a run hold it."""
    return (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def now_text() -> str:
    """The time in ISO 8601 with its offset, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")
