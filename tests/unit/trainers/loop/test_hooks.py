"""What is decided at the end of a step: judged, logged, saved and shown."""

from __future__ import annotations

import errno
import json
import math
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pitstop.checkpointing.disk.metrics_log import MetricsLog, read_rows
from pitstop.configs.schema import CheckpointSettings, Settings, TrainingSettings
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.hooks import Evaluate, Judge, LogMetrics, SaveCheckpoints, Show
from pitstop.trainers.loop.loop import Boundary
from pitstop.trainers.loop.progress import LossWindow, Progress, SourceProgress
from pitstop.trainers.loop.scoring import Interrupted
from pitstop.trainers.loop.sizing import Sizing
from pitstop.trainers.machine.signals import INTERRUPT, TERMINATE, SignalFlag
from pitstop.trainers.reporter import Reporter
from support.displays import Lines
from support.stores import ForgetfulStorage

NAN = float("nan")


def _settings(checkpoint: dict[str, Any] | None = None, **values: Any) -> TrainingSettings:
    return TrainingSettings(**values, checkpoint=CheckpointSettings(**checkpoint or {}))


def _boundary(step: int = 1, **values: Any) -> Boundary:
    defaults = {"epoch": 0.5, "epoch_ended": False, "finished": False, "learning_rate": 0.1, "grad_norm": 2.0, "step_s": 0.25}
    return Boundary(**{"step": step, **defaults, **values})


# Judge -------------------------------------------------------------------------------------------------------------------


def _judge(values: list[float], *, patience: int | None = None, mode: str = "min", monitor: str = "val_loss") -> list[Boundary]:
    progress = Progress()
    settings = _settings({"mode": mode, "monitor": monitor}, early_stopping_patience=patience)
    judge = Judge(settings, progress, evaluates=True)
    boundaries = [_boundary(step, metrics={monitor: value}) for step, value in enumerate(values, start=1)]
    for boundary in boundaries:
        judge.at_boundary(boundary)
        boundary.metrics = {"best": progress.best_value, "at": progress.best_step}  # type: ignore[dict-item]
    return boundaries


@pytest.mark.parametrize(
    ("mode", "values", "improved", "best"),
    [
        ("min", [3.0, 2.0, 2.0, 2.5, 1.0], [True, True, False, False, True], (1.0, 5)),
        ("max", [3.0, 2.0, 3.0, 3.5, 1.0], [True, False, False, True, False], (3.5, 4)),
        ("min", [NAN, 2.0, NAN, 1.0], [False, True, False, True], (1.0, 4)),
        ("max", [NAN, NAN], [False, False], (None, None)),
        ("min", [math.inf, 5.0], [True, True], (5.0, 2)),
    ],
)
def test_the_best_is_strictly_better_and_never_nan(
    mode: str, values: list[float], improved: list[bool], best: tuple[float | None, int | None]
) -> None:
    boundaries = _judge(values, mode=mode)
    assert [b.improved for b in boundaries] == improved
    assert (boundaries[-1].metrics["best"], boundaries[-1].metrics["at"]) == best
    assert all(b.stop is None for b in boundaries)


@pytest.mark.parametrize(
    ("values", "patience", "stopped_at"),
    [
        ([3.0, 2.0, 2.5, 2.4], 2, 4),
        ([3.0, 2.0, 2.5, 1.9, 2.0], 2, None),
        ([3.0, 3.0], 1, 2),
        ([3.0, NAN], 1, 2),
        ([NAN], 1, 1),
        ([NAN, NAN, 1.0], 3, None),
    ],
)
def test_patience_counts_evaluations_in_a_row_without_a_better_one(
    values: list[float], patience: int, stopped_at: int | None
) -> None:
    boundaries = _judge(values, patience=patience)
    assert next((b.step for b in boundaries if b.stop), None) == stopped_at


def test_the_reason_to_stop_names_metric_and_best() -> None:
    assert _judge([1.23456, 2.0], patience=1)[-1].stop == "val_loss has not improved in 1 evaluations (best: 1.235 at step 1)"
    assert _judge([NAN], patience=1)[-1].stop == "val_loss has not improved in 1 evaluations (it never was a number)"


