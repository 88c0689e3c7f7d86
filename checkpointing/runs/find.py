"""Finding the run that a user means: by number, name or path, perhaps with one of its checkpoints."""

# Abspath keeps links as the user named them, which resolve() does not.
# ruff: noqa: PTH100
from __future__ import annotations

import os
from pathlib import Path

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.runs import link_guard, name_links
from pitstop.checkpointing.runs.listing import RunRecord, list_runs
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import PitstopError, RunError


def locate(base_dir: Path | str, ref: str | int) -> tuple[RunDirectory, str | None]:
    """The run that ``ref`` means (see ``layout.parse_run_ref``), and its checkpoint if it picks one. ``RunError`` says what is there."""
    base = Path(os.path.abspath(base_dir))
    reference = layout.parse_run_ref(ref)
    if reference.path is not None:
        place = _by_path(reference.path)
    elif reference.number is not None:
        place = _by_number(base, reference)
    else:
        place = _by_name(base, str(reference.name))
    if place is None:
        raise _no_such_run(base, reference)
    path, checkpoint = place
    if path.is_symlink():
        raise link_guard.linked_run(path)
    return RunDirectory(path), reference.checkpoint or checkpoint


def _by_number(base: Path, reference: layout.RunRef) -> tuple[Path, str | None] | None:
    name = layout.run_directory_name(reference.number or 0)
    path = base / reference.group / name
    if path.is_dir():
        return path, None
    is_directory_here = reference.text.startswith("run_") and Path(name).is_dir()
    return (Path(os.path.abspath(name)), None) if is_directory_here else None


def _by_path(path: Path) -> tuple[Path, str | None] | None:
    path = Path(os.path.abspath(path))
    if layout.is_checkpoint_name(path.name) or path.name in layout.POINTERS:
        run = path.parent.parent
        is_checkpoint = layout.run_number(run.name) is not None and path.parent == layout.weights_directory(run)
        return (run, path.name) if is_checkpoint and os.path.lexists(path) else None
    path = path.resolve()
    return (path, None) if layout.run_number(path.name) is not None and path.is_dir() else None


def _by_name(base: Path, name: str) -> tuple[Path, str | None] | None:
    target = name_links.target(base / layout.BY_NAME / name)
    if target is not None:
        path = Path(os.path.normpath(base / layout.BY_NAME / target))
        if path.parent in (base, base / layout.BASE_TRAINING) and layout.run_number(path.name) is not None and path.is_dir():
            return path, None
    named = [record for record in list_runs(base) if record.name == name]
    return (base / named[-1].run, None) if named else None


def _no_such_run(base: Path, reference: layout.RunRef) -> PitstopError:
    if reference.path is not None:
        return RunError(
            f"{reference.path} is neither a run directory nor a checkpoint in one",
            hint="a run directory is named like run_003; `pitstop list-runs` shows what there is",
        )
    records = list_runs(base)
    if not records:
        return RunError(
            f"run '{reference.text}' not found: there are no runs in {base}",
            hint="start one with `pitstop train`, or point at another directory with --base-dir",
        )
    return RunError(f"run '{reference.text}' not found in {base}", hint=_what_is_there(reference, records))


def _what_is_there(reference: layout.RunRef, records: list[RunRecord]) -> str:
    if reference.name is not None:
        import difflib

        near = difflib.get_close_matches(reference.name, [record.name for record in records], n=1)
        if near:
            return f"did you mean {near[0]}? `pitstop list-runs` shows all {len(records)}"
    newest = [record.run for record in records[-8:]]
    older = f"{len(records) - len(newest)} older ones, " if len(records) > len(newest) else ""
    return f"there: {older}{', '.join(newest)}"
