"""One process of a training: new or resumed, from settings to the last checkpoint."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.base_runs import FROM
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.push_records import Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.store.file_sets import group_of
from pitstop.checkpointing.store.portable_paths import portable_settings
from pitstop.checkpointing.store.store import CheckpointInfo
from pitstop.configs.errors import CheckpointError, PitstopError, ResourceError, SettingsError, first_line, is_out_of_memory
from pitstop.configs.load import Loaded, settings_to_dict
from pitstop.configs.schema import Settings
from pitstop.configs.shown import human_duration, human_size
from pitstop.naming.names import run_name, settings_digest
from pitstop.trainers.data.mixture import describe_shares
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.hooks import Evaluate, Judge, LogMetrics, SaveCheckpoints, Show
from pitstop.trainers.loop.loop import ALL_DONE, Hook, Loop, Outcome
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.loop.sample_hook import AtEvaluations
from pitstop.trainers.loop.sizing import Sizing, advice
from pitstop.trainers.machine.device import peak_memory_bytes
from pitstop.trainers.machine.disk import check_room
from pitstop.trainers.machine.hardware import Hardware, open_hardware
from pitstop.trainers.machine.heap import TrimHeap
from pitstop.trainers.machine.launch import lost_peer, rank
from pitstop.trainers.machine.processes import process_group
from pitstop.trainers.machine.signals import EXIT_CODES, SignalFlag, leaving_on_sigterm
from pitstop.trainers.models.trained import parameter_counts
from pitstop.trainers.reporter import Display, NoDisplay, Reporter
from pitstop.trainers.tasks.base import Training
from pitstop.trainers.tracking.tracking import Tracking
from pitstop.trainers.training import resuming
from pitstop.trainers.training.inputs import Inputs, read_data, read_inputs
from pitstop.trainers.training.prepare import (
    BaseOnDisk,
    Built,
    build,
    place_base,
)
from pitstop.trainers.training.pushing import AFTER_SIGNAL_S, Pusher, is_pushed
from pitstop.trainers.training.samples import SamplePrompts, Samples, read_samples, samples_log
from pitstop.trainers.training.saver import Identity, Saver, restore


@dataclass(frozen=True)
class Result:
    """How a training ended, for the command line: exit code, run and figures (``--json`` prints them)."""

    exit_code: int
    summary: dict[str, Any] = field(default_factory=dict)


def train(loaded: Loaded, *, now: datetime, display: Display) -> Result:
    """Start a new run and train it. Raises ``PitstopError`` for whatever the user has to put right."""
    with leaving_on_sigterm(), process_group() as device:
        return _train_new(loaded, now, device, Reporter(display if rank() == 0 else NoDisplay()))


def _train_new(loaded: Loaded, now: datetime, device: torch.device, reporter: Reporter, **metadata: Any) -> Result:
    settings = loaded.settings
    hardware = open_hardware(settings, device)
    for note in loaded.notes:
        reporter.line(note)
    with contextlib.ExitStack() as stack:
        pusher = _start_pusher(settings, hardware, reporter, stack, wanted=settings.hub.push)
        return _train_here(loaded, now, hardware, reporter, pusher, metadata)


def _train_here(
    loaded: Loaded, now: datetime, hardware: Hardware, reporter: Reporter, pusher: Pusher | None, metadata: dict[str, Any]
) -> Result:
    settings = loaded.settings
    tracking = Tracking(settings, reporter, is_main=hardware.is_main)
    tracking.check()
    inputs = read_inputs(settings, reporter)
    samples = read_samples(settings, inputs.task)
    if pusher is not None:
        pusher.check_account()
    if hardware.is_main:
        check_writable(Path(settings.training.checkpoint.base_dir))
    base = place_base(settings, inputs.source, inputs.tokenizer, hardware, reporter)
    built, inputs = _build(settings, base, inputs, hardware, reporter)
    _check_room(settings, built, hardware, reporter, samples)
    name = run_name(settings, now)
    for note in name.notes:
        reporter.line(note)
    run = _create(loaded, name.text, now, inputs, base, hardware, metadata) if hardware.is_main else None
    with _owned(run, reporter):
        if run is not None:
            if base.stored:  # under the lock: whoever deletes runs must find this one in use
                BaseModels(run.base_dir).link_into(run.path, base.digest)
            reporter.line(f"Run {run.ref}: {run.name} in {run.path}")
            if pusher is not None:
                pusher.open(run)
        with tracking.of(run):
            progress = Progress()
            training = _Training(
                settings,
                hardware,
                built,
                inputs,
                base,
                reporter,
                run,
                progress,
                pusher=pusher,
                tracking=tracking,
                samples=samples,
            )
            return training.run()


def _start_pusher(
    settings: Settings,
    hardware: Hardware,
    reporter: Reporter,
    stack: contextlib.ExitStack,
    *,
    wanted: bool,
    asked: Collection[str] = (),
) -> Pusher | None:
    """The uploader's process, started where pushing is wanted; it ends with ``stack`` at the latest."""
    if not wanted or not hardware.is_main:
        return None
    pusher = Pusher(settings, reporter, asked)
    stack.callback(pusher.close)
    pusher.start()
    return pusher


