"""A signal at any moment of a training: its exit code, whole checkpoints, and an exact resume."""

from __future__ import annotations

import random
import signal
from typing import Any

import pytest

from support.fault_matrix import Matrix
from support.interruptions import PHASES, Interruption, fired_in_step
from support.trials import Trainings, Trial

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]

SETTINGS: dict[str, Any] = {
    "method": "lora",
    "no_packing": True,
    "epochs": 1,
    "eval_steps": 5,
    "save_strategy": "steps",
    "save_steps": 4,
    "keep_last_n": "none",
}
BEFORE_THE_BOUNDARY = ("before the step", "in the step", "after the step")


def somewhere(number: int, *signals: signal.Signals) -> Interruption:
    """Early enough that what it waits for, an evaluation or a save, comes before the last step.

    Three trials of a kind take every other phase; SIGINT and SIGUSR1 begin with those that the rest leave out.
    """
    rng = random.Random(number)
    first = int(signals in ((signal.SIGINT,), (signal.SIGUSR1,)))
    phase = PHASES[(first + 2 * number + number // 3) % len(PHASES)]
    return Interruption(rng.randint(1, 8), phase, signals, rng.randrange(20), rng.uniform(0, 0.05))


@pytest.mark.parametrize(
    ("number_of_signal", "code"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)],
    ids=["SIGTERM", "SIGINT", "SIGHUP"],
)
def test_a_signal_saves_stops_and_loses_no_step(
    number_of_signal: signal.Signals, code: int, trainings: Trainings, matrix: Matrix
) -> None:
    row = matrix(f"{number_of_signal.name} at a random phase")
    reference = trainings.reference("signals", SETTINGS)
    for number in row.numbers():
        plan = somewhere(number, number_of_signal)
        trial = Trial(trainings, SETTINGS)
        with row.trial(f"seed {number}: {plan}"):
            ended = trial.train(plan)
            assert ended.code == code, ended.output
            assert "Traceback" not in ended.output
            trial.assert_whole()
            step = fired_in_step(ended.output)
            assert trial.store.list()[-1].step in ([step] if plan.phase in BEFORE_THE_BOUNDARY else [step, step + 1])
            ended = trial.resume()
            assert ended.code == 0, "\n".join(trial.outputs)
            trial.assert_ended_as(reference)
        trial.forget()


def test_sigusr1_saves_at_the_next_boundary_and_training_goes_on(trainings: Trainings, matrix: Matrix) -> None:
    row = matrix("SIGUSR1 at a random phase")
    reference = trainings.reference("signals", SETTINGS)
    for number in row.numbers():
        plan = somewhere(number, signal.SIGUSR1)
        trial = Trial(trainings, SETTINGS)
        with row.trial(f"seed {number}: {plan}"):
            ended = trial.train(plan)
            assert ended.code == 0, ended.output
            trial.assert_ended_as(reference)
            step = fired_in_step(ended.output)
            at = [step] if plan.phase in BEFORE_THE_BOUNDARY else [step, step + 1]
            saved = [f"checkpoint-{step}" for step in at if f"saved checkpoint-{step} " in ended.output]
            assert saved, ended.output
            ended = trial.resume(checkpoint=saved[-1])
            assert ended.code == 0, "\n".join(trial.outputs)
            trial.assert_ended_as(reference)
        trial.forget()


def test_a_second_ctrl_c_leaves_at_once_and_loses_nothing_committed(trainings: Trainings, matrix: Matrix) -> None:
    row = matrix("SIGINT twice at random phases")
    reference = trainings.reference("signals", SETTINGS)
    for number in row.numbers():
        plan = somewhere(number, signal.SIGINT, signal.SIGINT)
        trial = Trial(trainings, SETTINGS)
        with row.trial(f"seed {number}: {plan}, {plan.delay_s:.3f} s apart"):
            ended = trial.train(plan)
            assert ended.code == 130, ended.output
            assert "Traceback" not in ended.output
            trial.assert_whole()
            ended = trial.resume()
            assert ended.code == 0, "\n".join(trial.outputs)
            trial.assert_ended_as(reference)
        trial.forget()
