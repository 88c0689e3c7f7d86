"""One of two processes dies while a checkpoint is saved: the other ends, nothing half-saved counts, a resume is exact."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pitstop.checkpointing.store.store import CheckpointStore
from support.elastic import forked_processes
from support.fault_matrix import Matrix
from support.forked import Child, two_ranks
from support.interruptions import LONGEST_SAVE, SAVING, Interruption
from support.stores import leftovers
from support.training import EXACT_FILES, arguments, assert_same_end, metadata
from support.trials import Trainings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]

SETTINGS = {
    "method": "lora",
    "no_packing": True,
    "num_processes": 2,
    "gradient_accumulation_steps": 2,
    "epochs": 3,
    "save_strategy": "steps",
    "save_steps": 2,
}
SECONDS_TO_NOTICE = 30  # it takes milliseconds; the machine may be busy


def interruption(number: int, rank: int) -> Interruption:
    """Only the first process writes; the other dies before the state is gathered or while the first one commits it."""
    rng = random.Random(number)
    phase = rng.choice(["in a save", *SAVING]) if rank == 0 else rng.choice(SAVING)
    return Interruption(rng.randint(3, 6), phase, (signal.SIGKILL,), rng.randrange(LONGEST_SAVE), rng.uniform(0, 0.04))


def assert_dies_cleanly(number: int, words: list[str]) -> None:
    victim = number % 2
    plan = interruption(number, victim)
    prepare = [plan.arm if rank == victim else None for rank in range(2)]
    ended = two_ranks(*words, prepare=prepare, timeout=SECONDS_TO_NOTICE)
    survivor = ended[1 - victim]
    assert ended[victim].code == -signal.SIGKILL, ended[victim].output
    assert survivor.code == 6, survivor.output
    assert "Traceback" not in survivor.output
    if victim == 1:  # the first process speaks for all
        assert "another process of this training died" in survivor.output
        assert "pitstop resume" in survivor.output


@pytest.fixture
def reference(trainings: Trainings) -> Iterator[Path]:
    ended = two_ranks(*trainings.words({**SETTINGS, "run_number": 900}))
    assert [one.code for one in ended] == [0, 0], ended
    yield trainings.base_dir / "run_900"


def test_a_rank_killed_during_a_save_leaves_valid_checkpoints_and_no_hang(
    trainings: Trainings, reference: Path, matrix: Matrix
) -> None:
    row = matrix("one of two gloo ranks killed during a save")
    for number in row.numbers():
        run = trainings.base_dir / f"run_{901 + number}"
        with row.trial(f"seed {number}: rank {number % 2}, {interruption(number, number % 2)}"):
            assert_dies_cleanly(number, trainings.words({**SETTINGS, "run_number": 901 + number}))
            store = CheckpointStore(run / "lora_weights")
            assert [entry for entry in store.verify_all() if entry.problem is not None] == []
            assert store.list(), "checkpoint-2 was saved long before"
            if number % 2:
                assert "another process" in metadata(run)["status_reason"]
            ended = two_ranks("resume", run)
            assert [one.code for one in ended] == [0, 0], ended
            assert leftovers(store.directory) == []
            assert_same_end(reference, run, (*EXACT_FILES, "rng_state_1.json"))


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("first_to_notice", ["the process", "the launcher"])
def test_the_launcher_says_which_process_was_killed(
    trainings: Trainings, rank: int, first_to_notice: str, tmp_path: Path
) -> None:
    """The launcher ends the other process by SIGTERM, which that one may meet before it notices that it is alone."""
    words = arguments(trainings.model, trainings.home, tmp_path / "runs", **{**SETTINGS, "epochs": 500})
    started = tmp_path / "started"
    launcher = Child(*words, prepare=forked_processes(started))
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "runs/run_001/lora_weights/checkpoint-2").is_dir():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        by_rank = [psutil.Process(int(number)) for number in started.read_text().split()]
        if first_to_notice == "the launcher":
            by_rank[1 - rank].suspend()
        by_rank[rank].kill()
        if first_to_notice == "the launcher":
            time.sleep(1)
            by_rank[1 - rank].resume()
        ended = launcher.wait(SECONDS_TO_NOTICE)
    finally:
        for number in started.read_text().split():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(number), signal.SIGKILL)
        launcher.end()
    assert ended.code in (6, 128 + signal.SIGKILL), ended.output
    assert f"process {rank} of 2 (counted from 0) was ended by SIGKILL" in ended.output
    assert "SIGTERM" not in ended.output, "that is how elastic ends the other one"
    assert "Traceback" not in ended.output
