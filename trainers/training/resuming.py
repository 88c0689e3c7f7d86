"""Opening a run to continue it: which checkpoint it goes on from, and whether there is anything left to do."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.disk import dotted, layout
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.portable_paths import portable_value
from pitstop.checkpointing.store.store import CheckpointInfo, DamagedError, RecoveryReport
from pitstop.configs.errors import CheckpointError, RunError
from pitstop.configs.leaves import by_path
from pitstop.configs.load import Loaded
from pitstop.configs.notices import Notice
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.hooks import Judge
from pitstop.trainers.loop.loop import ALL_DONE, Plan
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.processes import from_first
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.chosen import ChosenCheckpoint, open_checkpoint, settings_of, start_settings
from pitstop.trainers.training.inputs import Inputs
from pitstop.trainers.training.request import ResumeRequest

_FALLBACK = "or add --fallback new to start a new run with the same settings"


def start_again(request: ResumeRequest) -> Loaded:
    """The settings of the run's start with the flags, for a new run in its place."""
    run, _ = locate(request.base_dir, request.run)
    start = start_settings(run)
    checkpoint = {**start["training"]["checkpoint"], "run_number": None, "resume_from_run": None}
    data = {**start.get("data", {}), "rendering": by_path()["data.rendering"].default}
    start = {**start, "training": {**start["training"], "checkpoint": checkpoint}, "data": data}
    return settings_of(run, start, f"{run.label}/{layout.CONFIG}", request.flags, request.env_file)


@contextlib.contextmanager
def open_run(request: ResumeRequest, reporter: Reporter) -> Iterator[ChosenCheckpoint]:
    """Lock the run, bring it to a clean state and choose the checkpoint; the lock is held while inside.

    Raises ``RunError`` (no such run, in use, finished), ``CheckpointError`` (nothing valid) and ``SettingsError`` (an
    override that would make another run of it).
    """
    run, in_reference = locate(request.base_dir, request.run)
    run.check_made_by_train("resume", f"start that program again with run_number={run.number}")
    if not request.flags and not request.checkpoint and not in_reference:
        _refuse_finished_early(run)
    with run.lock():
        report = run.store.recover()
        for name, reason in report.quarantined:
            place = run.store.directory / layout.DAMAGED
            reporter.notice(Notice(f"{{subject}} is damaged and was set aside in {place}", name, place=reason, loss=True))
        with_metadata(run, reporter)
        requested = request.checkpoint or in_reference
        if requested:
            info = _named(run, requested, report)
        else:
            try:
                info = report.checkpoint()
            except CheckpointError as error:
                raise CheckpointError(f"{run.label}: {error.message}", hint=f"{error.hint}; {_FALLBACK}") from error
        if report.quarantined and not requested:
            reporter.notice(Notice("Going on from {subject}, the newest checkpoint that is whole", info.name, loss=True))
        yield open_checkpoint(run, info, request.flags, request.env_file)


def _named(run: RunDirectory, name: str, report: RecoveryReport) -> CheckpointInfo:
    """The checkpoint that the user asked for. Where that is damaged it is refused: another one would be a silent change."""
    try:
        return run.store.verify(name)
    except CheckpointError as error:
        reason = dict(report.quarantined).get(layout.normal_checkpoint(name))
        if reason is None and not isinstance(error, DamagedError):
            raise  # there is no such checkpoint, and the error says which there are
        run.store.recover(deep=True)
        valid = ", ".join(info.name for info in run.store.list()) or "none"
        raise CheckpointError(
            f"{run.label}: checkpoint '{name}' is damaged and was set aside in {run.store.directory / layout.DAMAGED}: "
            f"{reason or error.message}",
            hint=f"verified and whole: {valid}; {_FALLBACK}",
        ) from error


def with_metadata(run: RunDirectory, reporter: Reporter) -> None:
    """Make sure that metadata.json is readable, rebuilding it from the checkpoints if it is not."""
    try:
        run.metadata()
    except CheckpointError as error:
        reporter.warn(f"{error.message}; it is rebuilt from config.json and the checkpoints.")
        run.rebuild_metadata()


def _refuse_finished_early(run: RunDirectory) -> None:
    """Save the user the loading of model and data where metadata already tells that nothing is left."""
    metadata = run.readable_metadata()
    if metadata.has_ended:
        progress = metadata.progress
        raise finished(run, progress.step, progress.total_epochs, metadata.status_reason or "")


def finished(run: RunDirectory, step: int | None, epochs: float | None, reason: str) -> RunError:
    """The error of whoever resumes a run that has nothing left to train, after ``epochs`` epochs and ``step`` steps."""
    suffix = f" ({reason})" if reason and reason != ALL_DONE else ""
    trained = "" if epochs is None else f"{epochs:g} epoch{'' if epochs == 1 else 's'}, "
    by_steps = dotted.at(run.settings(), "training.max_steps") is not None  # those in force: a resume may have changed it
    longer = f"--max-steps {2 * (step or 1)}" if by_steps else f"--epochs {math.ceil(epochs or 1) + 5}"
    return RunError(
        f"{run.label} is finished: {trained}step {step}{suffix}.",
        hint=f"To train it further, give a larger total: pitstop resume {run.ref} {longer}",
    )


def open_together(
    request: ResumeRequest, reporter: Reporter, stack: contextlib.ExitStack, device: torch.device
) -> ChosenCheckpoint:
    """Open the run on the first process and give every process its choice, or its error; the lock lives as long as ``stack``.

    Raises what ``open_run`` raises, on all of them.
    """
    chosen: ChosenCheckpoint | None = None

    def choose() -> bytes:
        nonlocal chosen
        chosen = stack.enter_context(open_run(request, reporter))
        return json.dumps({"run": str(chosen.run.path), "checkpoint": chosen.info.name}).encode()

    choice = json.loads(from_first(choose, device))
    if chosen is not None:
        return chosen
    run = RunDirectory(Path(choice["run"]))
    return open_checkpoint(run, run.store.resolve(choice["checkpoint"]), request.flags, request.env_file)


def check_unfinished(
    chosen: ChosenCheckpoint, inputs: Inputs, shape: BatchShape, progress: Progress, device: torch.device
) -> str | None:
    """Why training is over although the run does not say so: its process died between its last save and its last word.

    None where there is something left to train. The first process decides, since it changes what is on record as soon as it goes on.
    Raises ``RunError`` where the run is finished and says so.
    """
    plan = Plan.from_here(progress, len(inputs.train), shape, chosen.settings.training)
    reason: str | None = json.loads(from_first(lambda: json.dumps(_why_over(chosen, inputs, plan, progress)).encode(), device))
    return reason


def _why_over(chosen: ChosenCheckpoint, inputs: Inputs, plan: Plan, progress: Progress) -> str | None:
    ended = chosen.run.metadata().has_ended
    if progress.boundary_pending:
        return None
    if progress.step < plan.total_steps:
        # Whoever changed something, now or in a resume from here that died, wants to train on.
        if ended or _more_than_moved(chosen.changes) or _more_than_moved(chosen.run.last_changes(chosen.info.name)):
            return None
        return Judge(chosen.settings.training, progress, evaluates=inputs.evaluates(chosen.settings)).patience_is_over()
    if ended:
        # Not the settings' epochs: they may ask for less than has been trained.
        raise finished(chosen.run, progress.step, chosen.run.metadata().progress.total_epochs, "")
    return ALL_DONE


def _more_than_moved(changes: Mapping[str, Any]) -> bool:
    """Whether there is a change besides another directory in which a model or data of the same name lies."""
    return any(portable_value(saved) != portable_value(current) for saved, current in changes.values())
