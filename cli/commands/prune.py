"""``pitstop prune``: apply retention, and take away what crashes and deletions left behind."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.housekeeping import Item, Removal, prune_bases, prune_deleted, prune_run
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.cli.arguments.base_dir import BaseDirOption, EnvFileOption, existing_base_directory, whole_run
from pitstop.cli.terminal.output import Column, notice, print_json, say, short_digest, table, warn
from pitstop.configs.errors import CheckpointError, ResourceError, RunError
from pitstop.configs.shown import human_size


@dataclass
class _Pruning:
    """What was pruned: an entry for each run, as JSON has it, the outcome of all, and the labels of runs that are damaged."""

    runs: list[dict[str, Any]] = field(default_factory=list)
    outcome: Removal = field(default_factory=Removal)
    broken: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Options:
    """The options of the command; ``keep`` None is each run's own setting."""

    keep: int | None
    set_aside: bool
    dry_run: bool


def prune(
    run: Annotated[
        str | None, typer.Argument(metavar="RUN", help="A run: 3, run_003, its name or path (default: all runs).")
    ] = None,
    keep: Annotated[
        int | None,
        typer.Option("--keep-last-n", metavar="N", min=1, help="Keep this many checkpoints (default: each run's own setting)."),
    ] = None,
    dry_run: Annotated[
        bool | None, typer.Option("--dry-run", help="List what would be deleted and its size; delete nothing.")
    ] = None,
    set_aside: Annotated[
        bool | None, typer.Option("--set-aside", help="Also delete checkpoints that were set aside (.damaged, .superseded).")
    ] = None,
    base_dir: BaseDirOption = None,
    env_file: EnvFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print the result as JSON.")] = None,
) -> None:
    """Delete old checkpoints by each run's retention setting, and leftovers of crashes.

    The newest checkpoints stay. The best, the last and the one that the newest resume started from always stay. Without RUN,
    base models that no run uses are deleted too. A run in use is skipped.

    Examples:

      pitstop prune --dry-run
      pitstop prune
      pitstop prune 3 --keep-last-n 2
      pitstop prune 3 --set-aside --dry-run
    """
    base = existing_base_directory(base_dir, env_file)
    options = _Options(keep, bool(set_aside), bool(dry_run))
    pruning = _Pruning()
    if run is None:
        _prune_all(base, options, pruning)
    else:
        hint = "pitstop prune {run} --keep-last-n N --dry-run shows what N would leave"
        _prune_one(whole_run(base, run, "prune thins the checkpoints of a whole run", hint), options, pruning)
    pruning.outcome.add(prune_deleted(base, dry_run=options.dry_run))
    if json_output:
        print_json(_as_json(base, options, pruning))
    else:
        _print(base, options, pruning)
    _raise_problems(pruning)


def _prune_all(base: Path, options: _Options, pruning: _Pruning) -> None:
    for record in list_runs(base):
        run = RunDirectory(Path(record.path))
        try:
            _prune_one(run, options, pruning)
        except RunError as error:
            notice(f"left out: {error.message}")
            pruning.runs.append(_entry(run, None, error.message))
        except CheckpointError as error:
            warn(f"left out: {error.with_hint}")
            pruning.runs.append(_entry(run, None, error.message))
            pruning.broken.append(run.label)
    try:
        pruning.outcome.add(prune_bases(base, set_aside=options.set_aside, dry_run=options.dry_run))
    except RunError as error:
        notice(f"base models are left out: {error.message}")


def _prune_one(run: RunDirectory, options: _Options, pruning: _Pruning) -> None:
    keep = options.keep if options.keep is not None else retention.keep_last_n(run)
    outcome = prune_run(run, keep, set_aside=options.set_aside, dry_run=options.dry_run)
    if keep is None and len(run.store.names()) > 1:
        notice(f"{run.label} keeps all its checkpoints (keep_last_n is none); --keep-last-n N thins it")
    pruning.runs.append(_entry(run, keep, None))
    pruning.outcome.add(outcome)


def _entry(run: RunDirectory, keep: int | None, left_out: str | None) -> dict[str, Any]:
    pins = retention.pins(run) if left_out is None else {}
    return {
        "run": run.label,
        "run_number": run.number,
        "keep_last_n": keep,
        "pins": {name: list(reasons) for name, reasons in pins.items()},
        "left_out": left_out,
    }


def _print(base: Path, options: _Options, pruning: _Pruning) -> None:
    items = pruning.outcome.removed
    if not items:
        say(f"nothing to prune in {base}")
        return
    columns = [Column("Run"), Column("What", wrap=True), Column("Kind"), Column("Size", "right")]
    table(columns, [[item.run or "(shared)", short_digest(item.name), item.kind, human_size(item.size)] for item in items])
    say(f"{'would free' if options.dry_run else 'freed'} {human_size(pruning.outcome.size)}: {', '.join(_counts(items))}")


def _counts(items: list[Item]) -> Iterator[str]:
    for kind in dict.fromkeys(item.kind for item in items):
        count = sum(item.kind == kind for item in items)
        yield f"{count} {kind}{'s' if count > 1 and kind != 'set aside' else ''}"


def _as_json(base: Path, options: _Options, pruning: _Pruning) -> dict[str, Any]:
    return {
        "base_dir": str(base),
        "dry_run": options.dry_run,
        "freed_bytes": pruning.outcome.size,
        "removed": [
            {
                "run": item.run or None,
                "name": item.name,
                "kind": item.kind,
                "path": str(item.path),
                "size_bytes": item.size,
            }
            for item in pruning.outcome.removed
        ],
        "failed": [{"run": item.run or None, "name": item.name, "reason": reason} for item, reason in pruning.outcome.failed],
        "runs": pruning.runs,
    }


def _raise_problems(pruning: _Pruning) -> None:
    """After the rest is done and said: what refused to go, then runs that could not be judged."""
    if pruning.outcome.failed:
        reasons = "\n".join(f"  {reason}" for _, reason in pruning.outcome.failed)
        raise ResourceError(
            f"not everything could be removed:\n{reasons}",
            hint="what is kept is intact; check the permissions and the disk, then prune again",
        )
    if pruning.broken:
        raise CheckpointError(f"left out: {', '.join(pruning.broken)} (the reasons are above)", hint="the others are done")
