"""Scoring an opened checkpoint as training did: the same data, the same loss, the task's own metrics."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import EvaluationSettings
from pitstop.trainers.data.dataset import Dataset, Sequences
from pitstop.trainers.data.example import Example
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.data.prompts import room_for_prompt
from pitstop.trainers.loop.sizing import Sizing
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.inputs import read_split
from pitstop.trainers.using.answering import Answering, answer_ids
from pitstop.trainers.using.opened import OpenModel

SPLITS = ("validation", "test", "train")


@dataclass(frozen=True)
class EvaluationRequest:
    """Which data: ``specs`` instead of the run's own, ``limit`` examples from its beginning.

    ``score_examples``: of these the first so many are scored by the task, ``"run"`` for as many as in the run, None for all.
    """

    split: str = "validation"
    specs: tuple[str, ...] = ()
    limit: int | None = None
    score_examples: int | str | None = "run"

    @property
    def as_in_training(self) -> bool:
        """Whether this is what training evaluated on."""
        return self.split == "validation" and not self.specs and self.limit is None and self.score_examples == "run"


def read_evaluation(opened: OpenModel, request: EvaluationRequest, reporter: Reporter) -> Sequences:
    """The data that the request means, as training reads it. ``DataError``, ``SettingsError``."""
    settings = opened.chosen.settings
    model_facts: dict[str, Any] = {"packing": opened.packing, "model": opened.base.path}
    data = read_split(settings, opened.task, reporter, split=request.split, specs=request.specs, **model_facts)
    if not settings.training.makes_images:
        hint = "Give data without the longer records by --dataset: an evaluation has the MAX_LENGTH of its run."
        opened.limits.check_data(data, "the data", settings.data.max_length, reporter.notice, hint=hint)
    return data if request.limit is None or request.limit >= data.counts.used else data.first(request.limit)


def is_recorded_data(opened: OpenModel, data: Sequences) -> bool | None:
    """Whether ``data`` is what the run recorded as its evaluation data; None where it recorded none."""
    recorded = opened.chosen.run.readable_metadata().data.eval.fingerprint
    return None if recorded is None else recorded == data.fingerprint


@dataclass(frozen=True)
class Evaluated:
    """Metrics under the names that training logs: loss (nats a supervised token), and the task's scores.

    ``answers`` are those that the task scored, to the first examples; there are none where it scores otherwise.
    """

    metrics: dict[str, float]
    answers: list[str]


def evaluate(opened: OpenModel, data: Sequences, request: EvaluationRequest) -> Evaluated:
    """Score what is in use."""
    settings, engine = opened.chosen.settings, opened.engine
    sizing = Sizing(BatchShape.of(settings.training, opened.hardware.processes), automatic=True)
    with opened.in_use():
        metrics = sizing.fit(lambda shape, recover: engine.evaluate(data, shape.batch_size, lambda: False, recover=recover))
        options = scored(settings.evaluation, request)
        if options.score_examples == 0:
            return Evaluated(metrics, [])
        answers: list[str] = []
        hint = "Where an example does not fit, --score-examples 0 gives the loss alone."
        scoring = replace(engine.scoring(opened.tokenizer, options, lambda: False), hear=answers.extend, hint=hint)
        return Evaluated({**metrics, **opened.task.score(data, scoring)}, answers)


def scored(settings: EvaluationSettings, request: EvaluationRequest) -> EvaluationSettings:
    """The run's settings with as many scored examples as are asked for."""
    if isinstance(request.score_examples, str):  # "run"
        return settings
    return replace(settings, score_examples=request.score_examples)


def check_room(opened: OpenModel, data: Dataset) -> None:
    """Raises ``SettingsError`` where a prompt leaves no room for an answer."""
    new = opened.chosen.settings.evaluation.max_new_tokens
    room, longest = room_for_prompt(opened.model, new), max(len(example.prompt) for example in data.examples)
    if room is not None and longest > room:
        raise SettingsError(
            f"A prompt of {longest:,} tokens leaves no room for {new:,} new ones.",
            hint="Leave --output out, or evaluate shorter records.",
        )


def predictions(
    opened: OpenModel, data: Dataset, scored: Mapping[str, Evaluated], tell: Callable[[int], None] = lambda count: None
) -> Iterator[dict[str, Any]]:
    """A row for each example, in order: its prompt and what was wanted as text, and the greedy answer of each label in ``scored``.

    Those that were scored are not generated anew. ``tell`` hears how many of a label are there.
    """
    answers: dict[str, list[str]] = {}
    for label, evaluated in scored.items():
        opened.use(label)
        answers[label] = _all_answers(opened, data, evaluated.answers, tell)
    for number, example in enumerate(data.examples):
        yield _row(opened.tokenizer, number, example, {label: texts[number] for label, texts in answers.items()})


def _all_answers(opened: OpenModel, data: Dataset, greedy: Sequence[str], tell: Callable[[int], None]) -> list[str]:
    options = opened.chosen.settings.evaluation
    answering = Answering(options.max_new_tokens, options.generation_batch_size)
    prompts = [example.prompt.tolist() for example in data.examples[len(greedy) :]]
    rest = answer_ids(opened, prompts, answering, lambda done: tell(len(greedy) + done))
    return [*greedy, *(answer.text for answer in rest)]


def _row(tokenizer: Any, number: int, example: Example, answers: Mapping[str, str]) -> dict[str, Any]:
    start = len(example.prompt)
    later = np.flatnonzero(~example.supervised[start:])
    end = start + int(later[0]) if len(later) else len(example)
    row: dict[str, Any] = {
        "example": number,
        "prompt": tokenizer.decode(example.input_ids[:start].tolist(), skip_special_tokens=False),
        "wanted": tokenizer.decode(example.input_ids[start:end].tolist(), skip_special_tokens=True),
        "answers": dict(answers),
    }
    return row | ({"reference": json.loads(example.reference)} if example.reference else {})
