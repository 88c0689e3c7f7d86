"""The process dies: before every single operation of a save, at random moments, and while it recovers from having died."""

from __future__ import annotations

import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import Storage
from pitstop.checkpointing.store.store import CheckpointStore
from support.crashes import CRASHED, crash_everywhere, crashing
from support.fault_matrix import Matrix
from support.stores import ForgetfulStorage, in_child, leftovers, save

pytestmark = pytest.mark.faults

AGAIN = "crash during recovery or retention, again and again"


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


def test_dying_before_any_operation_of_a_save_costs_at_most_that_save(directory: Path, matrix: Matrix) -> None:
    def save_and_tidy(storage: Storage) -> None:
        store = CheckpointStore(directory, storage)
        save(store, 3, loss=1 / 3)
        store.repair_pointers()
        store.prune(1)

    steps: list[int] = []

    def check(at: int) -> None:
        steps.append(recovered_step(directory))
        assert steps[-1] in (2, 3)
        assert steps == sorted(steps), "once committed, it stays committed"

    row = matrix("_exit before every single I/O operation of a save")
    operations = crash_everywhere(row, lambda: fresh(directory, 1, 2), save_and_tidy, check)
    assert operations > 30
    assert set(steps) == {2, 3}


def damage(directory: Path) -> None:
    """Three checkpoints, the newest of them damaged, and the leftovers of a save and of a removal."""
    fresh(directory, 1, 2, 3)
    (directory / "checkpoint-3" / "state.json").write_bytes(b"other")
    (directory / ".tmp-checkpoint-4-aa").mkdir()
    (directory / ".tmp-checkpoint-4-aa" / "half").write_bytes(b"x")
    (directory / ".trash-checkpoint-0-bb").mkdir()


def test_dying_while_recovering_is_recovered_from(directory: Path, matrix: Matrix) -> None:
    def check(at: int) -> None:
        store = CheckpointStore(directory, ForgetfulStorage())
        assert store.recover().checkpoint().step == 2
        assert leftovers(directory) == []
        assert [path.name for path in store.set_aside(".damaged")] == ["checkpoint-3"]
        assert store.pointer("last") == store.pointer("best") == "checkpoint-2"

    recover = lambda storage: CheckpointStore(directory, storage).recover()  # noqa: E731
    assert crash_everywhere(matrix(AGAIN), lambda: damage(directory), recover, check) > 10


def test_dying_while_an_older_line_is_taken_up_leaves_no_gap(directory: Path, matrix: Matrix) -> None:
    def check(at: int) -> None:
        store = CheckpointStore(directory, ForgetfulStorage())
        steps = [info.step for info in store.list()]
        assert steps == list(range(1, len(steps) + 1))
        store.recover()
        store.supersede(2)
        assert [info.step for info in store.list()] == [1, 2]
        assert [path.name for path in store.set_aside(".superseded")] == ["checkpoint-3", "checkpoint-4"]
        assert store.pointer("last") == "checkpoint-2"

    supersede = lambda storage: CheckpointStore(directory, storage).supersede(2)  # noqa: E731
    assert crash_everywhere(matrix(AGAIN), lambda: fresh(directory, 1, 2, 3, 4), supersede, check) > 8


def contents(directory: Path) -> set[bytes]:
    """What each checkpoint below ``directory`` that is whole or set aside holds, wherever it lies."""
    return {path.read_bytes() for path in directory.rglob("adapter_model.safetensors") if ".trash-" not in str(path)}


def test_dying_again_and_again_while_recovering_and_pruning_is_recovered_from(directory: Path, matrix: Matrix) -> None:
    """A crash in the recovery from a crash in the recovery from a crash, and so on, with saves and retention in between."""
    row = matrix(AGAIN)
    rng = random.Random(23)
    depths = []
    for number in row.numbers():
        damage(directory)
        newest = 2
        kept = {contents_of(directory, 2), contents_of(directory, 3)}  # the newest whole one, and the damaged one

        def work(storage: Storage, step: int) -> None:
            store = CheckpointStore(directory, storage)
            store.recover(deep=True)
            save(store, step, loss=1 / step)
            store.repair_pointers()
            store.prune(1)

        crashes = 0
        with row.trial(f"seed {number}"):
            while rng.random() < 0.8:
                step = newest + 10  # past the damaged one
                code = in_child(lambda step=step: work(crashing(rng.randrange(70)), step))  # type: ignore[misc]
                assert code in (0, CRASHED)
                crashes += code == CRASHED
                store = CheckpointStore(directory, ForgetfulStorage())
                # Looked at without a recovery, so that the next one has a crash in a recovery to deal with.
                whole = [entry.info.step for entry in store.verify_all() if entry.info is not None]
                assert max(whole) in (newest, step)
                assert code != 0 or max(whole) == step
                newest = max(whole)
                kept = {contents_of(directory, newest)} | {held for held in kept if held.endswith(b"3")}
                assert kept <= contents(directory)
            depths.append(crashes)
            assert recovered_step_beside_damage(directory) == newest
            assert kept <= contents(directory)
    assert max(depths) > 3


def contents_of(directory: Path, step: int) -> bytes:
    return (directory / layout.step_name(step) / "adapter_model.safetensors").read_bytes()


def recovered_step_beside_damage(directory: Path) -> int:
    store = CheckpointStore(directory, ForgetfulStorage())
    report = store.recover(deep=True)
    assert leftovers(directory) == []
    assert [path.name for path in store.set_aside(layout.DAMAGED)] == ["checkpoint-3"]
    assert (directory / layout.DAMAGED / "checkpoint-3.reason.txt").exists()
    return report.checkpoint().step


def save_for_ever(directory: Path, told: int) -> None:
    store = CheckpointStore(directory)
    start = max((info.step for info in store.list()), default=0)
    for step in range(start + 1, start + 10_000):
        save(store, step, loss=1 / step)
        os.write(told, f"{step}\n".encode())
        store.repair_pointers()
        store.prune(2)


def test_kill_9_at_random_moments_costs_no_acknowledged_checkpoint(directory: Path, matrix: Matrix) -> None:
    row = matrix("SIGKILL at a random moment of a saving process")
    rng = random.Random(7)
    acknowledged = 0
    for number in row.numbers():
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                save_for_ever(directory, writing)
            finally:
                os._exit(99)
        os.close(writing)
        time.sleep(rng.uniform(0.005, 0.06))
        os.kill(child, signal.SIGKILL)
        with row.trial(f"kill {number}"):
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
            with os.fdopen(reading) as pipe:
                acknowledged = max([acknowledged, *map(int, pipe.read().split())])
            if acknowledged or CheckpointStore(directory).list():
                step = recovered_step(directory)
                assert step in (acknowledged, acknowledged + 1)
                acknowledged = step
    assert acknowledged > row.count // 5
