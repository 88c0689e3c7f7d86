"""A real filesystem that is really full while a real training saves on it."""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pitstop.checkpointing.store.store import CheckpointStore
from support.fault_matrix import Matrix
from support.forked import Ended, pitstop
from support.interruptions import wrap
from support.stores import leftovers
from support.training import arguments, assert_same_end, metadata
from support.trials import Trainings

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900), pytest.mark.usefixtures("warm")]

ROW = "a real full tmpfs"
SIZE = "6m"
SETTINGS: dict[str, Any] = {
    "method": "lora",
    "no_packing": True,
    "epochs": 2,
    "save_strategy": "steps",
    "save_steps": 2,
    "eval_steps": 6,
    "keep_last_n": "none",
}
LESS_THAN_A_CHECKPOINT = 120_000
PAGE = 4096  # bytes; a file on a tmpfs takes room by pages


@pytest.fixture
def small_disk(tmp_path: Path, matrix: Matrix) -> Iterator[Path]:
    """A directory with a small filesystem in memory of its own; mounting one takes privileges that not everybody has."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "pitstop-test", str(disk)], capture_output=True, text=True, check=False
    )
    if mounted.returncode != 0:
        reason = "mounting a tmpfs is not permitted here"
        matrix(ROW).not_run(reason)
        pytest.skip(f"{reason}: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@dataclass(frozen=True)
class Ballast:
    """A file that takes all room but ``slack`` bytes from the end of step ``since`` to that of step ``until``.

    ``sudden``: the disk is asked for its free room before it fills up, so that the writing itself meets the end of it.
    """

    disk: Path
    since: int
    until: int
    slack: int
    sudden: bool

    @classmethod
    def at_random(cls, disk: Path, number: int, log: Path, *, stays: bool) -> Ballast:
        """At some step; for every other one right before the ``log`` of metrics needs another page."""
        rng = random.Random(number)
        since, slack = rng.randint(3, 17), rng.randrange(LESS_THAN_A_CHECKPOINT)
        if number % 2:
            since, slack = log.read_bytes()[:PAGE].count(b"\n"), 0
        until = 10_000 if stays else since + 2
        return cls(disk, since, until, slack, rng.random() < 0.5)

    @property
    def path(self) -> Path:
        return self.disk / "ballast"

    def prepare(self) -> None:
        """Patch this process, a forked training."""
        from pitstop.checkpointing.disk.storage import LocalStorage
        from pitstop.trainers.loop.loop import Loop
        from pitstop.trainers.tracking import tracking

        tracking.CLOSE_TIMEOUT_S = 0.5  # it is of no use to TensorBoard, whose file is on the same disk

        def stepping(original: Callable[..., Any], loop: Any) -> None:
            original(loop)
            if loop.progress.step == self.since:
                self.fill()
            if loop.progress.step == self.until:
                self.path.unlink()

        wrap(Loop, "step", stepping)
        if self.sudden:
            wrap(LocalStorage, "free_space", lambda original, *arguments: 1 << 40)

    def fill(self) -> None:
        with self.path.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)) > 0:
                    pass
            except OSError:
                file.truncate(max(0, file.tell() - self.slack))


def train_on(disk: Path, trainings: Trainings, ballast: Ballast) -> Ended:
    words = arguments(trainings.model, trainings.home, disk / "runs", **SETTINGS)
    return pitstop(*words, prepare=ballast.prepare)


def assert_whole(run: Path) -> list[int]:
    """All that has its name is whole, nothing temporary is left and the metadata is readable; the steps that are there."""
    store = CheckpointStore(run / "lora_weights")
    assert [entry for entry in store.verify_all() if entry.problem is not None] == []
    assert leftovers(store.directory) == []
    assert metadata(run)["run_number"] == 1
    return [info.step for info in store.list()]


def test_a_disk_that_fills_up_for_a_while_costs_a_checkpoint_and_no_training(
    small_disk: Path, trainings: Trainings, matrix: Matrix
) -> None:
    row = matrix(ROW)
    reference = trainings.reference("full disk", SETTINGS)
    for number in row.numbers():
        if number % 5 == 4:
            continue
        ballast = Ballast.at_random(small_disk, number, reference.run / "logs/metrics.jsonl", stays=False)
        with row.trial(f"seed {number}: {ballast}"):
            ended = train_on(small_disk, trainings, ballast)
            assert ended.code == 0, ended.output
            assert "was not saved (1 of 3 misses in a row)" in ended.output
            assert "Training goes on." in ended.output
            steps = assert_whole(small_disk / "runs/run_001")
            assert {2, 24} <= set(steps) and len(steps) < 12
            assert_same_end(reference.run, small_disk / "runs/run_001")
        empty(small_disk)


def test_a_disk_that_stays_full_ends_the_training_and_what_was_saved_is_whole(
    small_disk: Path, trainings: Trainings, matrix: Matrix
) -> None:
    row = matrix(ROW)
    reference = trainings.reference("full disk", SETTINGS)
    for number in row.numbers(4, 5):
        ballast = Ballast.at_random(small_disk, number, reference.run / "logs/metrics.jsonl", stays=True)
        with row.trial(f"seed {number}: {ballast}"):
            ended = train_on(small_disk, trainings, ballast)
            assert ended.code == 6, ended.output
            assert "Traceback" not in ended.output
            assert "(2 of 3 misses in a row)" in ended.output
            steps = assert_whole(small_disk / "runs/run_001")
            assert 2 in steps
            ballast.path.unlink()
            ended = pitstop("resume", small_disk / "runs/run_001")
            assert ended.code == 0, ended.output
            assert_same_end(reference.run, small_disk / "runs/run_001")
        empty(small_disk)


def empty(disk: Path) -> None:
    subprocess.run(["find", str(disk), "-mindepth", "1", "-delete"], check=True)
