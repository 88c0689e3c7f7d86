"""When samples are made, and what a signal does to them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from pitstop.configs.schema import Settings, TrainingSettings
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.loop import Boundary
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.loop.sample_hook import SampleHook
from pitstop.trainers.machine.signals import INTERRUPT, TERMINATE, SignalFlag


class _Samples(SampleHook):
    """Notes the steps that it is asked for; a signal may arrive meanwhile."""

    def __init__(self, context: TrainingContext, arriving: int = 0) -> None:
        super().__init__(context)
        self.steps: list[int] = []
        self.arriving = arriving

    def make(self, step: int, give_up: Callable[[], None]) -> None:
        self.signals.pending = max(self.signals.pending, self.arriving)
        give_up()
        self.steps.append(step)


def _samples(processes: int = 1, arriving: int = 0, **settings: Any) -> _Samples:
    engine: Any = SimpleNamespace(evaluated_weights=contextlib.nullcontext, accelerator=SimpleNamespace(num_processes=processes))
    options = Settings(training=TrainingSettings(**settings))
    return _Samples(TrainingContext(engine, options, Progress(), SignalFlag(announce=False)), arriving)


def _boundary(step: int = 7, **values: Any) -> Boundary:
    usual = {"epoch": 1.0, "epoch_ended": True, "finished": False, "learning_rate": 0.1, "grad_norm": 1.0, "step_s": 0.5}
    return Boundary(**{"step": step, **usual, **values})


@pytest.mark.parametrize(
    ("settings", "boundary", "steps"),
    [
        ({}, {}, [7]),
        ({}, {"epoch_ended": False}, []),
        ({"eval_steps": 7}, {"epoch_ended": False}, [7]),
        ({"eval_steps": 4}, {}, []),
    ],
)
def test_samples_come_with_each_evaluation(settings: dict[str, Any], boundary: dict[str, Any], steps: list[int]) -> None:
    samples = _samples(**settings)
    samples.at_boundary(_boundary(**boundary))
    assert samples.steps == steps


@pytest.mark.parametrize("pending", [INTERRUPT, TERMINATE])
def test_a_signal_puts_them_off_with_their_evaluation(pending: int) -> None:
    before, during = _samples(), _samples(arriving=pending)
    for samples, interrupted in ((before, pending), (during, 0)):
        boundary = _boundary(interrupted=interrupted, metrics={"val_loss": 1.0})
        samples.at_boundary(boundary)
        assert samples.steps == [] and samples.progress.boundary_pending
        assert boundary.interrupted == pending and not boundary.metrics


def test_one_of_several_processes_does_not_decide_alone() -> None:
    samples = _samples(processes=2, arriving=TERMINATE)
    samples.at_boundary(_boundary())
    assert samples.steps == [7] and not samples.progress.boundary_pending


def test_nothing_is_made_while_the_evaluation_is_put_off() -> None:
    samples = _samples()
    samples.progress.boundary_pending = True
    samples.at_boundary(_boundary())
    assert samples.steps == []


def test_where_training_stops_early_they_are_made_once_more() -> None:
    samples = _samples(eval_steps=5)
    final = samples.at_the_end()
    for boundary in (_boundary(5), _boundary(5, stop="patience"), _boundary(6), _boundary(7, stop="patience")):
        samples.at_boundary(boundary)
        final.at_boundary(boundary)
    assert samples.steps == [5, 5, 7]