@given(st.lists(st.one_of(st.floats(), st.just(NAN)), min_size=1, max_size=20), st.sampled_from(["min", "max"]))
def test_the_best_is_the_first_of_the_smallest_or_largest(values: list[float], mode: str) -> None:
    boundaries = _judge(values, mode=mode)
    numbers = [v for v in values if not math.isnan(v)]
    best = (min if mode == "min" else max)(numbers, default=None)
    assert boundaries[-1].metrics["best"] == best
    assert boundaries[-1].metrics["at"] == (None if best is None else values.index(best) + 1)


def test_what_is_scored_is_the_metrics_and_the_training_loss_since_the_last_time() -> None:
    progress = Progress(unscored=LossWindow(6.0, 4))
    boundary = _boundary(metrics={"val_loss": 1.0, "val_perplexity": 2.7})
    Judge(_settings(), progress, evaluates=True).at_boundary(boundary)
    assert boundary.scored == {"train_loss": 1.5, "val_loss": 1.0, "val_perplexity": 2.7}
    assert progress.unscored == LossWindow()


@pytest.mark.parametrize(
    ("checkpoint", "boundary", "judged"),
    [
        ({"strategy": "epoch"}, {"epoch_ended": True}, True),
        ({"strategy": "epoch"}, {}, False),
        ({"strategy": "epoch"}, {"finished": True}, True),
        ({"strategy": "no"}, {"epoch_ended": True}, True),
        ({"strategy": "steps", "save_steps": 5}, {"step": 10}, True),
        ({"strategy": "steps", "save_steps": 5}, {"step": 11, "epoch_ended": True}, False),
        ({"strategy": "steps", "save_steps": 5}, {"step": 11, "finished": True}, True),
    ],
)
def test_without_evaluation_the_training_loss_is_judged(
    checkpoint: dict[str, Any], boundary: dict[str, Any], judged: bool
) -> None:
    progress = Progress(unscored=LossWindow(6.0, 4))
    at = _boundary(**boundary)
    Judge(_settings({**checkpoint, "mode": "max", "monitor": "val_token_accuracy"}), progress, evaluates=False).at_boundary(at)
    assert at.improved is judged and progress.best_value == (1.5 if judged else None)
    assert progress.unscored == (LossWindow() if judged else LossWindow(6.0, 4))
    progress.unscored = LossWindow(4.0, 4)
    Judge(_settings({"strategy": "epoch", "mode": "max"}), progress, evaluates=False).at_boundary(_boundary(2, epoch_ended=True))
    assert progress.best_value == 1.0  # of a loss the smaller is better, whatever the mode is meant for


@pytest.mark.parametrize("evaluates", [True, False])
def test_nothing_is_judged_while_its_evaluation_is_still_to_do(evaluates: bool) -> None:
    progress = Progress(boundary_pending=True, unscored=LossWindow(6.0, 4))
    boundary = _boundary(epoch_ended=True)
    Judge(_settings(early_stopping_patience=1), progress, evaluates=evaluates).at_boundary(boundary)
    assert not boundary.scored and progress.unscored.tokens == 4 and progress.evaluations_without_improvement == 0


# Evaluate ----------------------------------------------------------------------------------------------------------------


class _Engine:
    def __init__(self, error: Exception | None = None) -> None:
        self.error, self.calls, self.fitting = error, 0, 1_000_000

    def evaluate(self, data: Any, batch_size: int, give_up: Any, *, recover: bool) -> dict[str, float] | None:
        self.calls += 1
        if batch_size > self.fitting:
            assert recover
            return None
        if self.error:
            raise self.error
        return {"val_loss": 1.5}


def _evaluate(engine: _Engine, boundary: Boundary, progress: Progress, pending: int = 0, **settings: Any) -> None:
    signals = SignalFlag(announce=False)
    signals.pending = pending
    _evaluation(engine, Sizing(BatchShape(2, 2, 1), automatic=False), progress, signals, **settings).at_boundary(boundary)


