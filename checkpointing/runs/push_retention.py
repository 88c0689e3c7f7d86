"""Which checkpoints of a repository stay there: those of the run's line, the newest, and the best."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime

from pitstop.checkpointing.runs.inventory import RemoteCheckpoint
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.store import choose_best


def superseded(run: RunDirectory, entries: Iterable[RemoteCheckpoint]) -> list[RemoteCheckpoint]:
    """Those of ``entries`` that belong to a line of the run which a later resume from an older checkpoint left."""
    resumes = [
        (datetime.fromisoformat(resume.at), resume.step)
        for resume in run.metadata().resumes
        if resume.at and resume.step is not None
    ]
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
