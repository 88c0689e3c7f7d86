"""Saves beside the training: when a failure is said, when it ends the training, and what a committed checkpoint rests on."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.inspection import read_verified
from pitstop.checkpointing.disk.metrics_log import MetricsLog, read_rows
from pitstop.checkpointing.runs.create import create_run
from pitstop.checkpointing.runs.push_records import Destination, Outbox
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state.snapshot import Snapshot
from pitstop.configs.errors import ResourceError
from pitstop.configs.schema import CheckpointSettings, Settings, TrainingSettings
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.loop import Boundary
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.identity import Identity
from pitstop.trainers.training.saver import Saver, SaveTarget, saved_line
from support.displays import Lines
from support.stores import ForgetfulStorage, save


class Disk(ForgetfulStorage):
    """A disk that is ``full`` or slow: it waits for ``go`` before each file's last sync."""

    def __init__(self) -> None:
        self.full, self.go, self.writing = False, threading.Event(), threading.Event()
        self.go.set()
        self.operations: list[str] = []
        self.room: Callable[[], bool] = lambda: True

    def free_space(self, path: Path) -> int:
        return 0 if self.full or not self.room() else 1 << 40

    def sync_file(self, descriptor: int) -> None:
        self.writing.set()
        assert self.go.wait(20)

    def create(self, path: Path) -> int:
        self.operations.append(f"create {path.name}")
        return super().create(path)


class Buffers:
    """Stands for the model's state: one file that says which step it is of."""

    def __init__(self, progress: Progress) -> None:
        self.progress = progress

    def take(self) -> Snapshot:
        return Snapshot({layout.ADAPTER_WEIGHTS: memoryview(f"weights of {self.progress.step}".encode())}, {})


class Bench:
    """A saver on a run of its own, with a disk that can be told to fail."""

    def __init__(self, base: Path, **checkpoint: Any) -> None:
        self.disk, self.said, self.progress = Disk(), Lines(), Progress()
        self.run: RunDirectory = create_run(base, name="a-run", config={}, metadata={}, storage=self.disk)
        engine: Any = SimpleNamespace(
            device=torch.device("cpu"),
            accelerator=SimpleNamespace(scaler=None),
        )
        self.log = MetricsLog(self.run.metrics_path, self.disk)
        settings = Settings(training=TrainingSettings(checkpoint=CheckpointSettings(**{"keep_last_n": 3, **checkpoint})))
        settings_in_force = {"training": {"batch_size": 4, "gradient_accumulation_steps": 1}}
        identity = Identity({"base": "b"}, settings_in_force, {"versions": {"torch": "1"}})
        self.commits: list[list[int]] = []
        target = SaveTarget(self.run, [self.log], committed=lambda: self.commits.append(self.saved()))
        self.saver = Saver(engine, self.progress, settings, identity, Reporter(self.said), target, Buffers(self.progress))

    def step(self, number: int, **boundary: Any) -> None:
        """One step with its row and its save."""
        self.progress.step = number
        with contextlib.suppress(OSError):
            self.log.append({"step": number})
        defaults = {"epoch": number / 10, "epoch_ended": False, "finished": False, "learning_rate": 0.1, "grad_norm": 1.0}
        self.saver.save(f"checkpoint-{number}", Boundary(step=number, step_s=0.1, **{**defaults, **boundary}))

    def saved(self) -> list[int]:
        return [info.step for info in self.run.store.list()]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_training_goes_on_while_a_slow_disk_saves_and_the_next_save_waits(bench: Bench) -> None:
    bench.disk.go.clear()
    bench.step(1)
    assert bench.disk.writing.wait(10)
    bench.progress.step = 2  # training has gone on
    assert bench.saved() == [] and bench.said.lines == []
    threading.Timer(0.1, bench.disk.go.set).start()
    bench.step(3)
    assert bench.saved()[0] == 1, "one save in flight at most"
    bench.saver.settle(final=True)
    assert bench.saved() == [1, 3]
    assert [line.split()[1] for line in bench.said.lines] == ["checkpoint-1", "checkpoint-3"]
    weights = read_verified(bench.run.store.resolve("checkpoint-1"), layout.ADAPTER_WEIGHTS)
    assert weights == b"weights of 1"


def test_a_save_that_nothing_comes_after_is_waited_for(bench: Bench) -> None:
    threading.Timer(0.1, bench.disk.go.set).start()
    bench.disk.go.clear()
    bench.step(1, final=True)
    assert bench.saved() == [1]