def _evaluation(engine: _Engine, sizing: Sizing, progress: Progress, signals: SignalFlag, **settings: Any) -> Evaluate:
    context = TrainingContext(engine, Settings(training=TrainingSettings(**settings)), progress, signals)  # type: ignore[arg-type]
    return Evaluate(context, None, sizing, lambda: None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "boundary", "due"),
    [
        ({}, {"epoch_ended": True}, True),
        ({}, {}, False),
        ({}, {"finished": True}, True),
        ({"eval_steps": 4}, {"step": 8}, True),
        ({"eval_steps": 4}, {"step": 9, "epoch_ended": True}, False),
        ({"eval_steps": 4}, {"step": 9, "finished": True}, True),
    ],
)
def test_evaluations_come_each_epoch_or_every_so_many_steps_and_at_the_end(
    settings: dict[str, Any], boundary: dict[str, Any], due: bool
) -> None:
    engine, at = _Engine(), _boundary(**boundary)
    _evaluate(engine, at, Progress(), **settings)
    assert engine.calls == due
    assert at.metrics == ({"val_loss": 1.5} if due else {})


def test_a_signal_puts_an_evaluation_off() -> None:
    engine, progress, boundary = _Engine(), Progress(), _boundary(epoch_ended=True, interrupted=TERMINATE)
    _evaluate(engine, boundary, progress)
    assert engine.calls == 0 and progress.boundary_pending and not boundary.metrics


def test_a_signal_that_would_put_off_nothing_leaves_no_mark() -> None:
    progress = Progress()
    _evaluate(_Engine(), _boundary(interrupted=TERMINATE), progress)
    assert not progress.boundary_pending


@pytest.mark.parametrize("pending", [INTERRUPT, TERMINATE])
def test_a_signal_during_an_evaluation_ends_it(pending: int) -> None:
    progress, boundary = Progress(), _boundary(epoch_ended=True)
    _evaluate(_Engine(Interrupted()), boundary, progress, pending=pending)
    assert boundary.interrupted == pending and progress.boundary_pending and not boundary.metrics


def test_an_evaluation_that_does_not_fit_is_repeated_in_smaller_pieces() -> None:
    engine, sizing, boundary = _Engine(), Sizing(BatchShape(8, 1, 1), automatic=True), _boundary(finished=True)
    engine.fitting = 2
    signals = SignalFlag(announce=False)
    _evaluation(engine, sizing, Progress(), signals).at_boundary(boundary)
    assert engine.calls == 3 and boundary.metrics == {"val_loss": 1.5}
    assert sizing.shape == BatchShape(2, 4, 1)


# LogMetrics --------------------------------------------------------------------------------------------------------------

ROW = ["step", "epoch", "loss", "learning_rate", "grad_norm", "tokens", "val_loss", "step_s", "tokens_per_s"]


def test_a_row_by_hand(tmp_path: Path) -> None:
    progress = Progress(tokens=1000, unlogged=LossWindow(3.0, 2))
    hook = LogMetrics(MetricsLog(tmp_path / "metrics.jsonl"), _settings(logging_steps=2), progress, pytest.fail)
    progress.tokens += 50
    hook.at_boundary(_boundary(1, step_s=0.25))
    progress.tokens += 70
    progress.unlogged.add(5.0, 2)
    hook.at_boundary(_boundary(2, epoch=0.75, step_s=0.15, metrics={"val_loss": 1.0}))
    progress.tokens += 30
    hook.at_boundary(_boundary(4, step_s=0.5))
    row, later = map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines())
    assert later["tokens_per_s"] == pytest.approx(60.0)
    assert list(row) == ROW
    assert row == {
        "step": 2,
        "epoch": 0.75,
        "loss": 2.0,
        "learning_rate": 0.1,
        "grad_norm": 2.0,
        "tokens": 1120,
        "val_loss": 1.0,
        "step_s": 0.15,
        "tokens_per_s": pytest.approx(300.0),
    }
    assert progress.unlogged == LossWindow()


def test_a_disk_that_refuses_a_row_costs_no_training_and_no_row(tmp_path: Path) -> None:
    class Full(ForgetfulStorage):
        full = True

        def write(self, descriptor: int, data: memoryview) -> int:
            if self.full:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(descriptor, data)

    storage, warnings = Full(), []
    hook = LogMetrics(MetricsLog(tmp_path / "metrics.jsonl", storage), _settings(logging_steps=1), Progress(), warnings.append)
    for step in (1, 2):
        hook.at_boundary(_boundary(step))
    assert len(warnings) == 1 and "No space left" in warnings[0], "once, not at every step"
    storage.full = False
    hook.at_boundary(_boundary(3))
    storage.full = True
    hook.at_boundary(_boundary(4))
    assert len(warnings) == 2, "and again when it happens again"
    storage.full = False
    hook.log.close()
    assert [row["step"] for row in read_rows(hook.log.path)] == [1, 2, 3, 4]


