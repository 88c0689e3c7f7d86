"""What happens at the end of a step, one small class each: evaluate, judge, log, save, show."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.configs.schema import TrainingSettings
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.loop import Boundary
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.loop.scoring import Interrupted
from pitstop.trainers.loop.sizing import Sizing
from pitstop.trainers.machine.device import peak_memory_bytes
from pitstop.trainers.machine.signals import INTERRUPT
from pitstop.trainers.reporter import Reporter, StepFigures


class Evaluate:
    """Evaluates each epoch or every ``eval_steps``, and at the end. ``score`` gives the task's own metrics.

    A signal puts a due evaluation off instead of waiting for it: the checkpoint notes that it is still to do, and the
    resumed run starts with it.
    """

    def __init__(
        self,
        context: TrainingContext,
        data: Sequences,
        sizing: Sizing,
        announce: Callable[[], None],
        score: Callable[[], dict[str, float]] = dict,
    ) -> None:
        self.engine, self.progress, self.signals = context.engine, context.progress, context.signals
        self.settings = context.settings.training
        self.data, self.sizing, self.announce, self.score = data, sizing, announce, score

    def at_boundary(self, boundary: Boundary) -> None:
        """Put the metrics into ``boundary.metrics``."""
        if not evaluation_due(self.settings, boundary):
            return
        if boundary.interrupted:
            self.progress.boundary_pending = True
            return
        self.announce()
        try:
            losses = self.sizing.fit(
                lambda shape, recover: self.engine.evaluate(self.data, shape.batch_size, self.signals.wants_stop, recover=recover)
            )
            boundary.metrics |= {**losses, **self.score()}
        except Interrupted:
            boundary.interrupted = max(INTERRUPT, self.signals.pending)
            self.progress.boundary_pending = True


def evaluation_due(settings: TrainingSettings, boundary: Boundary) -> bool:
    """Whether this step is evaluated: every ``eval_steps`` or, without them, at the end of each epoch; and at the end."""
    if boundary.finished:
        return True
    if settings.eval_steps is not None:
        return boundary.step % settings.eval_steps == 0
    return boundary.epoch_ended


class Judge:
    """Keeps the best value of the monitored metric, and stops when it has not improved for long enough.

    With evaluation, that is the metric named; without, it is the mean training loss since the last judgement, at the
    end of each epoch or, with strategy 'steps', at each save.
    """

    def __init__(self, settings: TrainingSettings, progress: Progress, *, evaluates: bool) -> None:
        self.settings, self.progress, self.evaluates = settings, progress, evaluates
        self.metric = settings.checkpoint.monitor if evaluates else "train_loss"

    def at_boundary(self, boundary: Boundary) -> None:
        """Fill ``boundary.scored`` and ``boundary.improved``; ask for a stop when patience is over."""
        if self.progress.boundary_pending or not self._due(boundary):
            return
        boundary.scored = {"train_loss": self.progress.unscored.mean(), **boundary.metrics}
        self.progress.unscored.clear()
        value = boundary.scored[self.metric]
        if self._better(value):
            self.progress.best_value, self.progress.best_step = value, boundary.step
            self.progress.evaluations_without_improvement = 0
            boundary.improved = True
            return
        self.progress.evaluations_without_improvement += 1
        boundary.stop = self.patience_is_over()

    def patience_is_over(self) -> str | None:
        """Why training is to stop, if the metric has not improved for long enough."""
        patience = self.settings.early_stopping_patience
        if patience is None or self.progress.evaluations_without_improvement < patience:
            return None
        best = self.progress.best_value
        so_far = "it never was a number" if best is None else f"best: {best:.4g} at step {self.progress.best_step}"
        return f"{self.metric} has not improved in {patience} evaluations ({so_far})"

    def _due(self, boundary: Boundary) -> bool:
        if self.evaluates:
            return bool(boundary.metrics)
        if self.settings.checkpoint.strategy == "steps":
            return boundary.step % self.settings.checkpoint.save_steps == 0 or boundary.finished
        return boundary.epoch_ended or boundary.finished

    def _better(self, value: float) -> bool:
        best = self.progress.best_value
        if value != value:  # NaN is never better
            return False
        if best is None:
            return True
        smaller_is_better = self.metric == "train_loss" or self.settings.checkpoint.mode == "min"
        return value < best if smaller_is_better else value > best


class LogMetrics:
    """Writes ``metrics.jsonl``: one row every ``logging_steps``, at evaluations and at the end.

    A disk that does not take a row costs no training: the log keeps it and writes it when there is room, and a checkpoint
    is only saved together with the rows up to it. ``tell`` gets each row too; ``unit`` is what is counted.
    """

    def __init__(
        self,
        log: MetricsLog,
        settings: TrainingSettings,
        progress: Progress,
        warn: Callable[[str], None],
        tell: Callable[[dict[str, Any]], None] = lambda row: None,
        sources: Sequence[str] = (),
        unit: str = "tokens",
    ) -> None:
        self.unit = unit
        self.log, self.settings, self.progress, self.warn, self.tell, self.sources = log, settings, progress, warn, tell, sources
        self._tokens, self._seconds = 0, 0.0
        self._last_tokens = progress.tokens

    def at_boundary(self, boundary: Boundary) -> None:
        """Append the row of this step if one is due."""
        self._seconds += boundary.step_s
        if not self.due(self.settings, self.progress, boundary):
            return
        row = self.row(boundary)
        self.log.append_or_warn(row, self.warn)
        self.tell(row)
        self.progress.unlogged.clear()
        for source in self.progress.sources:
            source.unlogged.clear()
        self._last_tokens, self._seconds = self.progress.tokens, 0.0

    @staticmethod
    def due(settings: TrainingSettings, progress: Progress, boundary: Boundary) -> bool:
        """Whether this step has a row."""
        row_due = boundary.step % settings.logging_steps == 0 or boundary.metrics or boundary.finished or boundary.stop
        return bool(row_due) and not progress.boundary_pending

    def row(self, boundary: Boundary) -> dict[str, Any]:
        """The row: deterministic values first, then timings, whose keys end in ``_s`` or ``_per_s``."""
        tokens = self.progress.tokens - self._last_tokens
        return {
            "step": boundary.step,
            "epoch": boundary.epoch,
            "loss": self.progress.unlogged.mean(),
            "learning_rate": boundary.learning_rate,
            "grad_norm": boundary.grad_norm,
            self.unit: self.progress.tokens,
            **self._of_sources(),
            **boundary.metrics,
            "step_s": boundary.step_s,
            f"{self.unit}_per_s": tokens / self._seconds if self._seconds > 0 else 0.0,
        }

    def _of_sources(self) -> dict[str, float]:
        """Tokens trained on of each of several data sets, and its loss since the last row where it had a part in that."""
        values: dict[str, float] = {}
        for name, source in zip(self.sources, self.progress.sources, strict=True):
            if source.unlogged.tokens:
                values[f"loss_{name}"] = source.unlogged.mean()
            values[f"tokens_{name}"] = source.tokens
        return values


class SaveCheckpoints:
    """Decides when to save and under which name; ``save`` does it."""

    def __init__(
        self, settings: TrainingSettings, progress: Progress, save: Callable[[str, Boundary], None], last_saved_step: int | None
    ) -> None:
        self.settings, self.progress, self.save = settings, progress, save
        self.last_saved_step = last_saved_step

    def at_boundary(self, boundary: Boundary) -> None:
        """Save if the strategy, an improvement, a signal or the end asks for it."""
        boundary.final = bool(boundary.finished or boundary.stop or boundary.interrupted)
        if not (boundary.final or boundary.save or self._scheduled(boundary)):
            return
        if self.last_saved_step == boundary.step and not boundary.scored:
            return  # a signal right after a save
        pending = self.progress.boundary_pending
        by_epoch = boundary.epoch_ended and self.settings.checkpoint.strategy == "epoch" and not pending
        name = layout.epoch_name(self.progress.epoch + 1) if by_epoch else layout.step_name(boundary.step, pending=pending)
        self.save(name, boundary)
        self.last_saved_step = boundary.step

    def _scheduled(self, boundary: Boundary) -> bool:
        checkpoint = self.settings.checkpoint
        if checkpoint.strategy == "no":
            return False
        if boundary.improved and boundary.metrics:
            return True  # "best" must always be there to load
        if checkpoint.strategy == "steps":
            return boundary.step % checkpoint.save_steps == 0
        return boundary.epoch_ended and (self.progress.epoch + 1) % checkpoint.save_every_n_epochs == 0


class Show:
    """Feeds the display, and says a line at the end of each epoch. ``hidden`` names metrics that only the log has, ``unit`` is what is counted."""

    def __init__(
        self,
        reporter: Reporter,
        every: int,
        epochs: int,
        progress: Progress,
        device: torch.device,
        hidden: Collection[str] = (),
        unit: str = "tokens",
    ) -> None:
        self.reporter, self.every, self.epochs, self.progress = reporter, every, epochs, progress
        self.device, self.hidden, self.unit = device, hidden, unit
        self._tokens = progress.tokens

    def at_boundary(self, boundary: Boundary) -> None:
        """Show this step."""
        tokens, self._tokens = self.progress.tokens - self._tokens, self.progress.tokens
        figures = StepFigures(
            step=boundary.step,
            epoch=boundary.epoch,
            epochs=self.epochs,
            loss=self.progress.unlogged.mean(),
            learning_rate=boundary.learning_rate,
            speed=tokens / boundary.step_s if boundary.step_s else 0.0,
            unit=self.unit,
            memory=peak_memory_bytes(self.device),
            logged=boundary.step % self.every == 0,
        )
        self.reporter.display.step(figures)
        if boundary.scored and (boundary.epoch_ended or boundary.metrics):
            scores = ", ".join(f"{key} {value:.4f}" for key, value in boundary.scored.items() if key not in self.hidden)
            place = f"epoch {self.progress.epoch + 1}/{self.epochs}" if boundary.epoch_ended else f"step {boundary.step}"
            self.reporter.line(f"{place}: {scores}")
