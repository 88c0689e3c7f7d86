"""How much of the demo is chosen on fast and slow machines; the expected numbers are computed by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from pitstop.examples.medical_ner import pace as demo
from pitstop.examples.medical_ner.pace import Choice, Pace, Workload, choose, explain, measure, whole_demo

WORKLOAD = Workload(steps=98, evaluations=2, evaluated=10, records=200)
FAST = Pace(start_s=5.0, step_s=1.0, question_s=0.1, token_s=0.1)
# 3 starts 60; lost work 1.5 · 6 = 9; before and after: 40 questions 2 · (36 + 12) = 96, 20 of them 2 · (18 + 12) = 60.
SLOW = Pace(start_s=20.0, step_s=6.0, question_s=0.6, token_s=0.5)


def test_what_the_whole_demo_takes_is_the_sum_of_its_parts() -> None:
    # 10 elapsed, 3 starts 15, steps 98 + 1.5, two evaluations 2 · 10 · 0.6 = 12, answers 2 · (40 · 0.15 + 24 · 0.1) = 16.8
    assert whole_demo(FAST, WORKLOAD, elapsed_s=10.0).seconds == pytest.approx(10 + 15 + 99.5 + 12 + 16.8)


def test_a_fast_machine_trains_all_records_and_answers_all_questions() -> None:
    choice = choose(FAST, WORKLOAD, elapsed_s=10.0)
    assert (choice.whole, choice.steps, choice.questions) == (True, 98, 40)


def test_a_machine_for_which_the_whole_demo_is_just_too_much_trains_fewer_steps_on_all_questions() -> None:
    # Whole: 10 + 15 + 99.5 · 2 + 24 + 16.8 = 264.8, above 255. Without evaluations: (255 - 10 - 15 - 3 - 16.8) / 2 = 105.1: all.
    assert choose(Pace(5.0, 2.0, 0.1, 0.1), WORKLOAD, 10.0) == Choice(98, 40, pytest.approx(240.8), whole=False)
    # At 2.5 s a step: (255 - 10 - 15 - 3.75 - 16.8) / 2.5 = 83.8, of which the even number below.
    assert choose(Pace(5.0, 2.5, 0.1, 0.1), WORKLOAD, 10.0) == Choice(82, 40, pytest.approx(250.55), whole=False)


def test_a_slow_machine_answers_fewer_questions_so_that_it_can_train() -> None:
    # 40 questions: (255 - 20 - 60 - 9 - 96) / 6 = 11.7 steps, too few. 20: (255 - 20 - 60 - 9 - 60) / 6 = 17.7.
    assert choose(SLOW, WORKLOAD, elapsed_s=20.0) == Choice(16, 20, pytest.approx(20 + 60 + 9 + 60 + 96), whole=False)


def test_a_slower_one_takes_the_fewest_questions_and_the_steps_that_are_left() -> None:
    # 40 elapsed. 20 questions: (255 - 40 - 60 - 9 - 60) / 6 = 14.3, too few. 10: (255 - 40 - 60 - 9 - 42) / 6 = 17.3.
    assert choose(SLOW, WORKLOAD, elapsed_s=40.0) == Choice(16, 10, pytest.approx(247.0), whole=False)
    # 70 elapsed, 10 questions: (255 - 70 - 60 - 9 - 42) / 6 = 12.3.
    assert choose(SLOW, WORKLOAD, elapsed_s=70.0) == Choice(12, 10, pytest.approx(253.0), whole=False)


def test_the_fewest_steps_are_trained_even_where_they_take_longer_and_that_is_said() -> None:
    choice = choose(SLOW, WORKLOAD, elapsed_s=200.0)
    assert (choice.steps, choice.questions, choice.seconds) == (8, 10, pytest.approx(200 + 60 + 9 + 42 + 48))
    assert "the fewest that show a clear gain: about 6.0 minutes" in explain(SLOW, WORKLOAD, choice)


@pytest.mark.parametrize("step_s", [0.01, 0.5, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
@pytest.mark.parametrize("start_s", [1.0, 5.0, 10.0, 20.0])
def test_the_plan_leaves_a_reserve_wherever_more_than_the_least_is_chosen(step_s: float, start_s: float) -> None:
    choice = choose(Pace(start_s, step_s, step_s / 8, step_s / 10), WORKLOAD, elapsed_s=start_s + 5 * step_s)
    assert choice.steps % 2 == 0
    assert choice.seconds <= 0.85 * 300 or choice.steps == demo.FEWEST_STEPS


def test_the_explanation_names_what_was_measured_and_what_follows() -> None:
    whole = explain(FAST, WORKLOAD, choose(FAST, WORKLOAD, 10.0))
    assert whole.splitlines() == [
        "Measured here: 5.0 s to start with the model, 1.00 s a training step, 8 s to answer 40 questions.",
        "Chosen: the whole demo, 200 records in 98 steps, about 2.6 minutes.",
    ]
    part = explain(SLOW, WORKLOAD, choose(SLOW, WORKLOAD, 20.0))
    assert part.splitlines() == [
        "Measured here: 20.0 s to start with the model, 6.00 s a training step, 30 s to answer 20 questions.",
        "Too slow for the whole demo (200 records, 98 steps) in 5 minutes. Chosen: 16 steps on about 65 records, about 4.1 minutes.",
    ]


class FakeModel:
    """Takes ``step_s`` a step and 9 s more for the first; of answers 0.5 s a question, 0.25 s for each token behind the first."""

    load_s = 12.0

    def __init__(self, step_s: float) -> None:
        self.now, self.steps, self.step_s = 0.0, 0, step_s

    def step(self) -> None:
        self.now += self.step_s + (0 if self.steps else 9.0)
        self.steps += 1

    def answer(self, prompts: Sequence[str], max_new_tokens: int) -> list[str]:
        self.now += 0.5 * len(prompts) + 0.25 * (max_new_tokens - 1)
        return ["- none"] * len(prompts)


@pytest.mark.parametrize(("step_s", "steps"), [(0.5, 4), (3.0, 3), (4.0, 3), (7.0, 2)])
def test_the_pace_is_measured_without_the_first_step(monkeypatch: pytest.MonkeyPatch, step_s: float, steps: int) -> None:
    model: Any = FakeModel(step_s)
    monkeypatch.setattr(demo.time, "monotonic", lambda: model.now)
    assert measure(model, ["question"] * 40) == Pace(start_s=12.0, step_s=step_s, question_s=0.5, token_s=0.25)
    assert model.steps == steps
