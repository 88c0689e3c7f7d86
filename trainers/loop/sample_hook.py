"""What is made of the model for people to look at, at every evaluation: when, and what a signal does to it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.hooks import evaluation_due
from pitstop.trainers.loop.loop import Boundary
from pitstop.trainers.loop.scoring import Interrupted
from pitstop.trainers.machine.signals import INTERRUPT


class SampleHook(ABC):
    """Makes samples at each evaluation, or where one would be if there were evaluation data, and at the end.

    No random number is drawn from the generators of training, so that is the same without it. A signal puts the samples of a step off with its
    evaluation; a resumed run begins with both.
    """

    log: MetricsLog | None = None
    """The file that samples are lines of, where they are: what a checkpoint is saved together with."""

    def __init__(self, context: TrainingContext) -> None:
        self.engine, self.settings = context.engine, context.settings
        self.progress, self.signals = context.progress, context.signals
        self._step = -1  # of the newest samples

    @abstractmethod
    def make(self, step: int, give_up: Callable[[], None]) -> None:
        """Make the samples of a step; every process calls this. ``give_up`` raises ``Interrupted`` where a signal wants the end."""

    def at_boundary(self, boundary: Boundary) -> None:
        """Make samples if an evaluation is due. Before anything judges the step: a step that is put off is not judged."""
        if self.progress.boundary_pending or not evaluation_due(self.settings.training, boundary):
            return
        if boundary.interrupted:
            self._put_off(boundary)
            return
        try:
            self._make(boundary, self._check)
        except Interrupted:
            boundary.interrupted = max(INTERRUPT, self.signals.pending)
            self._put_off(boundary)

    def at_the_end(self) -> FinalSamples:
        """A hook for behind those that may stop the training early."""
        return FinalSamples(self)

    def catch_up(self, boundary: Boundary) -> None:
        """Make samples at a step where training stops before an evaluation was due; a signal does not put this off."""
        if boundary.stop and self._step != boundary.step:
            self._make(boundary, lambda: None)

    def _make(self, boundary: Boundary, give_up: Callable[[], None]) -> None:
        with self.engine.evaluated_weights():
            self.make(boundary.step, give_up)
        self._step = boundary.step

    def _put_off(self, boundary: Boundary) -> None:
        self.progress.boundary_pending = True
        boundary.metrics.clear()  # they come again, with the samples

    def _check(self) -> None:
        if self.engine.accelerator.num_processes == 1 and self.signals.wants_stop():
            raise Interrupted


class FinalSamples:
    """Lets samples be made once more where training stops early."""

    def __init__(self, samples: SampleHook) -> None:
        self.samples = samples

    def at_boundary(self, boundary: Boundary) -> None:
        """Catch up if need be."""
        self.samples.catch_up(boundary)
