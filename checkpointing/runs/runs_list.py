"""The runs of a directory as plain dictionaries, for scripts and notebooks. Imports no torch."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.metadata import INTERRUPTED


def list_all_runs(base_dir: Path | str = "checkpoints") -> list[dict[str, Any]]:
    """Every run below ``base_dir``, the LoRA runs first, each group by number; [] where there is no such directory.

    Each has ``run_number``, ``experiment_name``, ``created_at`` (ISO 8601) and ``checkpoints_count``, and all that
    ``pitstop list-runs --json`` shows: ``name``, ``run`` (a reference that every command takes), ``path``, ``status``,
    ``step``, ``epoch``, ``best_checkpoint``, ``size`` in bytes and so on.
    """
    return [{**asdict(record), "checkpoints_count": record.checkpoints} for record in list_runs(base_dir)]


def unfinished_run(base_dir: Path | str, experiment_name: str) -> int | None:
    """The number of the newest run of ``experiment_name`` that was cut off; None where none was, so that a new one starts.

    Cut off is a run whose process died or was stopped, or that has not begun. ``base_dir`` as for ``CheckpointManager``.
    """
    base, group = layout.split_base(base_dir)
    runs = [record for record in list_runs(base) if record.run.rpartition("/")[0] == group]
    candidates = [record for record in runs if record.experiment_name == experiment_name]
    cut_off = [record.run_number for record in candidates if record.status in (INTERRUPTED, "created", "failed")]
    return max(cut_off, default=None)
