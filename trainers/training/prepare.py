"""Everything that a training is made of, brought together once: for a new run, or for one that is resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.load import Loaded
from pitstop.configs.schema import Settings
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.hardware import Hardware, open_hardware
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tracking.tracking import Tracking
from pitstop.trainers.training import new_run, resumed_base, resumed_progress
from pitstop.trainers.training.building import BaseOnDisk, Built, build, check_room, place_base
from pitstop.trainers.training.inputs import Inputs, read_inputs
from pitstop.trainers.training.pushing import Pusher, is_pushed, start_pusher, stop_pushing
from pitstop.trainers.training.request import ResumeRequest
from pitstop.trainers.training.resuming import check_unfinished, open_together
from pitstop.trainers.training.run_status import running
from pitstop.trainers.training.samples import SamplePrompts, read_samples


@dataclass(frozen=True)
class Prepared:
    """A training that is ready to begin. Only the first process has ``run`` and ``pusher``.

    ``last_saved_step`` is the step of the checkpoint that it goes on from. ``over`` is why nothing is left to train, where an earlier
    process trained it all and died before it could say so.
    """

    settings: Settings
    hardware: Hardware
    inputs: Inputs
    base: BaseOnDisk
    built: Built
    reporter: Reporter
    run: RunDirectory | None
    progress: Progress
    pusher: Pusher | None
    tracking: Tracking
    samples: SamplePrompts | None
    last_saved_step: int | None = None
    over: str | None = None

    @property
    def shape(self) -> BatchShape:
        """How the settings cut an optimizer step up among the processes."""
        return BatchShape.of(self.settings.training, self.hardware.processes)


def prepare_new(
    loaded: Loaded,
    now: datetime,
    device: torch.device,
    reporter: Reporter,
    stack: contextlib.ExitStack,
    metadata: Mapping[str, Any] | None = None,
) -> Prepared:
    """Bring a new training together, the cheapest mistakes first, and make its run; ``stack`` holds the run's lock and what ends with it.

    ``metadata`` comes into metadata.json beside what is always there. Raises ``PitstopError`` for what the user has to put right.
    """
    settings = loaded.settings
    hardware = open_hardware(settings, device)
    for notice in loaded.notices():
        reporter.notice(notice)
    loaded = new_run.pinned(loaded, device, reporter)
    settings = loaded.settings
    pusher = start_pusher(settings, reporter, stack) if settings.hub.push and hardware.is_main else None
    tracking, inputs, samples = _read(settings, hardware, reporter, pusher, day=new_run.day_of_start(now, device))
    loaded = new_run.with_template(loaded, inputs)
    settings = loaded.settings
    inputs.show_first(reporter.display)
    if hardware.is_main:
        new_run.check_writable(Path(settings.training.checkpoint.base_dir))
    base = place_base(settings, inputs.source, inputs.tokenizer, hardware, reporter)
    built, inputs = _build(settings, base, inputs, hardware, reporter, samples)
    name = new_run.name_of(settings, now, reporter)
    run = None
    if hardware.is_main:
        notices = {"notices": reporter.record(), **(metadata or {})}
        run = new_run.create(loaded, name, now, inputs, base, hardware.environment, notices)
        stack.enter_context(run.lock())
        stack.enter_context(running(run, reporter))
        if base.stored:  # under the lock: whoever deletes runs must find this one in use
            BaseModels(run.base_dir).link_into(run.path, base.digest)
        reporter.line(f"Run {run.ref}: {run.name} in {run.path}")
    _open(run, pusher, tracking, stack)
    return Prepared(settings, hardware, inputs, base, built, reporter, run, Progress(), pusher, tracking, samples)


def prepare_resumed(request: ResumeRequest, device: torch.device, reporter: Reporter, stack: contextlib.ExitStack) -> Prepared:
    """Bring a training together that stands where its checkpoint left it; ``stack`` holds the run's lock and what ends with it.

    Raises ``CheckpointError`` where no checkpoint can be used, and ``PitstopError`` for what else the user has to put right.
    """
    chosen = open_together(request, reporter, stack, device)
    settings = chosen.settings
    hardware = open_hardware(settings, device)
    pushed = is_pushed(settings, chosen.run, chosen.changes)
    pusher = start_pusher(settings, reporter, stack, request.flags) if pushed and hardware.is_main else None
    with resumed_base.naming_new_places():
        find = lambda: resumed_base.find_source(chosen, request, reporter)  # noqa: E731
        tracking, inputs, samples = _read(settings, hardware, reporter, pusher, find, day=chosen.started_on)
    base = resumed_base.place_base_again(chosen, request, inputs, hardware, reporter)
    built, inputs = _build(settings, base, inputs, hardware, reporter, samples)
    resumed_progress.check_data(chosen, inputs, hardware.environment, reporter, allow_changed=request.allow_changed_data)
    restore_rng = resumed_progress.restore(built.engine, chosen)
    progress = resumed_progress.progress_of(chosen, inputs.train)
    shape = BatchShape.of(settings.training, hardware.processes)
    over = check_unfinished(chosen, inputs, shape, progress, device)
    run = chosen.run if hardware.is_main else None
    if run is not None:
        resumed_progress.record(chosen, run, inputs.source, base.digest, hardware.environment, reporter)
        if not pushed:
            stop_pushing(run)
        stack.enter_context(running(run, reporter))
    _open(run, pusher, tracking, stack)
    restore_rng()  # last: building and loading draw numbers, and what follows draws none
    return Prepared(
        settings, hardware, inputs, base, built, reporter, run, progress, pusher, tracking, samples, chosen.info.step, over
    )


def _read(
    settings: Settings,
    hardware: Hardware,
    reporter: Reporter,
    pusher: Pusher | None,
    find: Callable[[], ModelSource] | None = None,
    *,
    day: date,
) -> tuple[Tracking, Inputs, SamplePrompts | None]:
    """What costs nothing but reading: are the trackers there, model and data, the sample prompts, the Hub's account."""
    tracking = Tracking(settings, reporter, is_main=hardware.is_main)
    tracking.check()
    inputs = read_inputs(settings, reporter, find, day=day)
    samples = read_samples(settings, inputs.task)
    if samples is not None and inputs.limits is not None:
        for number, ids in enumerate(samples.ids, start=1):
            inputs.limits.check_ids(ids, f"prompt {number} of SAMPLE_PROMPTS")
    if pusher is not None:
        pusher.check_account()
    return tracking, inputs, samples


def _build(
    settings: Settings, base: BaseOnDisk, inputs: Inputs, hardware: Hardware, reporter: Reporter, samples: SamplePrompts | None
) -> tuple[Built, Inputs]:
    """Build the model; where it turns out to need padded rows, read the data anew, one example a row.

    Checks room in the model's context for the answers to the sample prompts, and on the disk for checkpoints.
    """
    built = build(settings, base, inputs.source, inputs.tokenizer, hardware, reporter)
    if samples is not None:
        samples.check_room(built.engine.model, settings.evaluation.max_new_tokens)
    check_room(settings, built, hardware, reporter)
    return built, inputs if built.packing else inputs.without_packing(settings, reporter)


def _open(run: RunDirectory | None, pusher: Pusher | None, tracking: Tracking, stack: contextlib.ExitStack) -> None:
    """Tell the Hub and the trackers of the run."""
    if run is not None and pusher is not None:
        pusher.open(run)
    stack.enter_context(tracking.of(run))
