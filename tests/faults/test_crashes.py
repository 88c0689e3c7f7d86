"""The process dies: before every single operation of a save, at random moments, and while it recovers from having died."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from pitstop.checkpointing.storage import Storage
from pitstop.checkpointing.store import CheckpointStore
from support.crashes import crash_everywhere
from support.stores import ForgetfulStorage, leftovers, save

pytestmark = pytest.mark.faults

KILLS = 25


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "lora_weights"


def fresh(directory: Path, *steps: int) -> CheckpointStore:
    shutil.rmtree(directory, ignore_errors=True)
    store = CheckpointStore(directory, ForgetfulStorage())
    for step in steps:
        save(store, step, loss=1 / step)
    store.repair_pointers()
    return store


def recovered_step(directory: Path) -> int:
    store = CheckpointStore(directory, ForgetfulStorage())
    assert all(entry.problem is None for entry in store.verify_all())
    report = store.recover(deep=True)
    assert report.quarantined == []
    assert leftovers(directory) == []
    step = report.checkpoint().step
    assert store.pointer("last") == store.pointer("best") == f"checkpoint-{step}"
    again = store.recover(deep=True)
    assert (again.valid, again.dropped, again.repaired) == (report.valid, [], [])
    return step


def test_dying_before_any_operation_of_a_save_costs_at_most_that_save(directory: Path) -> None:
    def save_and_tidy(storage: Storage) -> None:
        store = CheckpointStore(directory, storage)
        save(store, 3, loss=1 / 3)
        store.repair_pointers()
        store.prune(1)

    steps = []
    operations = crash_everywhere(
        lambda: fresh(directory, 1, 2) and None, save_and_tidy, lambda at: steps.append(recovered_step(directory))
    )
    assert operations > 30
    assert steps == sorted(steps), "once committed, it stays committed"
    assert set(steps) == {2, 3}


def test_dying_while_recovering_is_recovered_from(directory: Path) -> None:
    def damage() -> None:
        fresh(directory, 1, 2, 3)
        (directory / "checkpoint-3" / "state.json").write_bytes(b"other")
        (directory / ".tmp-checkpoint-4-aa").mkdir()
        (directory / ".tmp-checkpoint-4-aa" / "half").write_bytes(b"x")
        (directory / ".trash-checkpoint-0-bb").mkdir()

    def check(at: int) -> None:
        store = CheckpointStore(directory, ForgetfulStorage())
        assert store.recover().checkpoint().step == 2
        assert leftovers(directory) == []
        assert [path.name for path in store.set_aside(".damaged")] == ["checkpoint-3"]
        assert store.pointer("last") == store.pointer("best") == "checkpoint-2"

    assert crash_everywhere(damage, lambda storage: CheckpointStore(directory, storage).recover(), check) > 10


def test_dying_while_an_older_line_is_taken_up_leaves_no_gap(directory: Path) -> None:
    def check(at: int) -> None:
        store = CheckpointStore(directory, ForgetfulStorage())
        steps = [info.step for info in store.list()]
        assert steps == list(range(1, len(steps) + 1))
        store.recover()
        store.supersede(2)
        assert [info.step for info in store.list()] == [1, 2]
        assert [path.name for path in store.set_aside(".superseded")] == ["checkpoint-3", "checkpoint-4"]
        assert store.pointer("last") == "checkpoint-2"

    operations = crash_everywhere(
        lambda: fresh(directory, 1, 2, 3, 4) and None, lambda storage: CheckpointStore(directory, storage).supersede(2), check
    )
    assert operations > 8


def save_for_ever(directory: Path, told: int) -> None:
    store = CheckpointStore(directory)
    start = max((info.step for info in store.list()), default=0)
    for step in range(start + 1, start + 10_000):
        save(store, step, loss=1 / step)
        os.write(told, f"{step}\n".encode())
        store.repair_pointers()
        store.prune(2)


def test_kill_9_at_random_moments_costs_no_acknowledged_checkpoint(directory: Path) -> None:
    rng = random.Random(7)
    acknowledged = 0
    for _ in range(KILLS):
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                save_for_ever(directory, writing)
            finally:
                os._exit(99)
        os.close(writing)
        time.sleep(rng.uniform(0.01, 0.08))
        os.kill(child, signal.SIGKILL)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        with os.fdopen(reading) as pipe:
            acknowledged = max([acknowledged, *map(int, pipe.read().split())])
        if acknowledged or CheckpointStore(directory).list():
            step = recovered_step(directory)
            assert step in (acknowledged, acknowledged + 1)
            acknowledged = step
    assert acknowledged > KILLS // 5