def test_sync_save_waits_for_each(tmp_path: Path) -> None:
    bench = Bench(tmp_path, sync_save=True)
    for step in (1, 2):
        bench.step(step)
        assert bench.saved()[-1] == step


def test_a_missed_save_is_said_at_once_and_costs_no_training(bench: Bench) -> None:
    bench.disk.full = True
    bench.step(1)
    bench.saver.background.wait()
    assert len(bench.said.warnings) == 1
    assert "checkpoint-1 was not saved (1 of 3 misses in a row)" in bench.said.warnings[0]
    assert not bench.saver.troubled()
    bench.disk.full = False
    bench.step(2)
    bench.saver.settle(final=True)
    assert bench.saved() == [2]


def test_three_misses_in_a_row_end_the_training_at_the_next_step(bench: Bench) -> None:
    bench.disk.full = True
    for step in (1, 2, 3):
        assert not bench.saver.troubled()
        bench.step(step)
    bench.saver.background.join()
    assert bench.saver.troubled()
    with pytest.raises(ResourceError, match="checkpoint-3"):
        bench.saver.raise_trouble()
    assert len(bench.said.warnings) == 2, "the third is the error itself"


def test_misses_count_only_in_a_row(bench: Bench) -> None:
    for step, full in enumerate([True, True, False, True, True, False], start=1):
        bench.disk.full = full
        bench.step(step)
        bench.saver.background.wait()
    assert not bench.saver.troubled()
    assert bench.saved() == [3, 6]


def test_a_last_save_that_fails_is_an_error_however_few_failed_before(bench: Bench) -> None:
    bench.disk.full = True
    with pytest.raises(ResourceError):
        bench.step(1, final=True)
    assert bench.said.warnings == []


def test_a_failure_in_flight_at_the_end_of_training_is_an_error(bench: Bench) -> None:
    bench.disk.full = True
    bench.step(1)
    with pytest.raises(ResourceError):
        bench.saver.settle(final=True)


def test_a_bug_while_saving_surfaces_at_the_next_step(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench.run.store, "write", lambda *arguments, **named: 1 / 0)
    bench.step(1)
    bench.saver.background.join()
    assert bench.saver.troubled()
    with pytest.raises(ZeroDivisionError):
        bench.saver.raise_trouble()


def test_where_an_error_ends_the_training_the_save_under_way_is_finished(bench: Bench) -> None:
    bench.disk.go.clear()
    bench.step(1)
    threading.Timer(0.1, bench.disk.go.set).start()
    bench.saver.join()
    assert bench.saved() == [1]


def test_where_an_error_ends_the_training_one_of_the_save_under_way_is_told_and_not_raised(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench.run.store, "write", lambda *arguments, **named: 1 / 0)
    bench.step(1)
    bench.saver.join()
    assert bench.said.warnings == ["The save under way when training ended failed too: ZeroDivisionError: division by zero"]


def test_rows_are_synced_before_the_checkpoint_that_mentions_their_step(bench: Bench) -> None:
    events: list[str] = []
    sync, rename = bench.log.sync, bench.disk.rename
    bench.log.sync = lambda: events.append("rows") or sync()  # type: ignore[method-assign,func-returns-value]
    bench.disk.rename = lambda *paths: events.append("commit") or rename(*paths)  # type: ignore[method-assign,func-returns-value]
    bench.step(1)
    bench.saver.settle(final=True)
    assert events[:2] == ["rows", "commit"]


def test_without_its_rows_a_checkpoint_is_not_saved(bench: Bench) -> None:
    def refuse(descriptor: int, data: memoryview) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bench.disk.write = refuse  # type: ignore[method-assign]
    bench.step(1)
    bench.saver.background.wait()
    assert bench.saved() == [] and "metrics.jsonl" in bench.said.warnings[0]
    del bench.disk.write
    bench.step(2)
    bench.saver.settle(final=True)
    assert bench.saved() == [2] and [row["step"] for row in read_rows(bench.log.path)] == [1, 2]


