"""The training loop: steps, epochs and boundaries. Everything else hangs on hooks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import numpy as np

from pitstop.configs.schema import TrainingSettings
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.progress import Progress, SourceProgress
from pitstop.trainers.loop.schedule import learning_rate
from pitstop.trainers.loop.sizing import Sizing
from pitstop.trainers.machine.processes import agree_on
from pitstop.trainers.machine.signals import INTERRUPT, SAVE


@dataclass(frozen=True)
class Plan:
    """How far training goes from where it stands."""

    total_steps: int
    epochs: int
    steps_per_epoch: int

    @classmethod
    def from_here(cls, progress: Progress, sequences: int, shape: BatchShape, settings: TrainingSettings) -> Plan:
        """Steps done plus steps that remain; without a change of settings this is the same at every step."""
        per_epoch = shape.steps_in(sequences)
        if settings.max_steps is not None:
            epochs = progress.epoch + 1 + max(0, settings.max_steps - progress.step)  # more than are needed
            return cls(settings.max_steps, epochs, per_epoch)
        in_epoch = shape.steps_in(sequences - progress.position) if progress.epoch < settings.epochs else 0
        later = max(0, settings.epochs - progress.epoch - 1) * per_epoch
        return cls(progress.step + in_epoch + later, settings.epochs, per_epoch)


@dataclass
class Boundary:
    """What hooks see, and may ask for, at the end of an optimizer step."""

    step: int
    epoch: float  # epochs done, fractions included
    epoch_ended: bool
    finished: bool  # the last step of the training
    learning_rate: float
    grad_norm: float
    step_s: float
    interrupted: int = 0  # the signal that ends training here, if one does
    metrics: dict[str, float] = field(default_factory=dict)  # of an evaluation at this step
    improved: bool = False  # the monitored metric is the best so far
    scored: dict[str, float] = field(default_factory=dict)  # metrics that go with a checkpoint of this step
    save: bool = False  # some hook wants a checkpoint of this step
    stop: str | None = None  # some hook wants training to end, and why
    final: bool = False  # nothing comes after this boundary


class Hook(Protocol):
    """Called at every boundary, in the order in which the loop was given its hooks."""

    def at_boundary(self, boundary: Boundary) -> None:
        """Act on the end of a step; may ask for a save or a stop through ``boundary``."""


ALL_DONE = "all steps done"


class Saves(Protocol):
    """What goes on beside the training, and may end it."""

    def troubled(self) -> bool:
        """Whether saving has failed in a way that training must not go on after."""

    def raise_trouble(self) -> NoReturn:
        """Raise what is wrong; called on every process when ``troubled`` says so on one."""


@dataclass(frozen=True)
class Outcome:
    """How training ended: ``signal`` is 0 unless one ended it; ``reason`` is for the user."""

    signal: int
    reason: str


class Loop:
    """Runs optimizer steps from ``progress`` on until the plan is done, a hook says stop or a signal arrives."""

    def __init__(
        self, context: TrainingContext, data: Sequences, plan: Plan, sizing: Sizing, hooks: Sequence[Hook], saves: Saves
    ) -> None:
        self.engine, self.progress, self.signals = context.engine, context.progress, context.signals
        self.settings = context.settings.training
        self.data, self.plan, self.sizing, self.hooks, self.saves = data, plan, sizing, list(hooks), saves
        self.progress.sources = self.progress.sources or [SourceProgress() for _ in data.names]
        self._order: tuple[int, np.ndarray] | None = None
        self._step_s = 0.0

    def run(self) -> Outcome:
        """Train. Errors of hooks and of the engine come through."""
        if self.progress.boundary_pending:
            self.progress.boundary_pending = False
            if outcome := self._boundary():
                return outcome
        while self._has_more():
            self.step()
            if outcome := self._boundary():
                return outcome
        return Outcome(0, "nothing left to do")

    def _has_more(self) -> bool:
        progress = self.progress
        if progress.position >= len(self.data):
            progress.epoch += 1
            progress.position = 0
        return progress.step < self.plan.total_steps and progress.epoch < self.plan.epochs

    def step(self) -> None:
        """Make one optimizer step; ``run`` does so until something ends training."""
        progress = self.progress
        started = time.perf_counter()
        if self._order is None or self._order[0] != progress.epoch:
            self._order = (progress.epoch, self.data.order(seed=self.settings.seed, epoch=progress.epoch))
        step_ids = self._order[1][progress.position : progress.position + self.sizing.shape.sequences]
        rate = learning_rate(
            progress.step,
            peak=self.settings.learning_rate,
            total=self.plan.total_steps,
            warmup_ratio=self.settings.warmup_ratio,
            shape=self.settings.lr_scheduler,
        )
        stats = self.sizing.fit(lambda shape, recover: self.engine.train_step(self.data, step_ids, shape, rate, recover=recover))
        progress.step += 1
        progress.learning_rate, progress.grad_norm = rate, stats.grad_norm
        progress.unlogged.add(stats.loss_sum, stats.units)
        progress.unscored.add(stats.loss_sum, stats.units)
        progress.position += len(step_ids)
        progress.tokens += self.data.tokens(step_ids)
        of = self.data.sources_of(step_ids)
        for number, (source, (loss_sum, tokens)) in enumerate(zip(progress.sources, stats.by_source, strict=True)):
            source.tokens += self.data.tokens(step_ids[of == number])
            source.unlogged.add(loss_sum, tokens)
        self._step_s = time.perf_counter() - started

    def _boundary(self) -> Outcome | None:
        progress = self.progress
        signal, troubled = agree_on([self.signals.pending, int(self.saves.troubled())], self.engine.device)
        if troubled:
            self.saves.raise_trouble()
        epoch_ended = progress.position >= len(self.data)
        boundary = Boundary(
            step=progress.step,
            epoch=progress.epoch + progress.position / len(self.data),
            epoch_ended=epoch_ended,
            finished=progress.step >= self.plan.total_steps,
            learning_rate=progress.learning_rate,
            grad_norm=progress.grad_norm,
            step_s=self._step_s,
            interrupted=signal if signal >= INTERRUPT else 0,
            save=signal == SAVE,
        )
        if signal == SAVE:
            self.signals.clear_save()
        for hook in self.hooks:
            hook.at_boundary(boundary)
        if boundary.finished and not progress.boundary_pending:
            return Outcome(0, ALL_DONE)  # a signal that came with the last step has nothing left to stop
        if boundary.stop:
            return Outcome(0, boundary.stop)  # before the signal: a resumed run would not know and train on
        return Outcome(boundary.interrupted, "stopped by a signal") if boundary.interrupted else None
