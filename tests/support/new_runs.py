"""Runs without checkpoints, made by the product."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.run_directory import RunDirectory
from support.stores import ForgetfulStorage

CONFIG: dict[str, Any] = {
    "model": {"id": "some/model"},
    "data": {"train": ["data/dataset_minimal.jsonl"]},
    "lora": {"rank": 8},
    "training": {"task": "sft", "method": "lora", "epochs": 5, "max_steps": None, "checkpoint": {"monitor": "f1", "mode": "max"}},
    "naming": {"experiment_name": "first"},
}
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def start(base: Path, name: str = "a-run", **options: Any) -> RunDirectory:
    """A new run below ``base``, as ``create_run`` makes it with ``options``."""
    arguments = {"config": CONFIG, "metadata": {}, "started_at": NOW, "storage": ForgetfulStorage(), **options}
    return create_run(base, name=name, **arguments)