def resume(request: resuming.ResumeRequest, *, now: datetime, display: Display) -> Result:
    """Continue a run from a checkpoint. Raises ``PitstopError`` for whatever the user has to put right."""
    reporter = Reporter(display if rank() == 0 else NoDisplay())
    with leaving_on_sigterm(), process_group() as device:
        with contextlib.ExitStack() as stack:
            training = _prepare_resume(request, device, reporter, stack)
            if training is not None:
                return training.run()
        return _train_new(resuming.start_again(request), now, device, reporter, instead_of=request.run)


def _prepare_resume(
    request: resuming.ResumeRequest, device: torch.device, reporter: Reporter, stack: contextlib.ExitStack
) -> _Training | None:
    """A training that stands where the checkpoint left it; ``None`` where none can be used and a new run shall start."""
    try:
        plan = resuming.open_together(request, reporter, stack, device)
        return _take_up(plan, request, device, reporter, stack)
    except CheckpointError as error:
        if not request.fallback_new:
            raise
        reporter.warn(f"{error.message}\nStarting a new run with the same settings instead, as --fallback new says.")
        return None


def _take_up(
    plan: resuming.ResumePlan,
    request: resuming.ResumeRequest,
    device: torch.device,
    reporter: Reporter,
    stack: contextlib.ExitStack,
) -> _Training:
    settings = plan.settings
    hardware = open_hardware(settings, device)
    tracking = Tracking(settings, reporter, is_main=hardware.is_main)
    tracking.check()
    wanted = is_pushed(settings, plan.run, plan.changes)
    pusher = _start_pusher(settings, hardware, reporter, stack, wanted=wanted, asked=request.flags)
    with resuming.naming_new_places():
        own_copy, whole = (lambda: resuming.own_copy(plan)), resuming.whole_model(plan)
        inputs = read_inputs(settings, reporter, plan.known_base, own_copy=own_copy, source=whole)
    samples = read_samples(settings, inputs.task)
    if pusher is not None:
        pusher.check_account()
    base = resuming.find_base(plan, inputs, hardware, reporter)
    built, inputs = _build(settings, base, inputs, hardware, reporter)
    resuming.check_data(plan, inputs.train.fingerprint, request, reporter)
    restore_rng = restore(built.engine, plan.info, plan.state)
    progress = resuming.progress_of(plan, inputs.train)
    run = plan.run if hardware.is_main else None
    training = _Training(
        settings,
        hardware,
        built,
        inputs,
        base,
        reporter,
        run,
        progress,
        plan.info,
        pusher=pusher,
        tracking=tracking,
        samples=samples,
    )
    training.over = resuming.check_unfinished(plan, training.loop.plan, progress, training.judge.patience_is_over())
    _check_room(settings, built, hardware, reporter, samples)
    if run is not None:
        resuming.record(plan, run, inputs.source, base.digest, hardware.environment, reporter)
        if not wanted:
            Outbox(run.path, run.storage).close()
    stack.enter_context(_status(run, reporter))
    if run is not None and pusher is not None:
        pusher.open(run)
    stack.enter_context(tracking.of(run))
    restore_rng()
    return training


def _check_room(settings: Settings, built: Built, hardware: Hardware, reporter: Reporter, samples: SamplePrompts | None) -> None:
    """Room on the disk for checkpoints, and in the model's context for the answers to the sample prompts."""
    if samples is not None:
        samples.check_room(built.engine.model, settings.evaluation.max_new_tokens)
    trainable, _ = parameter_counts(built.engine.model)
    if hardware.is_main and (note := check_room(settings, trainable)):
        reporter.warn(note)


def check_writable(base_dir: Path) -> None:
    """Make the directory of the runs and try to write there, before anything is spent. Raises ``SettingsError``."""
    try:
        base_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=base_dir):
            pass
    except OSError as error:
        raise SettingsError(
            f"OUTPUT_DIR = {base_dir} cannot be written: {error.strerror or error}.",
            hint="Give another directory with --base-dir, or change the permissions of this one.",
        ) from error


