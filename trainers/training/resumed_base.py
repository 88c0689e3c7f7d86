"""The model that a resumed run goes on with: found again, the same as it was, and made again where the run's copy is lost."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import CheckpointError, ModelError, PitstopError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.records import NoData
from pitstop.trainers.machine.hardware import Hardware
from pitstop.trainers.machine.processes import from_first
from pitstop.trainers.models.origin import is_base
from pitstop.trainers.models.source import ModelSource, NoModel, QuantisedModel
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.registry import family_of
from pitstop.trainers.training.building import BaseOnDisk, place_base
from pitstop.trainers.training.chosen import ChosenCheckpoint
from pitstop.trainers.training.inputs import Inputs
from pitstop.trainers.training.request import ResumeRequest


@contextlib.contextmanager
def naming_new_places() -> Iterator[None]:
    """Tell whoever resumes where the run's model or data no longer lie how to give the new place."""
    try:
        yield
    except NoModel as error:
        raise _with_new_place(error, "--model-id PATH gives") from error
    except NoData as error:
        raise _with_new_place(error, "--dataset PATH and --eval-dataset PATH give") from error


def _with_new_place(error: PitstopError, options: str) -> PitstopError:
    hint = f"{error.hint} If it lies elsewhere on this machine, {options} the new place."
    return type(error)(error.message, hint=hint)


def find_source(chosen: ChosenCheckpoint, request: ResumeRequest, reporter: Reporter) -> ModelSource:
    """The model to go on with: the checkpoint itself where all weights are trained, else what the settings name.

    Where that is not found it is the run's own copy, which holds the tokenizer too, so that a run goes on without the model that it
    was made from. Whether the tokenizer gives the same tokens, the fingerprint of the data tells. Raises ``ModelError``.
    """
    if (source := chosen.whole_model()) is not None:
        return source
    try:
        return family_of(chosen.settings).find(chosen.settings, None if request.allow_changed_base else chosen.known_base)
    except (NoModel, QuantisedModel) as error:
        if "model.id" in chosen.changes:
            raise
        reason = "is not found from here" if isinstance(error, NoModel) else "is stored quantised"
        try:
            path = chosen.own_base().path
        except PitstopError as problem:
            if not _had_copy(chosen.run):
                raise error from None
            message = f"{error.message} The run's own copy cannot be used: {problem.message}"
            raise type(error)(message, hint=error.hint) from problem
    model_id = str(chosen.settings.model.id)
    reporter.notice(Notice(f"{{subject}} {reason}: the run's own copy of it is used", model_id))
    return ModelSource(model_id, path, None, is_copy=True)


def place_base_again(
    chosen: ChosenCheckpoint, request: ResumeRequest, inputs: Inputs, hardware: Hardware, reporter: Reporter
) -> BaseOnDisk:
    """The base that the checkpoint was trained on: the run's own copy, or its source.

    A copy that is missing or damaged is made again from the source if that still is what it was. The source may have moved: what
    is there must be the same. Raises ``ModelError`` for a base that has changed.
    """
    source, settings = inputs.source, chosen.settings
    if source.is_copy:
        return BaseOnDisk(source.path, stored=True, digest=chosen.base_digest)
    if "model.id" not in chosen.changes or is_base(source, settings, hardware.precision, chosen.base_digest):
        try:  # the first process decides: it may make the copy again while others still look at it
            path = from_first(lambda: os.fsencode(chosen.own_base().path), hardware.device)
            return BaseOnDisk(Path(os.fsdecode(path)), stored=True, digest=chosen.base_digest)
        except CheckpointError as error:
            if settings.training.checkpoint.save_base_model and _had_copy(chosen.run):
                remedy = f"It is made again from {source.model_id}."
                reporter.notice(Notice("{subject}", error.message.rstrip("."), remedy=remedy, loss=True))
    if not is_base(source, settings, hardware.precision, chosen.base_digest):
        if not request.allow_changed_base:
            raise ModelError(
                f"The base model {source.model_id} is not the one that {chosen.run.label} was trained on (its files have changed).",
                hint="Restore the files, or pass --allow-changed-base to train on the changed base.",
            )
        reporter.notice(
            Notice("The base model has changed; the run goes on with the changed one and will not be exact", loss=True)
        )
    base = place_base(settings, source, inputs.tokenizer, hardware, reporter)
    if base.stored and hardware.is_main:
        BaseModels(chosen.run.base_dir).relink(chosen.run.path, base.digest)
    return base


def _had_copy(run: RunDirectory) -> bool:
    """Whether the run had a copy of its base: one that was pulled without has not lost any."""
    return run.metadata().base_model.saved is not False
