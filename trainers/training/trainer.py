"""A prepared training, run to its end: the loop with its hooks, and what is said and put on record before and after it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.metadata import COMPLETED, INTERRUPTED, STOPPED, RecordedUsage
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.configs.errors import ResourceError, first_line, is_out_of_memory
from pitstop.configs.shown import human_duration, human_size
from pitstop.trainers.data.mixture import describe_shares
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.loop import ALL_DONE, Loop, Outcome, Plan
from pitstop.trainers.loop.sizing import Sizing, advice
from pitstop.trainers.machine.device import peak_memory_bytes
from pitstop.trainers.machine.signals import EXIT_CODES, SignalFlag
from pitstop.trainers.models.trained import parameter_counts
from pitstop.trainers.training.hook_order import hooks_of, samples_of
from pitstop.trainers.training.identity import Identity
from pitstop.trainers.training.prepare import Prepared
from pitstop.trainers.training.run_status import Usage
from pitstop.trainers.training.saver import Saver, SaveTarget


@dataclass(frozen=True)
class Result:
    """How a training ended, for the command line: exit code, run and figures (``--json`` prints them)."""

    exit_code: int
    summary: dict[str, Any] = field(default_factory=dict)


class Trainer:
    """Trains what was prepared. Making one draws no random number, so that training begins with the generators as they are."""

    def __init__(self, prepared: Prepared) -> None:
        self.prepared = prepared
        settings, run, engine, progress = prepared.settings, prepared.run, prepared.built.engine, prepared.progress
        training, data = settings.training, prepared.inputs.train
        self.signals = SignalFlag(announce=prepared.hardware.is_main)
        self.sizing = Sizing(prepared.shape, automatic=training.auto_batch_size, announce=self._note_shape)
        plan = Plan.from_here(progress, len(data), prepared.shape, training)
        context = TrainingContext(engine, settings, progress, self.signals)
        samples = samples_of(prepared, context)
        self.usage = Usage(prepared.hardware.device, RecordedUsage() if run is None else run.metadata().usage)
        log, target = None, None
        if run is not None:
            log = MetricsLog(run.metrics_path)
            logs = [log] if samples is None or samples.log is None else [log, samples.log]
            wake = prepared.pusher.wake if prepared.pusher is not None else lambda: None
            target = SaveTarget(run, logs, plan.total_steps, self.usage.record, committed=wake)
        identity = Identity.of(settings, prepared.hardware.environment, base=prepared.base.digest, data=data.fingerprint)
        self.saver = Saver(engine, progress, settings, identity, prepared.reporter, target)
        hooks = hooks_of(prepared, context, self.sizing, samples, log, self.saver.save)
        self.loop = Loop(context, data, plan, self.sizing, hooks, self.saver)

    def run(self) -> Result:
        """Train to the end, a stop or a signal, and put the outcome on record.

        Raises ``ResourceError`` where memory runs out, or where checkpoints can no longer be saved.
        """
        display = self.prepared.reporter.display
        self._announce()
        try:
            with self.signals.installed():
                display.start(step=self.prepared.progress.step, total_steps=self.loop.plan.total_steps)
                outcome = self._loop()
                self.saver.settle(final=True)
                self.conclude(outcome)
                self.prepared.hardware.accelerator.wait_for_everyone()  # nobody leaves before the first process has written all
            self._finish_pushing(outcome)
        finally:
            self.saver.join()
            display.close()
            self._close_logs()
        return Result(EXIT_CODES.get(outcome.signal, 0), self._summary(outcome))

    def _announce(self) -> None:
        reporter, data, plan = self.prepared.reporter, self.prepared.inputs.train, self.loop.plan
        trainable, total = parameter_counts(self.prepared.built.engine.model)
        reporter.line(
            f"{self.prepared.settings.training.method} on {self.prepared.hardware.device}: {trainable:,} trainable parameters "
            f"({100 * trainable / total:.2f} %)"
        )
        reporter.line(f"{data.in_words()}; {plan.steps_per_epoch} steps an epoch, {plan.total_steps} in all")
        for share in describe_shares(data):
            reporter.line(f"  {share}")

    def _loop(self) -> Outcome:
        if self.prepared.over:
            return Outcome(0, self.prepared.over)
        try:
            return self.loop.run()
        except (RuntimeError, MemoryError, OSError) as error:
            if not is_out_of_memory(error):
                raise
            reason = first_line(error)
        step = self.prepared.progress.step + 1
        raise ResourceError(f"Out of memory at step {step}: {reason}", hint=self._after_out_of_memory())

    def _after_out_of_memory(self) -> str:
        settings, shape = self.prepared.settings, self.sizing.shape
        training = replace(settings.training, batch_size=shape.batch_size, gradient_accumulation_steps=shape.accumulation)
        ways = advice(replace(settings, training=training))
        run = self.prepared.run
        if run is None:
            return ways
        self.saver.join()  # the checkpoint that is under way counts too
        checkpoints = run.store.list()
        if not checkpoints:
            return f"{ways}. Run {run.ref} has no checkpoint yet: start again with pitstop train"
        return f"{ways}. Nothing saved is lost: pitstop resume {run.ref} with one of these goes on from {checkpoints[-1].name}"

    def _note_shape(self, old: BatchShape, new: BatchShape) -> None:
        """Memory ran out and steps are cut up anew: say so, and let checkpoints and metadata know."""
        self.saver.note_shape(new)
        step, run = self.prepared.progress.step + 1, self.prepared.run
        self.prepared.reporter.warn(
            f"Memory ran out at step {step}: going on with --batch-size {new.batch_size} "
            f"--gradient-accumulation-steps {new.accumulation} instead of {old.batch_size} and {old.accumulation}, "
            "the same effective batch. No step is lost."
        )
        if run is not None:
            change = {"step": step, "batch_size": [old.batch_size, new.batch_size]}
            change["gradient_accumulation_steps"] = [old.accumulation, new.accumulation]
            earlier = run.metadata().batch_size_changes
            run.update_metadata({"batch_size_changes": [*earlier, change]})

    def conclude(self, outcome: Outcome) -> None:
        """Put the outcome on record and say it, once the last checkpoint is saved."""
        run, reporter = self.prepared.run, self.prepared.reporter
        if run is None:
            return
        status = INTERRUPTED if outcome.signal else COMPLETED if outcome.reason == ALL_DONE else STOPPED
        run.update_metadata({"status": status, "status_reason": outcome.reason, "usage": self.usage.record()})
        seconds = self.usage.seconds
        memory = human_size(peak_memory_bytes(self.prepared.hardware.device))
        ending = {INTERRUPTED: "Stopped", COMPLETED: "Done", STOPPED: f"Stopped early: {outcome.reason}"}[status]
        step, total_steps = self.prepared.progress.step, self.loop.plan.total_steps
        reporter.line(f"{ending} after step {step} of {total_steps} in {human_duration(seconds)}, peak memory {memory}.")
        if times := self.saver.times:
            stalled = sum(time.stalled_s for time in times)
            saves = "one save" if len(times) == 1 else f"{len(times)} saves"
            reporter.line(f"Training waited {stalled:.2f} s for {saves} ({100 * stalled / seconds:.1f} %).")
        if status == INTERRUPTED:
            reporter.line(f"Go on with: pitstop resume {run.ref}")
        else:
            self._say_best(run)

    def _say_best(self, run: RunDirectory) -> None:
        best = run.store.best()
        if best is not None:
            value = best.metrics.get(self.prepared.settings.training.checkpoint.monitor, best.metrics.get("train_loss"))
            figure = f" ({value:.4f})" if value is not None else ""
            self.prepared.reporter.line(f"Best: {best.name}{figure} in {best.path}")

    def _finish_pushing(self, outcome: Outcome) -> None:
        """Wait for the Hub, alone: the other processes have left. Checkpoints kept for it until now may go after that."""
        run, pusher = self.prepared.run, self.prepared.pusher
        if pusher is None or run is None:
            return
        pusher.finish(completed=not outcome.signal)
        try:
            if run.store.prune(self.prepared.settings.training.checkpoint.keep_last_n, protect=set(retention.pins(run))):
                run.sync_checkpoints()
        except (ResourceError, OSError) as error:
            self.prepared.reporter.warn(f"Old checkpoints could not be removed: {error} `pitstop prune` tries again.")

    def _close_logs(self) -> None:
        for log in self.saver.target.logs if self.saver.target is not None else ():
            try:
                log.close()
            except OSError as error:  # what the checkpoints need of it was synced with them
                self.prepared.reporter.warn(f"{log.path}: the last rows could not be written: {error.strerror or error}")

    def _summary(self, outcome: Outcome) -> dict[str, Any]:
        run, pusher = self.prepared.run, self.prepared.pusher
        if run is None:
            return {}
        metadata = run.metadata()
        return {
            "run_number": run.number,
            "name": run.name,
            "path": str(run.path),
            "status": metadata.status,
            "reason": outcome.reason,
            "step": self.prepared.progress.step,
            "total_steps": self.loop.plan.total_steps,
            "best_checkpoint": metadata.best_checkpoint.content or None,
            "checkpoints": [checkpoint.name for checkpoint in metadata.checkpoints],
            "saves": [asdict(times) for times in self.saver.times],
            "hub": pusher.summary() if pusher else None,
        }