def _build(settings: Settings, base: BaseOnDisk, inputs: Inputs, hardware: Hardware, reporter: Reporter) -> tuple[Built, Inputs]:
    """Build the model; where it turns out to need padded rows, pack the data anew, one record a row."""
    built = build(settings, base, inputs.source, inputs.tokenizer, hardware, reporter)
    if not built.packing:
        train_data, eval_data = read_data(settings, inputs.task, reporter, packing=False, model=inputs.source.path)
        inputs = replace(inputs, train=train_data, eval=eval_data)
    return built, inputs


def _create(
    loaded: Loaded,
    name: str,
    now: datetime,
    inputs: Inputs,
    base: BaseOnDisk,
    hardware: Hardware,
    more: dict[str, Any],
) -> RunDirectory:
    settings = loaded.settings
    sources = {path: source.place for path, source in loaded.sources.items()}
    config = settings_to_dict(settings)
    return create_run(
        Path(settings.training.checkpoint.base_dir) / group_of(config),
        name=name,
        config={**config, "sources": sources},
        metadata={
            "data": inputs.data_record(),
            "environment": dict(hardware.environment),
            "base_model": {
                "id": inputs.source.model_id,
                "revision": inputs.source.revision,
                "digest": base.digest,
                "saved": base.stored,
                **({FROM: inputs.source.base_run.record()} if inputs.source.base_run is not None else {}),
            },
            **more,
        },
        number=settings.training.checkpoint.run_number,
        started_at=now,
    )


@contextlib.contextmanager
def _owned(run: RunDirectory | None, reporter: Reporter) -> Iterator[None]:
    if run is None:
        yield
        return
    with run.lock(), _status(run, reporter):
        yield


@contextlib.contextmanager
def _status(run: RunDirectory | None, reporter: Reporter) -> Iterator[None]:
    """Mark the run as running, and as failed if an error ends it."""
    if run is None:
        yield
        return
    reporter.log_into(run.logs_dir / "train.log")
    run.update_metadata({"status": "running"})
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        _record_end(run, "interrupted", "stopped by a signal")
        raise
    except BaseException as error:
        shown = lost_peer(error) or error
        reason = shown.message if isinstance(shown, PitstopError) else f"{type(shown).__name__}: {shown}"
        _record_end(run, "failed", reason[:500])
        raise


def _record_end(run: RunDirectory, status: str, reason: str) -> None:
    with contextlib.suppress(PitstopError, OSError):  # the error that ended the training is the one to show
        run.update_metadata({"status": status, "status_reason": reason})


