"""The hooks of a training, in the order in which the loop calls them."""

from __future__ import annotations

from collections.abc import Callable

from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.hooks import Evaluate, Judge, LogMetrics, SaveCheckpoints, Show
from pitstop.trainers.loop.loop import Boundary, Hook
from pitstop.trainers.loop.sample_hook import SampleHook
from pitstop.trainers.loop.sizing import Sizing
from pitstop.trainers.machine.heap import TrimHeap
from pitstop.trainers.machine.signals import SignalFlag
from pitstop.trainers.tasks.base import Training
from pitstop.trainers.training.prepare import Prepared
from pitstop.trainers.training.samples import Samples


def samples_of(prepared: Prepared, context: TrainingContext) -> SampleHook | None:
    """What is made of the model at each evaluation: answers to the user's prompts, or what the task makes."""
    training = Training(context, prepared.reporter, prepared.tracking, prepared.run)
    if prepared.samples is None:
        return prepared.inputs.task.samples(training)
    return Samples(prepared.samples, prepared.inputs.tokenizer, training)


def hooks_of(
    prepared: Prepared,
    context: TrainingContext,
    sizing: Sizing,
    samples: SampleHook | None,
    log: MetricsLog | None,
    save: Callable[[str, Boundary], None],
) -> list[Hook]:
    """Evaluation and samples come before whatever judges the step; then it is shown and logged; saving is last."""
    training, progress, inputs, reporter = prepared.settings.training, prepared.progress, prepared.inputs, prepared.reporter
    device, unit = prepared.hardware.device, inputs.task.unit
    hooks: list[Hook] = []
    if inputs.eval is not None:
        status = lambda: reporter.display.status("evaluating")  # noqa: E731
        score = lambda: scores(prepared, context.signals)  # noqa: E731
        hooks.append(Evaluate(context, inputs.eval, sizing, status, score))
    if samples is not None:
        hooks.append(samples)
    hooks.append(Judge(training, progress, evaluates=inputs.evaluates(prepared.settings)))
    if samples is not None:
        hooks.append(samples.at_the_end())
    # Scores that a line at the end of an epoch would be too long with are left to the log.
    scored = frozenset() if inputs.eval is None else frozenset(inputs.task.metrics(inputs.eval))
    logged_only = scored - {*inputs.task.headline, training.checkpoint.monitor}
    hooks.append(Show(reporter, training.logging_steps, training.epochs, progress, device, logged_only, unit))
    if log is not None:
        hooks.append(LogMetrics(log, training, progress, reporter.warn, prepared.tracking.log, inputs.train.names, unit))
    if device.type == "cpu" and (trim := TrimHeap.for_this_system()) is not None:
        hooks.append(trim)
    hooks.append(SaveCheckpoints(training, progress, save, prepared.last_saved_step))
    return hooks


def scores(prepared: Prepared, signals: SignalFlag) -> dict[str, float]:
    """The task's own metrics on the evaluation data. Raises ``Interrupted``."""
    settings, data, engine = prepared.settings.evaluation, prepared.inputs.eval, prepared.built.engine
    if data is None or settings.score_examples == 0:
        return {}
    scoring = engine.scoring(prepared.inputs.tokenizer, settings, signals.wants_stop)
    with engine.evaluated_weights():
        return prepared.inputs.task.score(data, scoring)
