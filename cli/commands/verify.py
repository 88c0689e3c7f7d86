"""``pitstop verify``: hash everything again and say what is not what was written."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.listing import list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.runs.verification import DAMAGED, NEWER, OK, Part, Verifier, notes
from pitstop.cli.arguments.base_dir import BaseDirOption, EnvFileOption, existing_base_directory
from pitstop.cli.terminal.output import Column, is_terminal, notice, print_json, say, short_digest, table
from pitstop.configs.errors import CheckpointError
from pitstop.configs.shown import human_size

_NOTHING = "-"
_NAMED = 5


def verify(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN", help="A run: 3, run_003, its name or path; 3@best checks one checkpoint (default: all runs)."
        ),
    ] = None,
    base_dir: BaseDirOption = None,
    env_file: EnvFileOption = None,
    json_output: Annotated[bool | None, typer.Option("--json", help="Print the result as JSON.")] = None,
) -> None:
    """Check the hash of every file of checkpoints and base models, and read each run's JSON files.

    Nothing is changed and no lock is taken, so verify may run beside a training. The exit code is 4 if anything is damaged
    or was written by a newer Pitstop.

    Examples:

      pitstop verify
      pitstop verify 3
      pitstop verify 3@best
      pitstop verify --json | jq -r '.parts[] | select(.state != "ok") | .path'
    """
    base = existing_base_directory(base_dir, env_file)
    parts, run_notes = _check(base, run)
    if json_output:
        print_json(_as_json(base, parts, run_notes))
    else:
        _print(base, parts, run_notes)
    _refuse_bad(parts)


def _check(base: Path, ref: str | None) -> tuple[list[Part], list[str]]:
    """The parts that were checked, and notes on the runs."""
    with _progress_line() as show:
        verifier = Verifier(show)
        if ref is None:
            runs = [RunDirectory(Path(record.path)) for record in list_runs(base)]
            parts = list(verifier.all(base))
            return parts, [note for run in runs for note in notes(run)]
        run, checkpoint = locate(base, ref)
        if checkpoint is None:
            return list(verifier.run(run)), notes(run)
        return list(verifier.checkpoint(run, run.store.resolve_name(checkpoint))), []


@contextmanager
def _progress_line() -> Iterator[Callable[[str], None]]:
    """Gives a function that shows on a terminal's stderr what is being hashed; the line is removed at the end."""
    if not is_terminal(sys.stderr):
        yield lambda part: None
        return
    try:
        yield lambda part: print(f"\r\x1b[Khashing {part[:60]}", end="", file=sys.stderr, flush=True)
    finally:
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)


def _print(base: Path, parts: Sequence[Part], run_notes: Sequence[str]) -> None:
    if not parts:
        notice(f"nothing to verify in {base}: no run, no base model")
        return
    columns = [Column("Run"), Column("What"), Column("State"), Column("Size", "right")]
    sizes = [_NOTHING if part.size is None else human_size(part.size) for part in parts]
    rows = [[part.run or "(shared)", short_digest(part.name), part.state, size] for part, size in zip(parts, sizes, strict=True)]
    table(columns, rows)
    for part in parts:
        if part.problem:
            say(f"{part.state}: {part.problem}")
    for note in run_notes:
        say(f"note: {note}")
    if all(part.state == OK for part in parts):
        notice(f"{len(parts)} checked, all as written")


def _as_json(base: Path, parts: Sequence[Part], run_notes: Sequence[str]) -> dict[str, Any]:
    return {
        "base_dir": str(base),
        "ok": all(part.state == OK for part in parts),
        "checked": len(parts),
        "damaged": sum(part.state == DAMAGED for part in parts),
        "newer": sum(part.state == NEWER for part in parts),
        "parts": [
            {
                "run": part.run or None,
                "what": part.name,
                "path": str(part.path),
                "state": part.state,
                "size_bytes": part.size,
                "problem": part.problem,
            }
            for part in parts
        ],
        "notes": list(run_notes),
    }


def _refuse_bad(parts: Sequence[Part]) -> None:
    damaged = [part for part in parts if part.state == DAMAGED]
    newer = [part for part in parts if part.state == NEWER]
    if damaged:
        raise CheckpointError(
            f"{len(damaged)} of {len(parts)} are damaged: {_names(damaged)}",
            hint="nothing was changed; `pitstop resume` sets damaged checkpoints aside and goes on from the newest whole one",
        )
    if newer:
        raise CheckpointError(
            f"{len(newer)} of {len(parts)} were written by a newer pitstop: {_names(newer)}",
            hint="upgrade: pip install --upgrade pitstop",
        )


def _names(parts: Sequence[Part]) -> str:
    rest = f" and {len(parts) - _NAMED} more" if len(parts) > _NAMED else ""
    return ", ".join(f"{part.run} {short_digest(part.name)}".strip() for part in parts[:_NAMED]) + rest
