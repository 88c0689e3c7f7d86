"""``pitstop list-runs``: every run with how far it got and its best checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pitstop.checkpointing.runs.listing import STATUSES, RunRecord
from pitstop.checkpointing.runs.listing import list_runs as read_runs
from pitstop.cli.arguments.base_dir import BaseDirOption, EnvFileOption, base_directory
from pitstop.cli.terminal.output import Column, is_terminal, notice, print_document, print_json, star
from pitstop.cli.terminal.tables import print_table
from pitstop.configs.errors import SettingsError
from pitstop.configs.shown import human_size

if TYPE_CHECKING:
    from pitstop.checkpointing.runs.push_records import Standing

COLUMNS = (
    Column("Run #", "right"),
    Column("Name"),
    Column("Experiment"),
    Column("Dataset"),
    Column("Status"),
    Column("Created"),
    Column("Progress", "right"),
    Column("Checkpoints", "right"),
    Column("Best"),
    Column("Size", "right"),
    Column("Hub"),
)
# What a narrow terminal can do without, first to go first.
_DISPENSABLE = ("Size", "Experiment", "Created", "Checkpoints", "Dataset", "Hub")
_DISPENSABLE_UNPUSHED = ("Size", "Hub", "Experiment", "Created", "Checkpoints", "Dataset")
_NOTHING = "-"
_LONGEST_PROBLEM = 40
"""Of why pushing a run failed so much is shown in a pipe; `pitstop show` and --json have all of it."""

_SORT_KEYS: dict[str, Callable[[RunRecord], Any]] = {
    "number": lambda record: (record.run.rpartition("/")[0], record.run_number),
    "name": lambda record: record.name.lower(),
    "experiment": lambda record: (record.experiment_name or "").lower(),
    "dataset": lambda record: (record.dataset or "").lower(),
    "status": lambda record: record.status,
    "created": lambda record: _timestamp(record.created_at),
    "progress": lambda record: (record.step or 0) / record.total_steps if record.total_steps else 0.0,
    "checkpoints": lambda record: record.checkpoints,
    "best": lambda record: _best_first(record),
    "size": lambda record: record.size,
    # Failed runs first, then by how many checkpoints are missing on the Hub; runs that are not pushed last.
    "hub": lambda record: (record.hub.state != "failed", -(record.hub.behind or 0)) if record.hub else (2, 0),
}


def list_runs(
    sort: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help=f"Sort by {', '.join(_SORT_KEYS)}; -COLUMN reverses the order (default: number)."),
    ] = None,
    status: Annotated[
        str | None, typer.Option(metavar="STATUS", help=f"Only runs with this status: {', '.join(STATUSES)}.")
    ] = None,
    task: Annotated[str | None, typer.Option(metavar="TASK", help="Only runs of this task, for example sft.")] = None,
    base_dir: BaseDirOption = None,
    env_file: EnvFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print the runs as a JSON array.")] = None,
) -> None:
    """List all runs with their status, progress and best checkpoint.

    A star marks the best of the runs with the same data and monitored metric. Size is that of the run's checkpoints. Hub
    says whether all checkpoints of a pushed run have arrived there.

    Examples:

      pitstop list-runs
      pitstop list-runs --sort best
      pitstop list-runs --sort -created --status completed
      pitstop list-runs --json | jq '.[] | select(.is_best) | .name'
    """
    column = (sort or "number").removeprefix("-")
    if column not in _SORT_KEYS:
        raise SettingsError(f"--sort {sort}: there is no such column.", hint=f"There are: {', '.join(_SORT_KEYS)}.")
    if status is not None and status not in STATUSES:
        raise SettingsError(f"--status {status}: no run ever has this status.", hint=f"There are: {', '.join(STATUSES)}.")
    base = base_directory(base_dir, env_file)
    all_records = read_runs(base)
    records = [record for record in all_records if status in (None, record.status) and task in (None, record.task)]
    records.sort(key=_SORT_KEYS[column], reverse=(sort or "").startswith("-"))
    if json_output:
        _print_json([as_json(record) for record in records])
    elif records:
        _print(records)
    elif all_records:
        notice(f"none of the {len(all_records)} runs in {base} fits --status or --task")
    else:
        notice(f"no runs in {base} yet; start one with `pitstop train`, or look elsewhere with --base-dir")


def _print_json(runs: list[dict[str, Any]]) -> None:
    """One run a line: a third of the time of indented JSON, and ``grep`` can read it too."""
    try:
        lines = [json.dumps(run, ensure_ascii=False, allow_nan=False) for run in runs]
    except ValueError:  # NaN in a metadata.json that something else wrote
        print_json(runs)
        return
    print_document("[\n" + ",\n".join(lines) + "\n]" if lines else "[]")


def _print(records: list[RunRecord]) -> None:
    mark = star()
    rows = [_row(record, mark, reasons=not is_terminal()) for record in records]
    is_pushed = any(record.hub is not None for record in records)
    drop = _DISPENSABLE if is_pushed else _DISPENSABLE_UNPUSHED
    print_table(COLUMNS, rows, shorten="Name", drop=drop, styles=_STYLES)
    if is_terminal():
        _explain(records, mark)


def _explain(records: list[RunRecord], mark: str) -> None:
    if any(record.is_best for record in records):
        notice(f"{mark} best of the runs with the same data and metric")
    failed = next((record for record in records if record.hub is not None and record.hub.state == "failed"), None)
    if failed is not None:
        notice(f"pitstop show {failed.run} says why pushing failed")


def _row(record: RunRecord, mark: str, *, reasons: bool) -> list[str]:
    group = record.run.rpartition("/")[0]
    return [
        f"{group}/{record.run_number}" if group else str(record.run_number),
        record.name,
        record.experiment_name or _NOTHING,
        record.dataset or _NOTHING,
        record.status,
        (record.created_at or _NOTHING)[:16].replace("T", " "),
        progress_text(record),
        str(record.checkpoints),
        best_text(record.best_checkpoint, f" {mark}" if record.is_best else ""),
        human_size(record.size),
        hub_text(record.hub, reasons=reasons),
    ]


_COLOURS = {
    "running": "cyan",
    "completed": "green",
    "failed": "red",
    "incomplete": "red",
    "interrupted": "yellow",
    "stopped": "yellow",
}
_HUB_COLOURS = {"in step": "green", "failed": "red"}
_STYLES: dict[str, Callable[[str], str | None]] = {
    "Status": _COLOURS.get,
    "Best": lambda text: "green" if text.endswith(("★", "*")) else None,
    "Hub": lambda text: _HUB_COLOURS.get(text, "yellow" if text.endswith("behind") else None),
}


def progress_text(record: RunRecord) -> str:
    """``60/100  60%`` in optimizer steps, or what of it is known."""
    if record.step is None:
        return _NOTHING
    if not record.total_steps:
        return f"step {record.step}" if record.step else _NOTHING
    return f"{record.step}/{record.total_steps} {record.step * 100 // record.total_steps:>3}%"


def best_text(best: dict[str, Any] | None, mark: str = "") -> str:
    """``0.1284 val_loss``, or a dash where nothing was measured."""
    value = (best or {}).get("value")
    if type(value) not in (int, float):
        return _NOTHING
    return f"{value:.4g} {(best or {}).get('metric')}{mark}"


def hub_text(hub: Standing | None, *, reasons: bool) -> str:
    """``in step``, ``2 behind`` or ``failed``, with ``reasons`` ``failed: …``; a dash for a run that is not pushed."""
    if hub is None:
        return _NOTHING
    if hub.state == "behind":
        return f"{hub.behind} behind"
    if hub.state != "failed" or not reasons:  # a terminal is better filled with the other columns
        return hub.state
    problem = " ".join((hub.problem or "").split())
    if len(problem) > _LONGEST_PROBLEM:
        problem = f"{problem[: _LONGEST_PROBLEM - 1].rstrip()}…"
    return f"failed: {problem}"


def _best_first(record: RunRecord) -> tuple[bool, float]:
    """Best first; runs without a value last."""
    best = record.best_checkpoint or {}
    value = best.get("value")
    if value is None or type(value) not in (int, float):
        return True, 0.0
    return False, float(-value if best.get("mode") == "max" else value)


def _timestamp(text: str | None) -> float:
    from datetime import datetime

    try:
        return datetime.fromisoformat(text or "").timestamp()
    except (ValueError, OverflowError):
        return 0.0


def as_json(record: RunRecord) -> dict[str, Any]:
    """One run as ``--json`` prints it."""
    return {
        "run_number": record.run_number,
        "run": record.run,
        "path": record.path,
        "name": record.name,
        "experiment_name": record.experiment_name,
        "task": record.task,
        "method": record.method,
        "model": record.model,
        "dataset": record.dataset,
        "status": record.status,
        "created_at": record.created_at,
        "updated_at": record.updated_at,
        "progress": {
            "step": record.step,
            "total_steps": record.total_steps,
            "epoch": record.epoch,
            "total_epochs": record.total_epochs,
        },
        "checkpoints": record.checkpoints,
        "best_checkpoint": record.best_checkpoint,
        "is_best": record.is_best,
        "size_bytes": record.size,
        "hub": record.hub.as_dict() if record.hub else None,
    }
