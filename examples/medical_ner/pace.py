"""How fast this machine is, and how much of the demo fits into five minutes on it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

LIMIT_S = 300.0
"""What the demo promises, from its start to its last line, after the downloads."""

PLANNED_S = 0.85 * LIMIT_S  # the rest is for other work on the machine, and for what was not measured
MAX_NEW_TOKENS = 24  # the longest reference answer has 17
QUESTIONS = (40, 20, 10)  # held-out questions that may be asked: two about each record
ENOUGH_STEPS, FEWEST_STEPS = 16, 8  # F1 after a training of this length: about 0.64 and 0.45
LOST_STEPS = 1.5  # trained between the first checkpoint and the kill, and again after the resume
_STARTS = 3  # training, resuming, answering
_FORWARD_SHARE = 0.6  # of a step, at most: what a forward pass without a backward pass takes
_GENERATED_SHARE = 0.5  # of the time to read a question: what MAX_NEW_TOKENS of its answer add, beside the cost of each pass
_TIMED_QUESTIONS, _TIMED_TOKENS = 5, 5
_TIMED_STEPS, _TIMED_S = 3, 6.0  # steps are timed until either is reached


@dataclass(frozen=True)
class Pace:
    """Seconds that this machine takes, as measured."""

    start_s: float  # until a process has its libraries, data and model
    step_s: float  # for a training step, of one sequence
    question_s: float  # for reading one question
    token_s: float  # for one more token of a few answers side by side

    def answers_s(self, questions: int) -> float:
        """Seconds to answer so many questions side by side."""
        return questions * self.question_s * (1 + _GENERATED_SHARE) + MAX_NEW_TOKENS * self.token_s


@dataclass(frozen=True)
class Workload:
    """The whole demo: optimizer steps of all epochs, evaluations, sequences that one evaluation reads, and records."""

    steps: int
    evaluations: int
    evaluated: int
    records: int


@dataclass(frozen=True)
class Choice:
    """How much is trained and asked. ``seconds``: the whole demo with it, as estimated. ``whole``: nothing is left out."""

    steps: int
    questions: int
    seconds: float
    whole: bool


def whole_demo(pace: Pace, workload: Workload, elapsed_s: float) -> Choice:
    """The demo with nothing left out, ``elapsed_s`` after its start."""
    evaluation_s = workload.evaluated * _FORWARD_SHARE * pace.step_s
    training_s = workload.steps * pace.step_s + workload.evaluations * evaluation_s
    seconds = elapsed_s + training_s + _fixed_s(pace, QUESTIONS[0])
    return Choice(workload.steps, QUESTIONS[0], seconds, whole=True)


def choose(pace: Pace, workload: Workload, elapsed_s: float) -> Choice:
    """As much of the demo as fits, ``elapsed_s`` after its start: all of it, else fewer steps, at last fewer questions too.

    Where not even the least fits it is chosen all the same: with less the gain in F1 is not clear.
    """
    whole = whole_demo(pace, workload, elapsed_s)
    if whole.seconds <= PLANNED_S:
        return whole
    for questions in QUESTIONS:
        fixed_s = elapsed_s + _fixed_s(pace, questions)
        steps = int((PLANNED_S - fixed_s) / pace.step_s) // 2 * 2  # even: the checkpoint lies in the middle
        if steps >= ENOUGH_STEPS:
            break
    steps = min(max(steps, FEWEST_STEPS), workload.steps)
    return Choice(steps, questions, fixed_s + steps * pace.step_s, whole=False)


def _fixed_s(pace: Pace, questions: int) -> float:
    """All but the training itself: starts, the work that the kill costs, and the answers before and after."""
    return _STARTS * pace.start_s + LOST_STEPS * pace.step_s + 2 * pace.answers_s(questions)


def explain(pace: Pace, workload: Workload, choice: Choice) -> str:
    """What was measured, what was chosen and why."""
    measured = (
        f"Measured here: {pace.start_s:.1f} s to start with the model, {pace.step_s:.2f} s a training step, "
        f"{pace.answers_s(choice.questions):.0f} s to answer {choice.questions} questions."
    )
    about = f"about {choice.seconds / 60:.1f} minutes"
    if choice.whole:
        return f"{measured}\nChosen: the whole demo, {workload.records} records in {choice.steps} steps, {about}."
    part = (
        f"Too slow for the whole demo ({workload.records} records, {workload.steps} steps) in {LIMIT_S / 60:.0f} minutes. "
        f"Chosen: {choice.steps} steps on about {workload.records * choice.steps * workload.evaluations // workload.steps} "
        "records"
    )
    if choice.seconds > LIMIT_S:
        return f"{measured}\n{part}, the fewest that show a clear gain: {about}."
    return f"{measured}\n{part}, {about}."


class UntrainedModel:
    """The demo's model as its training starts with it, in this process."""

    def __init__(self, base_dir: str) -> None:
        """Load it; the 4-bit copy of the base below ``base_dir`` is made here if it is not there yet."""
        started = time.monotonic()
        from pitstop.configs.load import load_settings
        from pitstop.trainers.data.order import BatchShape
        from pitstop.trainers.machine.device import choose_device
        from pitstop.trainers.machine.hardware import open_hardware
        from pitstop.trainers.reporter import Display, Reporter
        from pitstop.trainers.training.building import build, place_base
        from pitstop.trainers.training.inputs import read_inputs

        flags, reporter = {"training.checkpoint.base_dir": base_dir}, Reporter(Display())
        settings = load_settings(flags=flags, config_files=["demo"], env_file=None).settings
        self._inputs = inputs = read_inputs(settings, reporter)
        hardware = open_hardware(settings, choose_device())
        placing = time.monotonic()
        base = place_base(settings, inputs.source, inputs.tokenizer, hardware, reporter)
        placed = time.monotonic()
        self._engine = build(settings, base, inputs.source, inputs.tokenizer, hardware, reporter).engine
        self._shape = BatchShape.of(settings.training, hardware.processes)
        self.load_s = (placing - started) + (time.monotonic() - placed)  # the training will find the copy in its place
        assert inputs.eval is not None
        epochs = settings.training.epochs
        self.workload = Workload(epochs * len(inputs.train), epochs, len(inputs.eval), inputs.train.counts.used)

    def step(self) -> None:
        """Train on one sequence, at a learning rate of zero."""
        import numpy as np

        self._engine.train_step(self._inputs.train, np.zeros(1, np.int64), self._shape, 0.0)

    def answer(self, prompts: Sequence[str], max_new_tokens: int = MAX_NEW_TOKENS) -> list[str]:
        """The base's own answers, all generated side by side."""
        from pitstop.trainers.data.prompts import tokenised
        from pitstop.trainers.models.generation import answer_batch
        from pitstop.trainers.tasks.text import TextTask

        task = self._inputs.task
        assert isinstance(task, TextTask)
        ids = dict(enumerate(tokenised(prompts, task.prompt_ids, longest=None, noun="prompt")))
        model = self._engine.model
        with model.disable_adapter(), self._engine.accelerator.autocast():
            answers = answer_batch(model, self._inputs.tokenizer, ids, max_new_tokens=max_new_tokens)
        return [answers[number].text for number in range(len(prompts))]


def measure(model: UntrainedModel, prompts: Sequence[str]) -> Pace:
    """Train a step to warm up and some that are timed, and answer the first few questions by one token and by five."""
    model.step()
    times_s = [_seconds(model.step)]
    while sum(times_s) < _TIMED_S and len(times_s) < _TIMED_STEPS:  # on a busy machine a single fast step says little
        times_s.append(_seconds(model.step))
    few = prompts[:_TIMED_QUESTIONS]
    model.answer(few[:1], 1)
    one_s = _seconds(lambda: model.answer(few, 1))
    five_s = _seconds(lambda: model.answer(few, _TIMED_TOKENS))
    return Pace(model.load_s, sum(times_s) / len(times_s), one_s / len(few), max(0.0, five_s - one_s) / (_TIMED_TOKENS - 1))


def _seconds(work: Callable[[], Any]) -> float:
    started = time.monotonic()
    work()
    return time.monotonic() - started
