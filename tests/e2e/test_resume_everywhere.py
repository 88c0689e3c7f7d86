"""Interrupted at every step and in every phase, once to three times, a run ends byte for byte where it would have ended."""

from __future__ import annotations

import random
import signal

import pytest

from support.fault_matrix import Matrix
from support.interruptions import Interruption
from support.trials import CONFIGURATIONS, OK_CODES, STEPS, Trainings, Trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]

KINDS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)


def interruptions(number: int, rng: random.Random) -> list[Interruption]:
    """One to three: the first at a step that the number of the trial decides, so that all have their turn with each kind."""
    kind = KINDS[(number // len(CONFIGURATIONS) + number) % len(KINDS)]
    step = 1 + number * 7 % STEPS
    chosen = [Interruption.at_random(rng, step, kind)]
    while len(chosen) < 3 and rng.random() < 0.6:
        step = rng.randint(step, STEPS)
        chosen.append(Interruption.at_random(rng, step, rng.choice(KINDS)))
    return chosen


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_interrupted_anywhere_it_ends_where_the_uninterrupted_run_ends(name: str, trainings: Trainings, matrix: Matrix) -> None:
    row = matrix("resume at every step of a short run, one to three interruptions")
    reference = trainings.reference(name)
    assert 8 <= reference.steps <= STEPS
    for number in row.numbers(list(CONFIGURATIONS).index(name), len(CONFIGURATIONS)):
        rng = random.Random(number)
        plan = interruptions(number, rng)
        trial = Trial(trainings, reference.settings, delay_s=rng.choice([0.0, 0.03, 0.08]))
        with row.trial(f"{name}, seed {number}: {'; '.join(map(str, plan))}; saves begin {trial.delay_s} s late"):
            ended = trial.train(plan[0])
            for before, after in zip(plan, [*plan[1:], None], strict=True):
                assert ended.code in (0, OK_CODES[before.signals[0]]), "\n".join(trial.outputs)
                if ended.code == 0:  # it came to its end before the moment of the interruption, or with it
                    break
                trial.assert_whole()
                ended = trial.resume(after)
            assert ended.code == 0, "\n".join(trial.outputs)
            trial.assert_ended_as(reference)
        trial.forget()


def test_no_step_is_left_out(trainings: Trainings, matrix: Matrix) -> None:
    """Which checkpoint a killed run resumes from is partly chance; steps that none happened to resume from are made up for by one."""
    row = matrix("resume at every step of a short run, one to three interruptions")
    name = next(iter(CONFIGURATIONS))
    reference = trainings.reference(name)
    trial = Trial(trainings, reference.settings)
    go_on = trial.train
    with row.trial(f"{name}: SIGTERM after each step that is left"):
        for step in sorted(set(range(1, STEPS)) - trainings.resumed_from):
            assert go_on(Interruption(step, "after the step", (signal.SIGTERM,))).code == 143, trial.outputs
            go_on = trial.resume
        assert go_on().code == 0, "\n".join(trial.outputs)
        trial.assert_ended_as(reference)
    trial.forget()
    assert trainings.resumed_from >= set(range(1, STEPS))