def test_only_timings_have_keys_that_end_in_s(tmp_path: Path) -> None:
    row = LogMetrics(MetricsLog(tmp_path / "m"), _settings(), Progress(), pytest.fail).row(_boundary(metrics={"val_loss": 1.0}))
    assert [key for key in row if key.endswith("_s")] == ["step_s", "tokens_per_s"]
    assert row["tokens_per_s"] == 0.0


@pytest.mark.parametrize(
    ("boundary", "pending", "due"),
    [
        ({"step": 10}, False, True),
        ({"step": 11}, False, False),
        ({"step": 11, "metrics": {"val_loss": 1.0}}, False, True),
        ({"step": 11, "finished": True}, False, True),
        ({"step": 11, "stop": "enough"}, False, True),
        ({"step": 11, "interrupted": INTERRUPT}, False, False),  # the resumed run's rows are those of one without a stop
        ({"step": 10, "interrupted": INTERRUPT}, False, True),
        ({"step": 10, "interrupted": INTERRUPT}, True, False),
        ({"step": 11, "save": True}, False, False),
    ],
)
def test_which_steps_have_a_row(boundary: dict[str, Any], pending: bool, due: bool) -> None:
    progress = Progress(boundary_pending=pending)
    assert LogMetrics.due(_settings(logging_steps=5), progress, _boundary(**boundary)) is due


# SaveCheckpoints ---------------------------------------------------------------------------------------------------------


def _save(
    checkpoint: dict[str, Any], boundary: Boundary, *, progress: Progress | None = None, last: int | None = None
) -> str | None:
    saved: list[str] = []
    hook = SaveCheckpoints(_settings(checkpoint), progress or Progress(), lambda name, at: saved.append(name), last)
    hook.at_boundary(boundary)
    assert hook.last_saved_step == (boundary.step if saved else last)
    return saved[0] if saved else None


EPOCH, STEPS, NO = {"strategy": "epoch"}, {"strategy": "steps", "save_steps": 10}, {"strategy": "no"}
EVERY_OTHER = {"strategy": "epoch", "save_every_n_epochs": 2}
BETTER = {"improved": True, "metrics": {"val_loss": 1.0}, "scored": {"val_loss": 1.0}}


@pytest.mark.parametrize(
    ("checkpoint", "epoch", "boundary", "name"),
    [
        (EPOCH, 0, {"epoch_ended": True}, "epoch_001"),
        (EPOCH, 11, {"epoch_ended": True}, "epoch_012"),
        (EPOCH, 0, {}, None),
        (EPOCH, 0, BETTER, "checkpoint-7"),
        (EPOCH, 0, {"improved": True}, None),  # a training loss that is better once more is no reason
        (EPOCH, 1, {**BETTER, "epoch_ended": True}, "epoch_002"),
        (EPOCH, 2, {"interrupted": TERMINATE}, "checkpoint-7"),
        (EPOCH, 2, {"interrupted": TERMINATE, "epoch_ended": True}, "epoch_003"),
        (EPOCH, 2, {"save": True}, "checkpoint-7"),
        (EPOCH, 2, {"finished": True, "epoch_ended": True}, "epoch_003"),
        (EPOCH, 2, {"finished": True}, "checkpoint-7"),
        (EPOCH, 2, {"stop": "enough"}, "checkpoint-7"),
        (EVERY_OTHER, 0, {"epoch_ended": True}, None),
        (EVERY_OTHER, 1, {"epoch_ended": True}, "epoch_002"),
        (EVERY_OTHER, 0, {**BETTER, "epoch_ended": True}, "epoch_001"),
        (EVERY_OTHER, 2, {"finished": True, "epoch_ended": True}, "epoch_003"),
        (STEPS, 0, {"step": 10}, "checkpoint-10"),
        (STEPS, 0, {"step": 11}, None),
        (STEPS, 0, {"step": 11, "epoch_ended": True}, None),
        (STEPS, 0, {"step": 20, "epoch_ended": True}, "checkpoint-20"),
        (STEPS, 0, {**BETTER, "step": 11}, "checkpoint-11"),
        (NO, 0, {**BETTER, "epoch_ended": True}, None),
        (NO, 0, {"finished": True, "epoch_ended": True}, "checkpoint-7"),
        (NO, 0, {"save": True}, "checkpoint-7"),
        (NO, 0, {"interrupted": INTERRUPT}, "checkpoint-7"),
    ],
)
def test_when_and_under_which_name_a_checkpoint_is_saved(
    checkpoint: dict[str, Any], epoch: int, boundary: dict[str, Any], name: str | None
) -> None:
    assert _save(checkpoint, _boundary(**{"step": 7, **boundary}), progress=Progress(epoch=epoch)) == name


