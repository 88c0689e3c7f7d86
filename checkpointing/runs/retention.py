"""What is kept of a run, here and in its repository: what is never deleted, whatever its age, and how many others settings keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from pitstop.checkpointing.disk.dotted import at
from pitstop.checkpointing.disk.inspection import CheckpointInfo
from pitstop.checkpointing.runs import base_runs, push_records
from pitstop.checkpointing.runs.inventory import RemoteCheckpoint
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import choose_best
from pitstop.configs.errors import CheckpointError


def pins(run: RunDirectory, *, uploads: bool = True) -> dict[str, tuple[str, ...]]:
    """The checkpoints of ``run`` that retention never deletes, whatever their age, each with the reasons.

    ``best``, ``last``, ``resumed from`` (what the newest resume started from), ``best pointer`` or ``last pointer``
    where that still leads to another one, ``base of run_002`` where another run stands on it, and, with ``uploads``,
    ``not on the Hub yet`` in a run that is pushed. Reads manifests and metadata.json and hashes nothing.
    ``NewerFormatError``.
    """
    infos = run.store.list()
    names = {info.name for info in infos}
    reasons = run.store.pins(infos)
    origin = run.last_resume().checkpoint
    if origin is not None and origin in names:
        reasons.setdefault(origin, []).append("resumed from")
    for name, labels in base_runs.dependents(run).items():
        if name in names:
            reasons.setdefault(name, []).extend(f"base of {label}" for label in labels)
    if uploads:
        for name in unpushed(run, infos):
            reasons.setdefault(name, []).append("not on the Hub yet")
    return {name: tuple(entries) for name, entries in reasons.items()}


def unpushed(run: RunDirectory, infos: list[CheckpointInfo] | None = None) -> list[str]:
    """The checkpoints (of ``infos``, if they are listed already) that are still to be pushed; none in a run that is not."""
    infos = run.store.list() if infos is None else infos
    outbox = push_records.Outbox(run.path)
    try:
        destination = outbox.destination()
        if destination is None:
            return []
        arrived, newest_only = outbox.arrived(), destination.keep_last_n
    except CheckpointError:  # damaged: nobody knows what has arrived, so nothing may go
        arrived, newest_only = push_records.Arrived(), None
    return push_records.behind(arrived, [(info.name, info.step, info.saved_at.isoformat()) for info in infos], newest_only)


def keep_last_n(run: RunDirectory) -> int | None:
    """The run's own ``training.checkpoint.keep_last_n``; None where it keeps all, or does not say."""
    count: Any = at(run.settings(), "training.checkpoint.keep_last_n")
    return count if type(count) is int else None


def superseded(run: RunDirectory, entries: Iterable[RemoteCheckpoint]) -> list[RemoteCheckpoint]:
    """Those of ``entries`` that belong to a line of the run which a later resume from an older checkpoint left."""
    recorded = [(resume.at, resume.step) for resume in run.metadata().resumes]
    resumes = [(datetime.fromisoformat(at), step) for at, step in recorded if at and step is not None]
    return [entry for entry in entries if any(moment > entry.order[1] and entry.step > step for moment, step in resumes)]


def expendable(run: RunDirectory, entries: Sequence[RemoteCheckpoint], keep_last_n: int | None) -> list[RemoteCheckpoint]:
    """Those of ``entries`` that retention on the Hub takes away: all but the newest ``keep_last_n`` and the best."""
    if keep_last_n is None:
        return []
    newest = sorted(entries, key=lambda entry: entry.order)[-keep_last_n:]
    best = best_entry(run, entries)
    return [entry for entry in entries if entry not in newest and entry != best]


def best_entry(run: RunDirectory, entries: Sequence[RemoteCheckpoint]) -> RemoteCheckpoint | None:
    """The best of ``entries`` by the run's own metric; None where none has a metric."""
    chosen = choose_best(entries, run.store.monitor, run.store.mode)
    return chosen[0] if chosen else None
