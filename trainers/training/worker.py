"""One process of a training: the ways in, for a new run and for one that is resumed."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from datetime import datetime

from pitstop.configs.errors import CheckpointError
from pitstop.configs.load import Loaded
from pitstop.configs.notices import Notice
from pitstop.trainers.machine.launch import rank
from pitstop.trainers.machine.processes import process_group
from pitstop.trainers.machine.signals import leaving_on_signals
from pitstop.trainers.reporter import Display, Reporter
from pitstop.trainers.training.prepare import prepare_new, prepare_resumed
from pitstop.trainers.training.request import ResumeRequest
from pitstop.trainers.training.resuming import start_again
from pitstop.trainers.training.trainer import Result, Trainer


def train(loaded: Loaded, *, now: datetime, display: Display, notices: Iterable[Notice] = ()) -> Result:
    """Start a new run and train it; ``notices`` are of what came before. Raises ``PitstopError`` for whatever the user has to put right."""
    with leaving_on_signals(), process_group() as device, contextlib.ExitStack() as stack:
        return Trainer(prepare_new(loaded, now, device, _reporter(display, notices), stack)).run()


def resume(request: ResumeRequest, *, now: datetime, display: Display, notices: Iterable[Notice] = ()) -> Result:
    """Continue a run from a checkpoint, or with ``fallback_new`` start a new one where none can be used.

    Raises ``PitstopError`` for whatever the user has to put right.
    """
    reporter = _reporter(display, notices)
    with leaving_on_signals(), process_group() as device:
        with contextlib.ExitStack() as stack:
            try:
                trainer = Trainer(prepare_resumed(request, device, reporter, stack))
            except CheckpointError as error:
                if not request.fallback_new:
                    raise
                reporter.warn(f"{error.message}\nStarting a new run with the same settings instead, as --fallback new says.")
            else:
                return trainer.run()
        with contextlib.ExitStack() as stack:
            metadata = {"instead_of": request.run}
            return Trainer(prepare_new(start_again(request), now, device, reporter, stack, metadata)).run()


def _reporter(display: Display, notices: Iterable[Notice]) -> Reporter:
    """Only the first process speaks."""
    return Reporter(display if rank() == 0 else Display(), notices)
