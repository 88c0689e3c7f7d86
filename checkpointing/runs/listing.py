"""What runs there are, read as fast as it goes: a table of a thousand runs must not keep anyone waiting.

Only the standard library's lightest modules are imported, and each run costs one small file.
"""

# Strings and descriptors are several times as fast as pathlib here.
# ruff: noqa: PTH118
from __future__ import annotations

import gc
import json
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pitstop.checkpointing.disk import layout

if TYPE_CHECKING:
    from pitstop.checkpointing.runs.push_status import Standing

INCOMPLETE = "incomplete"
"""Shown for a run whose metadata.json is missing or unreadable; ``resume`` rebuilds it."""

INTERRUPTED = "interrupted"
STATUSES = ("created", "running", INTERRUPTED, "completed", "failed", "stopped", INCOMPLETE)


MAX_BYTES = 64 * 1024 * 1024
"""A metadata.json longer than this counts as unreadable."""

# A link is not followed, and a pipe without a writer keeps nobody waiting.
_FLAGS = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)

# A line break never stands inside a JSON string, so this is the top-level key and nothing else.
_REST = b',\n  "training_config":'
_NEEDED = {
    "name",
    "experiment_name",
    "task",
    "method",
    "model",
    "dataset",
    "status",
    "created_at",
    "updated_at",
    "progress",
    "checkpoints",
    "best_checkpoint",
}


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
    metadata = _head(path)
    progress = _dict(metadata.get("progress"))
    checkpoints = metadata.get("checkpoints")
    entries = [entry for entry in checkpoints if isinstance(entry, dict)] if isinstance(checkpoints, list) else []
    best = metadata.get("best_checkpoint")
    return RunRecord(
        run_number=number,
        run=run,
        path=path,
        name=_text(metadata.get("name")) or name,
        experiment_name=_text(metadata.get("experiment_name")),
        task=_text(metadata.get("task")),
        method=_text(metadata.get("method")),
        model=_text(metadata.get("model")),
        dataset=_text(metadata.get("dataset")),
        status=effective_status(path, metadata),
        created_at=_text(metadata.get("created_at")),
        updated_at=_text(metadata.get("updated_at")),
        step=_whole(progress.get("step")),
        total_steps=_whole(progress.get("total_steps")),
        epoch=_number(progress.get("epoch")),
        total_epochs=_number(progress.get("total_epochs")),
        checkpoints=len(entries),
        size=sum(_whole(entry.get("size")) or 0 for entry in entries),
        best_checkpoint=best if isinstance(best, dict) else None,
        hub=_hub(path, entries),
    )


def _hub(run: str, checkpoints: list[dict[str, Any]]) -> Standing | None:
    if not os.access(f"{run}/hub/outbox.json", os.F_OK):  # no exception for each of a thousand runs that are not pushed
        return None
    from pitstop.checkpointing.runs.push_status import standing

    known = [(_text(entry.get("name")), _whole(entry.get("step")), _text(entry.get("saved_at"))) for entry in checkpoints]
    return standing(Path(run), [(name, step, saved) for name, step, saved in known if name and step is not None and saved])


def _head(run: str) -> dict[str, Any]:
    """What the listing needs of metadata.json, or all of it; {} when it is missing or is no JSON object.

    As Pitstop writes the file, the long parts come last and each top-level key starts a line. Leaving them unparsed takes
    two thirds off the time of a long listing; a file in any other shape is parsed in full.
    """
    data = _read(run)
    end = data.find(_REST)
    if end > 0:
        content = _parse(data[:end] + b"}")
        if _NEEDED <= content.keys():
            return content
    return _parse(data)


def _read(run: str) -> bytes:
    try:
        # Plain descriptors: a third of the time of an open file object, a thousand times over.
        descriptor = os.open(f"{run}/{layout.METADATA}", _FLAGS)
    except OSError:
        return b""
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_size > MAX_BYTES:
            return b""
        return os.read(descriptor, status.st_size)
    except OSError:
        return b""
    finally:
        os.close(descriptor)


def _parse(data: bytes) -> dict[str, Any]:
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}


def effective_status(run: str, metadata: dict[str, Any]) -> str:
    """The status as it is now: a run whose process died still says ``running`` in its file."""
    status = _text(metadata.get("status"))
    if status is None:
        return INCOMPLETE
    if status != "running":
        return status
    from pitstop.checkpointing.disk.locking import is_locked

    return status if is_locked(Path(run) / layout.LOCK) else INTERRUPTED


def mark_best(records: list[RunRecord]) -> None:
    """Set ``is_best`` on the best run of each data set and monitored metric that at least two runs have a value of."""
    groups: dict[tuple[object, ...], list[tuple[float, RunRecord]]] = {}
    for record, value, key in _valued(records):
        groups.setdefault(key, []).append((value, record))
    for members in groups.values():
        if len(members) > 1:
            min(members, key=lambda member: member[0])[1].is_best = True


def _valued(records: list[RunRecord]) -> Iterator[tuple[RunRecord, float, tuple[object, ...]]]:
    for record in records:
        best = record.best_checkpoint or {}
        value = _number(best.get("value"))
        if value is not None:
            mode = best.get("mode")
            yield record, -value if mode == "max" else value, (record.task, record.dataset, str(best.get("metric")), str(mode))


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if type(value) is int else None


def _number(value: Any) -> float | None:
    return value if type(value) in (int, float) else None