@pytest.mark.parametrize("checkpoint", [EPOCH, STEPS])
def test_a_checkpoint_whose_evaluation_is_still_to_do_says_so(checkpoint: dict[str, Any]) -> None:
    progress = Progress(epoch=0, boundary_pending=True)
    boundary = _boundary(20, epoch_ended=True, interrupted=TERMINATE)
    assert _save(checkpoint, boundary, progress=progress) == "checkpoint-20-pending"


def test_the_evaluation_made_up_for_gets_the_plain_name() -> None:
    boundary = _boundary(20, epoch_ended=True, **BETTER)
    assert _save(EPOCH, boundary, last=20) == "epoch_001"
    assert _save(STEPS, replace(boundary), last=20) == "checkpoint-20"


def test_nothing_is_saved_twice_at_a_step() -> None:
    assert _save(EPOCH, _boundary(20, epoch_ended=True, interrupted=TERMINATE), last=20) is None


@pytest.mark.parametrize(
    ("values", "final"), [({}, False), ({"finished": True}, True), ({"stop": "x"}, True), ({"interrupted": 2}, True)]
)
def test_the_last_boundary_is_marked(values: dict[str, Any], final: bool) -> None:
    boundary = _boundary(**values)
    _save(EPOCH, boundary)
    assert boundary.final is final


def test_a_row_has_tokens_of_each_source_and_the_loss_of_those_that_had_a_part(tmp_path: Path) -> None:
    progress = Progress(tokens=30, sources=[SourceProgress(20, LossWindow(6.0, 3)), SourceProgress(10)])
    hook = LogMetrics(MetricsLog(tmp_path / "m"), _settings(logging_steps=1), progress, pytest.fail, sources=("a", "b"))
    hook.at_boundary(_boundary(1))
    progress.sources[1].unlogged.add(5.0, 2)
    hook.at_boundary(_boundary(2))
    rows = [{key: value for key, value in row.items() if key[-2:] in ("_a", "_b")} for row in read_rows(hook.log.path)]
    assert rows == [{"loss_a": 2.0, "tokens_a": 20, "tokens_b": 10}, {"tokens_a": 20, "loss_b": 2.5, "tokens_b": 10}]


# Show -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "lines"),
    [
        (
            {"epoch_ended": True, "scored": {"train_loss": 2.0, "val_loss": 1.5}, "metrics": {"val_loss": 1.5}},
            ["epoch 1/3: train_loss 2.0000, val_loss 1.5000"],
        ),
        ({"epoch_ended": True, "scored": {"train_loss": 2.0}}, ["epoch 1/3: train_loss 2.0000"]),
        (
            {"scored": {"train_loss": 2.0, "val_loss": 1.5}, "metrics": {"val_loss": 1.5}},
            ["step 7: train_loss 2.0000, val_loss 1.5000"],
        ),
        (
            {"scored": {"ner_f1": 0.5, "ner_drug_f1": 0.25}, "metrics": {"ner_f1": 0.5, "ner_drug_f1": 0.25}},
            ["step 7: ner_f1 0.5000"],
        ),
        ({}, []),
    ],
)
def test_an_epoch_has_its_line(values: dict[str, Any], lines: list[str]) -> None:
    display = Lines()
    Show(Reporter(display), 5, 3, Progress(), torch.device("cpu"), {"ner_drug_f1"}).at_boundary(
        _boundary(7, **{"epoch": 1.0, **values})
    )
    assert display.lines == lines