class _Training:
    """The loop with its hooks, and what is said before and after it."""

    def __init__(
        self,
        settings: Settings,
        hardware: Hardware,
        built: Built,
        inputs: Inputs,
        base: BaseOnDisk,
        reporter: Reporter,
        run: RunDirectory | None,
        progress: Progress,
        resumed_from: CheckpointInfo | None = None,
        *,
        pusher: Pusher | None,
        tracking: Tracking,
        samples: SamplePrompts | None,
    ) -> None:
        self.settings, self.hardware, self.inputs, self.pusher, self.tracking = settings, hardware, inputs, pusher, tracking
        self.left_to_push: list[str] = []
        self.engine, self.reporter, self.run_dir, self.progress = built.engine, reporter, run, progress
        self.signals = SignalFlag(announce=hardware.is_main)
        self.context = TrainingContext(built.engine, settings, progress, self.signals)
        self.log = MetricsLog(run.metrics_path) if run is not None else None
        if run is not None:  # what a resume changed decides from here on
            run.store.monitor, run.store.mode = settings.training.checkpoint.monitor, settings.training.checkpoint.mode
        identity = Identity(
            fingerprints={"base": base.digest, "data": inputs.train.fingerprint, "settings": settings_digest(settings)},
            settings=portable_settings(settings_to_dict(settings)),
            environment=dict(hardware.environment),
        )
        saved = pusher.wake if pusher is not None else lambda: None
        self.samples = self._samples(samples)
        samples_written = self.samples.log if self.samples is not None else None
        self.saver = Saver(built.engine, progress, settings, identity, reporter, run, self.log, saved, samples_written)
        self.sizing = Sizing(
            BatchShape.of(settings.training, hardware.processes),
            automatic=settings.training.auto_batch_size,
            announce=self._note_shape,
        )
        self.over: str | None = None  # why nothing is left to train, where an earlier process trained it all
        evaluates = inputs.eval is not None and settings.training.checkpoint.monitor != "train_loss"
        self.judge = Judge(settings.training, progress, evaluates=evaluates)
        last_saved = resumed_from.step if resumed_from else None
        self.loop = Loop(self.context, inputs.train, self.sizing, self._hooks(last_saved), self.saver)
        self.saver.plan = self.loop.plan

    def _samples(self, prompts: SamplePrompts | None) -> AtEvaluations | None:
        if prompts is None:
            return self.inputs.task.samples(Training(self.context, self.reporter, self.tracking, self.run_dir))
        log = samples_log(self.run_dir) if self.run_dir is not None else None
        return Samples(self.context, prompts, self.inputs.tokenizer, self.reporter, log, [self.tracking.log_text])

    def _hooks(self, last_saved_step: int | None) -> list[Hook]:
        training, progress, unit = self.settings.training, self.progress, self.inputs.task.unit
        hooks: list[Hook] = []
        if self.inputs.eval is not None:
            status = lambda: self.reporter.display.status("evaluating")  # noqa: E731
            evaluate = Evaluate(self.context, self.inputs.eval, self.sizing, status, self._score)
            hooks.append(evaluate)
        if self.samples is not None:
            hooks.append(self.samples)
        hooks.append(self.judge)
        if self.samples is not None:
            hooks.append(self.samples.at_the_end())
        show = Show(
            self.reporter, training.logging_steps, training.epochs, progress, self.hardware.device, self._left_to_the_log(), unit
        )
        hooks.append(show)
        if self.log is not None:
            tell, names = self.tracking.log, self.inputs.train.names
            hooks.append(LogMetrics(self.log, training, progress, self.reporter.warn, tell, names, unit))
        if self.hardware.device.type == "cpu" and (trim := TrimHeap.for_this_system()) is not None:
            hooks.append(trim)
        hooks.append(SaveCheckpoints(training, progress, self.saver.save, last_saved_step))
        return hooks

    def _score(self) -> dict[str, float]:
        """The task's own metrics on the evaluation data."""
        settings, data = self.settings.evaluation, self.inputs.eval
        if data is None or settings.score_examples == 0:
            return {}
        scoring = self.engine.scoring(self.inputs.tokenizer, settings, self.signals.wants_stop)
        with self.engine.evaluated_weights():
            return self.inputs.task.score(data, scoring)

    def _left_to_the_log(self) -> frozenset[str]:
        """Scores that a line at the end of an epoch would be too long with."""
        task, data, monitor = self.inputs.task, self.inputs.eval, self.settings.training.checkpoint.monitor
        return frozenset(task.metrics(data)) - {*task.headline, monitor} if data is not None else frozenset()

    def _note_shape(self, before: BatchShape, now: BatchShape) -> None:
        """Memory ran out and steps are cut up anew: say so, and let checkpoints and metadata know."""
        self.saver.note_shape(now)
        step = self.progress.step + 1
        self.reporter.warn(
            f"Memory ran out at step {step}: going on with --batch-size {now.batch_size} "
            f"--gradient-accumulation-steps {now.accumulation} instead of {before.batch_size} and {before.accumulation}, "
            "the same effective batch. No step is lost."
        )
        if self.run_dir is not None:
            change = {"step": step, "batch_size": [before.batch_size, now.batch_size]}
            change["gradient_accumulation_steps"] = [before.accumulation, now.accumulation]
            adjusted = self.run_dir.metadata().batch_size_changes
            self.run_dir.update_metadata({"batch_size_changes": [*adjusted, change]})

    def run(self) -> Result:
        """Train to the end, a stop or a signal, and put the outcome on record."""
        self._announce()
        started = time.monotonic()
        try:
            with self.signals.installed():
                self.reporter.display.start(step=self.progress.step, total_steps=self.loop.plan.total_steps)
                outcome = self._loop()
                self.saver.settle(final=True)
                self._finish(outcome, time.monotonic() - started)
                self.hardware.accelerator.wait_for_everyone()  # nobody leaves before the first process has written all
            self._push_rest(outcome)
        finally:
            self.saver.join()
            self.reporter.display.close()
            self._close_log()
        return Result(EXIT_CODES.get(outcome.signal, 0), self._summary(outcome))

    def _push_rest(self, outcome: Outcome) -> None:
        """Wait for the Hub, alone: the other processes have left. Checkpoints kept for it until now may go after that."""
        if self.pusher is None or self.run_dir is None:
            return
        try:
            self.pusher.finish(
                completed=not outcome.signal,
                timeout_s=AFTER_SIGNAL_S if outcome.signal else self.settings.hub.push_timeout,
            )
        except (KeyboardInterrupt, SystemExit):
            self.reporter.line("No longer waiting for the Hub.")
        self.pusher.close()
        self.left_to_push = self.pusher.tell_left()
        try:
            keep = self.settings.training.checkpoint.keep_last_n
            if self.run_dir.store.prune(keep, protect=set(retention.pins(self.run_dir))):
                self.run_dir.sync_checkpoints()
        except (ResourceError, OSError) as error:
            self.reporter.warn(f"Old checkpoints could not be removed: {error} `pitstop prune` tries again.")

    def _loop(self) -> Outcome:
        if self.over:
            return Outcome(0, self.over)
        try:
            return self.loop.run()
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        raise ResourceError(f"Out of memory at step {self.progress.step + 1}: {reason}", hint=self._after_out_of_memory())

    def _after_out_of_memory(self) -> str:
        settings, shape = self.settings, self.sizing.shape
        training = replace(settings.training, batch_size=shape.batch_size, gradient_accumulation_steps=shape.accumulation)
        ways = advice(replace(settings, training=training))
        if self.run_dir is None:
            return ways
        number, saved = self.run_dir.ref, self.run_dir.store.list()
        if not saved:
            return f"{ways}. Run {number} has no checkpoint yet: start it anew with pitstop train"
        return f"{ways}. Nothing saved is lost: pitstop resume {number} with one of these goes on from {saved[-1].name}"

    def _close_log(self) -> None:
        for log in self.saver.logs:
            try:
                log.close()
            except OSError as error:  # what the checkpoints need of it was synced with them
                self.reporter.warn(f"{log.path}: the last rows could not be written: {error.strerror or error}")

    def _announce(self) -> None:
        plan, model = self.loop.plan, self.engine.model
        trainable, total = parameter_counts(model)
        self.reporter.line(
            f"{self.settings.training.method} on {self.hardware.device}: {trainable:,} trainable parameters ({100 * trainable / total:.2f} %)"
        )
        what = self.inputs.train.in_words()
        self.reporter.line(f"{what}; {plan.steps_per_epoch} steps an epoch, {plan.total_steps} in all")
        for share in describe_shares(self.inputs.train):
            self.reporter.line(f"  {share}")

    def _finish(self, outcome: Outcome, seconds: float) -> None:
        if self.run_dir is None:
            return
        status = "interrupted" if outcome.signal else "completed" if outcome.reason == ALL_DONE else "stopped"
        self.run_dir.update_metadata({"status": status, "status_reason": outcome.reason})
        memory = human_size(peak_memory_bytes(self.hardware.device))
        how = {"interrupted": "Stopped", "completed": "Done", "stopped": f"Stopped early: {outcome.reason}"}[status]
        self.reporter.line(
            f"{how} after step {self.progress.step} of {self.loop.plan.total_steps} in {human_duration(seconds)}, peak memory {memory}."
        )
        if times := self.saver.times:
            stalled = sum(time.stalled_s for time in times)
            saves = "one save" if len(times) == 1 else f"{len(times)} saves"
            self.reporter.line(f"Training waited {stalled:.2f} s for {saves} ({100 * stalled / seconds:.1f} %).")
        if status == "interrupted":
            self.reporter.line(f"Go on with: pitstop resume {self.run_dir.ref}")
        elif (best := self.run_dir.store.best()) is not None:
            value = best.metrics.get(self.settings.training.checkpoint.monitor, best.metrics.get("train_loss"))
            self.reporter.line(f"Best: {best.name}" + (f" ({value:.4f})" if value is not None else "") + f" in {best.path}")

    def _summary(self, outcome: Outcome) -> dict[str, Any]:
        if self.run_dir is None:
            return {}
        metadata = self.run_dir.metadata()
        return {
            "run_number": self.run_dir.number,
            "name": self.run_dir.name,
            "path": str(self.run_dir.path),
            "status": metadata.status,
            "reason": outcome.reason,
            "step": self.progress.step,
            "total_steps": self.loop.plan.total_steps,
            "best_checkpoint": metadata.best_checkpoint.content or None,
            "checkpoints": [checkpoint.name for checkpoint in metadata.checkpoints],
            "saves": [asdict(times) for times in self.saver.times],
            "hub": {"repo": Outbox(self.run_dir.path).arrived().repo, "left": self.left_to_push} if self.pusher else None,
        }
