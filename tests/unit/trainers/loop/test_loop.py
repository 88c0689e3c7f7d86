"""The loop: every sequence once an epoch, hooks at every step, and a stop that a resumed run does not notice."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.schema import CheckpointSettings, Settings, TrainingSettings
from pitstop.trainers.data.counts import Counts
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.engine import StepStats
from pitstop.trainers.loop.loop import Boundary, Loop, Outcome, Plan
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.loop.sizing import Sizing
from pitstop.trainers.machine.signals import INTERRUPT, SAVE, TERMINATE, SignalFlag

Act = Callable[[Boundary], object]


class _Engine:
    """Notes what it is asked to train on."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.steps: list[tuple[tuple[int, ...], float]] = []
        self.shapes: list[BatchShape] = []
        self.fitting = 1_000_000

    def train_step(
        self, data: Dataset, step_ids: np.ndarray, shape: BatchShape, learning_rate: float, *, recover: bool
    ) -> StepStats | None:
        if shape.batch_size > self.fitting:
            assert recover
            return None
        self.shapes.append(shape)
        self.steps.append((tuple(step_ids.tolist()), learning_rate))
        return StepStats(loss_sum=float(step_ids.sum()), units=len(step_ids), grad_norm=1.0)


class _Saves:
    """What is saved beside the training; ``trouble`` is what went wrong with it."""

    trouble: Exception | None = None

    def troubled(self) -> bool:
        return self.trouble is not None

    def raise_trouble(self) -> NoReturn:
        assert self.trouble is not None
        raise self.trouble


class _Hook:
    def __init__(self, act: Act) -> None:
        self.act = act

    def at_boundary(self, boundary: Boundary) -> None:
        self.act(boundary)


def _data(count: int) -> Dataset:
    example = Example(np.array([5, 6], dtype=np.int32), np.array([False, True]))
    return Dataset([example] * count, max_length=8, packing=False, counts=Counts(count, count, 0, 0, (), 2 * count, count))


def _loop(
    act: Act = lambda boundary: None, *, count: int = 5, progress: Progress | None = None, pending: int = 0, **settings: Any
) -> tuple[Loop, _Engine]:
    engine, signals = _Engine(), SignalFlag(announce=False)
    signals.pending = pending
    chosen = Settings(training=TrainingSettings(**{"epochs": 2, **settings}))
    sizing = Sizing(BatchShape(2, 1, 1), automatic=chosen.training.auto_batch_size)
    context = TrainingContext(engine, chosen, progress or Progress(), signals)  # type: ignore[arg-type]
    plan = Plan.from_here(context.progress, count, sizing.shape, chosen.training)
    loop = Loop(context, _data(count), plan, sizing, [_Hook(act)], _Saves())
    return loop, engine


def test_an_epoch_is_every_sequence_once_and_the_next_has_another_order() -> None:
    seen: list[tuple[int, float, bool, bool]] = []
    loop, engine = _loop(lambda b: seen.append((b.step, b.epoch, b.epoch_ended, b.finished)))
    assert loop.run() == Outcome(0, "all steps done")
    ids = [step for step, _ in engine.steps]
    assert [len(step) for step in ids] == [2, 2, 1, 2, 2, 1]
    assert sorted(sum(ids[:3], ())) == sorted(sum(ids[3:], ())) == [0, 1, 2, 3, 4]
    assert ids[:3] != ids[3:]
    assert seen == [
        (1, 0.4, False, False),
        (2, 0.8, False, False),
        (3, 1.0, True, False),
        (4, 1.4, False, False),
        (5, 1.8, False, False),
        (6, 2.0, True, True),
    ]
    assert loop.progress.tokens == 20


@pytest.mark.parametrize("max_steps", [1, 3, 4, 11])
def test_a_number_of_steps_counts_whatever_the_epochs(max_steps: int) -> None:
    loop, engine = _loop(max_steps=max_steps)
    assert loop.run() == Outcome(0, "all steps done")
    assert len(engine.steps) == max_steps


@given(cuts=st.sets(st.integers(1, 8)), count=st.integers(1, 9))
def test_a_run_that_is_stopped_and_resumed_trains_on_the_same_steps(cuts: set[int], count: int) -> None:
    loop, straight = _loop(count=count)
    loop.run()
    progress, steps = Progress(), []
    for _ in range(len(cuts) + 1):
        resumed, engine = _loop(
            lambda b: setattr(b, "interrupted", INTERRUPT) if b.step in cuts else None, count=count, progress=progress
        )
        outcome = resumed.run()
        steps += engine.steps
        progress = Progress.from_dict(resumed.progress.to_dict())
        if not outcome.signal:
            break
    assert steps == straight.steps
    assert progress == loop.progress


@pytest.mark.parametrize("signal", [INTERRUPT, TERMINATE])
def test_a_signal_ends_training_after_the_step(signal: int) -> None:
    loop, engine = _loop(pending=signal)
    assert loop.run() == Outcome(signal, "stopped by a signal")
    assert len(engine.steps) == 1