def test_a_checkpoint_is_safe_though_the_records_about_it_could_not_be_written(bench: Bench) -> None:
    def refuse(source: Path, target: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    bench.disk.replace = refuse  # type: ignore[method-assign]
    bench.step(1, final=True)
    assert bench.saved() == [1]
    assert "checkpoint-1 is safe" in bench.said.warnings[0]


def test_retention_and_metadata_follow_each_commit(bench: Bench) -> None:
    for step in range(1, 7):
        bench.step(step)
    bench.saver.settle(final=True)
    assert bench.saved() == [4, 5, 6]
    metadata = bench.run.metadata()
    assert [entry.step for entry in metadata.checkpoints] == [4, 5, 6]
    assert metadata.progress.step == 6


def test_a_changed_shape_is_in_later_checkpoints_and_not_in_the_one_under_way(bench: Bench) -> None:
    bench.disk.go.clear()
    bench.step(1)
    bench.saver.note_shape(BatchShape(2, 2, 1))
    bench.disk.go.set()
    bench.step(2)
    bench.saver.settle(final=True)
    sizes = []
    for name in ("checkpoint-1", "checkpoint-2"):
        content = json.loads(read_verified(bench.run.store.resolve(name), layout.TRAINER_STATE))
        sizes.append(
            (content["settings"]["training"]["batch_size"], content["settings"]["training"]["gradient_accumulation_steps"])
        )
    assert sizes == [(4, 1), (2, 2)]


def test_what_a_save_took_is_on_record(bench: Bench) -> None:
    bench.disk.go.clear()
    bench.step(1)
    threading.Timer(0.15, bench.disk.go.set).start()
    bench.step(2)
    bench.saver.settle(final=True)
    first, second = bench.saver.times
    assert first.waited_s < 0.1 < second.waited_s <= second.stalled_s
    assert first.written_s is not None and first.written_s > 0.1


def test_a_full_disk_says_how_much_a_save_takes_and_what_prune_would_free(tmp_path: Path) -> None:
    other = create_run(tmp_path, name="other", config={}, metadata={}, storage=ForgetfulStorage())
    for step in (1, 2, 3):
        save(other.store, step, files={"adapter_model.safetensors": bytes(1 << 20)})
    bench = Bench(tmp_path)
    bench.disk.full = True
    bench.step(1)
    bench.saver.background.wait()
    assert "It takes about " in bench.said.warnings[0]
    assert "`pitstop prune --keep-last-n 1` would free 2.0 MiB in other runs" in bench.said.warnings[0]
    other.store.prune(1)
    bench.step(2)
    bench.saver.background.wait()
    assert "`pitstop prune` finds nothing to free in other runs" in bench.said.warnings[1]


def test_the_checkpoint_that_a_resume_started_from_is_kept(bench: Bench) -> None:
    bench.step(1)
    bench.saver.background.wait()
    bench.run.record_resume(bench.run.store.resolve("checkpoint-1"), {})
    for step in range(2, 8):
        bench.step(step)
    bench.saver.settle(final=True)
    assert bench.saved() == [1, 5, 6, 7]


def test_what_is_not_on_the_hub_outlives_retention_until_the_disk_is_full(bench: Bench) -> None:
    """A Hub that is away must not end the training: then the newest checkpoint is worth more than old ones."""
    Outbox(bench.run.path, bench.disk).open(Destination())
    for number in range(1, 6):
        bench.step(number)
    bench.saver.settle(final=True)
    assert bench.saved() == [1, 2, 3, 4, 5], "three would be kept, and none of them has arrived"
    bench.disk.room = lambda: len(bench.saved()) <= 3
    bench.step(6, scored={"train_loss": 0.5})
    bench.saver.settle(final=True)
    assert bench.saved() == [3, 4, 5, 6]
    assert any("deleted before they were on the Hub: checkpoint-1, checkpoint-2" in line for line in bench.said.warnings)


def test_each_commit_is_told_to_whoever_pushes(bench: Bench) -> None:
    bench.step(1)
    bench.step(2)
    bench.saver.settle(final=True)
    assert bench.commits == [[1], [1, 2]]


@pytest.mark.parametrize(("improved", "mark"), [(True, "  ← best"), (False, "")])
def test_a_save_has_its_line_and_marks_the_best(improved: bool, mark: str) -> None:
    boundary = Boundary(
        step=7, epoch=1.0, epoch_ended=False, finished=False, learning_rate=1e-3, grad_norm=1.0, step_s=0.5, improved=improved
    )
    info: Any = SimpleNamespace(name="epoch_001", step=7, size=2048, path=Path("epoch_001"))
    assert saved_line(info, boundary) == f"saved epoch_001 (step 7, 2.0 KiB){mark}"
