"""What runs there are, read as fast as it goes: a table of a thousand runs must not keep anyone waiting.

Only the standard library's lightest modules are imported, and each run costs one small file.
"""

# Strings and descriptors are several times as fast as pathlib here.
# ruff: noqa: PTH118
from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.runs.metadata import (
    COMPLETED,
    CREATED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    STOPPED,
    Metadata,
    RecordedBest,
    RecordedCheckpoint,
    read_head,
)

if TYPE_CHECKING:
    from pitstop.checkpointing.runs.push_records import Standing

INCOMPLETE = "incomplete"
"""Shown for a run whose metadata.json is missing or unreadable; ``resume`` rebuilds it."""

STATUSES = (CREATED, RUNNING, INTERRUPTED, COMPLETED, FAILED, STOPPED, INCOMPLETE)


@dataclass(slots=True)
class RunRecord:
    """One run as the listing shows it. ``size`` is the bytes of its checkpoints, times are ISO 8601 with an offset."""

    run_number: int
    run: str
    """``run_003`` or ``base_training/run_003``: also a reference that every command takes."""
    path: str
    name: str
    experiment_name: str | None
    task: str | None
    method: str | None
    model: str | None
    dataset: str | None
    status: str
    created_at: str | None
    updated_at: str | None
    step: int | None
    total_steps: int | None
    epoch: float | None
    total_epochs: float | None
    checkpoints: int
    size: int
    best_checkpoint: dict[str, Any] | None
    is_best: bool = False
    """Whether no other run with the same data and monitored metric did better; never set where there is no other."""
    hub: Standing | None = None
    """How the run stands with the Hub; None where it is not pushed."""


def list_runs(base_dir: Path | str) -> list[RunRecord]:
    """All runs below ``base_dir``, LoRA runs by number and then base trainings by number; [] when there is no such directory.

    A run that says it is running while no process holds its lock is ``interrupted``.
    """
    base = os.fspath(base_dir)
    collecting = gc.isenabled()
    gc.disable()  # thousands of small short-lived dictionaries: looking for cycles among them costs a fifth of the time
    try:
        records = [_record(base, "", number, name) for number, name in _runs_in(base)]
        training = os.path.join(base, layout.BASE_TRAINING)
        records += [_record(base, layout.BASE_TRAINING, number, name) for number, name in _runs_in(training)]
    finally:
        if collecting:
            gc.enable()
    mark_best(records)
    return records


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
    cut_off = [record.run_number for record in candidates if record.status in (INTERRUPTED, CREATED, FAILED)]
    return max(cut_off, default=None)


def _runs_in(directory: str) -> list[tuple[int, str]]:
    try:
        with os.scandir(directory) as entries:
            # A link would let another place's run pass for one of these.
            names = [entry.name for entry in entries if entry.name.startswith("run_") and not entry.is_symlink()]
    except (FileNotFoundError, NotADirectoryError):
        return []
    numbered = ((layout.run_number(name), name) for name in names)
    return sorted((number, name) for number, name in numbered if number is not None)


def _record(base: str, group: str, number: int, name: str) -> RunRecord:
    run = f"{group}/{name}" if group else name
    path = f"{base}/{run}"
    metadata = read_head(path)
    progress, checkpoints, best = metadata.progress, metadata.checkpoints, metadata.best_checkpoint
    return RunRecord(
        run_number=number,
        run=run,
        path=path,
        name=metadata.name or name,
        experiment_name=metadata.experiment_name,
        task=metadata.task,
        method=metadata.method,
        model=metadata.model,
        dataset=metadata.dataset,
        status=effective_status(path, metadata),
        created_at=metadata.created_at,
        updated_at=metadata.updated_at,
        step=progress.step,
        total_steps=progress.total_steps,
        epoch=progress.epoch,
        total_epochs=progress.total_epochs,
        checkpoints=len(checkpoints),
        size=sum(checkpoint.size or 0 for checkpoint in checkpoints),
        best_checkpoint=dict(best.content) if best.content else None,
        hub=_hub(path, checkpoints),
    )


def _hub(run: str, checkpoints: Sequence[RecordedCheckpoint]) -> Standing | None:
    if not os.access(f"{run}/hub/outbox.json", os.F_OK):  # no exception for each of a thousand runs that are not pushed
        return None
    from pitstop.checkpointing.runs.push_records import standing

    dated = [(c.name, c.step, c.saved_at) for c in checkpoints if c.name and c.step is not None and c.saved_at]
    return standing(Path(run), dated)


def effective_status(run: str, metadata: Metadata) -> str:
    """The status as it is now: a run whose process died still says ``running`` in its file."""
    status = metadata.status
    if status != RUNNING:
        return INCOMPLETE if status is None else status
    from pitstop.checkpointing.disk.locking import is_locked

    return status if is_locked(Path(run) / layout.LOCK) else INTERRUPTED


def mark_best(records: list[RunRecord]) -> None:
    """Set ``is_best`` on the best run of each data set and monitored metric that at least two runs have a value of."""
    groups: dict[tuple[object, ...], list[tuple[float, RunRecord]]] = {}
    for record in records:
        best = RecordedBest(record.best_checkpoint or {})
        if (value := best.value) is not None:
            signed = -value if best.mode == "max" else value
            groups.setdefault((record.task, record.dataset, best.metric, best.mode), []).append((signed, record))
    for members in groups.values():
        if len(members) > 1:
            min(members, key=lambda member: member[0])[1].is_best = True