def test_a_wish_to_save_is_passed_on_once_and_training_goes_on() -> None:
    saves: list[bool] = []
    loop, _ = _loop(lambda b: saves.append(b.save), pending=SAVE)
    assert loop.run().signal == 0
    assert saves == [True] + [False] * 5


def test_a_hook_may_stop_training_and_a_signal_at_that_moment_changes_nothing() -> None:
    for pending in (0, TERMINATE):
        loop, engine = _loop(lambda b: setattr(b, "stop", "good enough"), pending=pending)
        assert loop.run() == Outcome(0, "good enough")
        assert len(engine.steps) == 1


def test_a_signal_with_the_last_step_has_nothing_left_to_stop() -> None:
    loop, _ = _loop(pending=TERMINATE, max_steps=1)
    assert loop.run() == Outcome(0, "all steps done")


def test_unless_that_steps_evaluation_was_put_off() -> None:
    loop, _ = _loop(lambda b: setattr(loop.progress, "boundary_pending", True), pending=TERMINATE, max_steps=1)
    assert loop.run() == Outcome(TERMINATE, "stopped by a signal")


def test_what_was_put_off_is_done_before_the_next_step() -> None:
    seen: list[tuple[int, int, bool]] = []
    progress = Progress(step=3, epoch=0, position=5, learning_rate=0.3, boundary_pending=True)
    loop, engine = _loop(lambda b: seen.append((b.step, len(engine.steps), b.epoch_ended)), progress=progress)
    loop.run()
    assert seen[:2] == [(3, 0, True), (4, 1, False)]
    assert len(engine.steps) == 3 and not progress.boundary_pending


def test_nothing_left_to_do() -> None:
    loop, engine = _loop(progress=Progress(step=6, epoch=1, position=5))
    assert loop.run() == Outcome(0, "nothing left to do")
    assert not engine.steps


def test_trouble_with_saving_ends_training_at_the_next_step_and_before_its_hooks() -> None:
    seen: list[int] = []

    def fail_at_two(boundary: Boundary) -> None:
        seen.append(boundary.step)
        if boundary.step == 2:
            loop.saves.trouble = RuntimeError("no room")  # type: ignore[attr-defined]

    loop, engine = _loop(fail_at_two)
    with pytest.raises(RuntimeError, match="no room"):
        loop.run()
    assert seen == [1, 2] and len(engine.steps) == 3


def test_a_step_that_does_not_fit_is_repeated_in_smaller_pieces_and_none_is_lost() -> None:
    plain, straight = _loop()
    plain.run()
    loop, engine = _loop(auto_batch_size=True)
    engine.fitting = 1
    assert loop.run() == Outcome(0, "all steps done")
    assert engine.steps == straight.steps
    assert set(engine.shapes) == {BatchShape(1, 2, 1)}
    assert loop.progress == plain.progress


def _settings(checkpoint: dict[str, Any] | None = None, **values: Any) -> TrainingSettings:
    return TrainingSettings(**values, checkpoint=CheckpointSettings(**checkpoint or {}))


@given(
    sequences=st.integers(1, 40),
    shape=st.builds(BatchShape, batch_size=st.integers(1, 4), accumulation=st.integers(1, 3), world_size=st.integers(1, 2)),
    epochs=st.integers(1, 4),
    max_steps=st.none() | st.integers(1, 60),
)
def test_the_plan_is_the_same_at_every_step_of_an_unchanged_run(
    sequences: int, shape: BatchShape, epochs: int, max_steps: int | None
) -> None:
    settings = _settings(epochs=epochs, max_steps=max_steps)
    progress = Progress()
    first = Plan.from_here(progress, sequences, shape, settings)
    assert first.total_steps == (max_steps or epochs * math.ceil(sequences / shape.sequences))
    assert first.steps_per_epoch == math.ceil(sequences / shape.sequences)
    while progress.step < first.total_steps:
        if progress.position >= sequences:  # as the loop does before a step
            progress.epoch, progress.position = progress.epoch + 1, 0
        assert progress.epoch < first.epochs, "the plan must not run out of epochs before its steps"
        progress.position = min(sequences, progress.position + shape.sequences)
        progress.step += 1
        here = Plan.from_here(progress, sequences, shape, settings)
        assert (here.total_steps, here.steps_per_epoch) == (first.total_steps, first.steps_per_epoch)


def test_a_changed_batch_size_counts_from_where_the_run_stands() -> None:
    # 5 steps of 2 done in the second epoch's 20; with 4 a step 3 remain there (10 left), then 5 in the third.
    progress = Progress(step=15, epoch=1, position=10)
    assert Plan.from_here(progress, 20, BatchShape(4, 1, 1), _settings(epochs=3)).total_steps == 15 + 3 + 5


@pytest.mark.parametrize(("epoch", "position"), [(2, 20), (3, 0), (4, 5)])
def test_nothing_remains_after_the_last_epoch(epoch: int, position: int) -> None:
    progress = Progress(step=30, epoch=epoch, position=position)
    assert Plan.from_here(progress, 20, BatchShape(2, 1, 1), _settings(epochs=3)).total_steps == 30
