"""Which hooks a training has, in which order, and what the task's scorer is given."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.trainers.loop.context import TrainingContext
from pitstop.trainers.loop.sizing import Sizing
from pitstop.trainers.machine.signals import SignalFlag
from pitstop.trainers.training.hook_order import hooks_of, samples_of, scores
from pitstop.trainers.training.prepare import Prepared
from pitstop.trainers.training.samples import SamplePrompts, Samples
from support.fake_training import prepared


def _context(preparation: Prepared) -> TrainingContext:
    engine: Any = preparation.built.engine
    return TrainingContext(engine, preparation.settings, preparation.progress, SignalFlag(announce=False))


def _names(preparation: Prepared, log: MetricsLog | None) -> list[str]:
    context = _context(preparation)
    sizing = Sizing(preparation.shape, automatic=False)
    hooks = hooks_of(preparation, context, sizing, samples_of(preparation, context), log, lambda name, boundary: None)
    return [type(hook).__name__ for hook in hooks if type(hook).__name__ != "TrimHeap"]


def test_what_judges_a_step_comes_after_its_evaluation_and_saving_comes_last(tmp_path: Path) -> None:
    prompts = SamplePrompts(("Hello",), ((1, 2),))
    preparation = prepared(tmp_path, evaluates=True, fields={"samples": prompts})
    assert preparation.run is not None
    names = _names(preparation, MetricsLog(preparation.run.metrics_path))
    assert names == ["Evaluate", "Samples", "Judge", "FinalSamples", "Show", "LogMetrics", "SaveCheckpoints"]


def test_without_evaluation_data_samples_and_log_there_is_what_remains(tmp_path: Path) -> None:
    assert _names(prepared(tmp_path, is_main=False), None) == ["Judge", "Show", "SaveCheckpoints"]


def test_answers_are_logged_by_the_first_process_alone(tmp_path: Path) -> None:
    fields = {"samples": SamplePrompts(("Hello",), ((1, 2),))}
    first, second = prepared(tmp_path, fields=fields), prepared(tmp_path, is_main=False, fields=fields)
    made, idle = samples_of(first, _context(first)), samples_of(second, _context(second))
    assert isinstance(made, Samples) and isinstance(idle, Samples)
    assert first.run is not None and made.log is not None and made.log.path == first.run.logs_dir / "samples.jsonl"
    assert idle.log is None


@pytest.mark.parametrize(("score_examples", "evaluates"), [(0, True), (4, False)])
def test_nothing_is_scored_without_data_or_examples(tmp_path: Path, score_examples: int, evaluates: bool) -> None:
    preparation = prepared(tmp_path, evaluates=evaluates, evaluation__score_examples=score_examples)
    assert scores(preparation, SignalFlag(announce=False)) == {}


def test_the_task_scores_with_the_weights_that_are_judged(tmp_path: Path) -> None:
    preparation = prepared(tmp_path, evaluates=True, evaluation__score_examples=4)
    calls = []

    def score(data: Any, scoring: Any) -> dict[str, float]:
        calls.append((data, scoring.limit))
        return {"ner_f1": 0.5}

    preparation.inputs.task.score = score  # type: ignore[method-assign]
    assert scores(preparation, SignalFlag(announce=False)) == {"ner_f1": 0.5}
    assert calls == [(preparation.inputs.eval, 4)]
