"""Turns the training state into a committed checkpoint, beside the training and for every process together."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import NoReturn

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.disk.storage import MOST_MISSES, saving
from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.housekeeping import freed_by_prune
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state import state
from pitstop.checkpointing.state.snapshot import AverageBuffer, Buffer, Snapshot, StateBuffers
from pitstop.checkpointing.store.store import CheckpointFacts, CheckpointInfo
from pitstop.configs.errors import ResourceError, first_line, is_disk_full
from pitstop.configs.schema import Settings
from pitstop.configs.shown import human_size
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.loop.loop import Boundary
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.background import Background
from pitstop.trainers.machine.processes import agree, gather_bytes
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.identity import Identity


@dataclass(frozen=True)
class SaveTarget:
    """Where the first process saves: the run, and the logs whose rows up to a step must be as durable as its checkpoint.

    ``total_steps`` are those of the whole training and ``usage`` what it has taken so far, for metadata.json. ``committed`` is called
    after each commit, on the thread beside the training.
    """

    run: RunDirectory
    logs: Sequence[MetricsLog] = ()
    total_steps: int | None = None
    usage: Callable[[], Mapping[str, float]] = dict
    committed: Callable[[], None] = lambda: None


@dataclass
class SaveTime:
    """What one save took, in seconds. ``written_s`` is None where it failed or is still under way."""

    step: int
    waited_s: float  # for the save before
    stalled_s: float = 0.0  # all that the training waited, for the save before and for the copy
    written_s: float | None = None  # from the copy to the commit, beside the training


@dataclass(frozen=True)
class _Save:
    """One save under way: what is written on the thread beside the training."""

    name: str
    boundary: Boundary
    snapshot: Snapshot
    world_size: int
    times: SaveTime


class Saver:
    """Saves checkpoints of one run; only the first process has a ``target``.

    ``save`` copies the state and returns; one save at a time is committed on a thread beside the training. With
    ``training.checkpoint.sync_save`` it returns after the commit. ``buffers`` take the state of ``engine`` unless given.
    """

    def __init__(
        self,
        engine: Engine,
        progress: Progress,
        settings: Settings,
        identity: Identity,
        reporter: Reporter,
        target: SaveTarget | None,
        buffers: Buffer | None = None,
    ) -> None:
        self.engine, self.progress, self.settings, self.identity = engine, progress, settings, identity
        self.reporter, self.target = reporter, target
        self.times: list[SaveTime] = []
        self.background = Background()
        self._buffers = buffers if buffers is not None else _buffers(engine)
        self._misses = 0
        self._failure: ResourceError | None = None  # of the newest save, if it failed

    def save(self, name: str, boundary: Boundary) -> None:
        """Have the present state committed under ``name``; all processes call this together.

        A full or failing disk costs this checkpoint, not the training: there is a warning, and after three misses in a
        row, or at the end of training, ``ResourceError``.
        """
        started = time.perf_counter()
        self.settle(final=False)
        times = SaveTime(boundary.step, waited_s=time.perf_counter() - started)
        self.times.append(times)
        random_states = gather_bytes(state.rng_state(), self.engine.device)
        if self.target is not None:
            snapshot = self._take(random_states)
            save = _Save(name, boundary, snapshot, len(random_states), times)
            self.background.start(partial(self._write, self.target, save))
        if boundary.final or self.settings.training.checkpoint.sync_save:
            self.settle(final=boundary.final)
        times.stalled_s = time.perf_counter() - started

    def settle(self, *, final: bool) -> None:
        """Wait for the save under way; all processes call this together. ``ResourceError`` when it is time to give up."""
        self.background.wait()
        if agree(int(self._must_stop(final)), self.engine.device):
            self.raise_trouble()

    def join(self) -> None:
        """Wait for the save under way where an error ends the training: that is the one to raise, this one is only told."""
        try:
            self.background.wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, the error that ended the training comes first
            self.reporter.warn(f"The save under way when training ended failed too: {type(error).__name__}: {first_line(error)}")

    def troubled(self) -> bool:
        """Whether a save has ended in a way that training must not go on after; asked at every step."""
        return self.background.failed() or self._must_stop(final=False)

    def raise_trouble(self) -> NoReturn:
        """Raise what is wrong with saving."""
        self.background.wait()
        raise self._failure or ResourceError("The first process could not save a checkpoint.")

    def _must_stop(self, final: bool) -> bool:
        return self._failure is not None and (final or self._misses >= MOST_MISSES)

    def note_shape(self, shape: BatchShape) -> None:
        """Let checkpoints from here on say that steps are cut up in another way."""
        settings = copy.deepcopy(self.identity.settings)  # a save under way may still be writing the old ones
        settings["training"]["batch_size"] = shape.batch_size
        settings["training"]["gradient_accumulation_steps"] = shape.accumulation
        self.identity = replace(self.identity, settings=settings)

    def _take(self, random_states: list[bytes]) -> Snapshot:
        scaler = self.engine.accelerator.scaler
        trainer_state = {
            "format_version": layout.STATE_VERSION,
            "global_step": self.progress.step,
            "epoch": self.progress.epoch,
            "progress": self.progress.to_dict(),
            "settings": self.identity.settings,
            "environment": self.identity.environment,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        snapshot = self._buffers.take()
        rng = {layout.rng_file(rank): memoryview(content) for rank, content in enumerate(random_states)}
        values = {**snapshot.values, layout.TRAINER_STATE: trainer_state}
        return replace(snapshot, tensors={**snapshot.tensors, **rng}, values=values)

    # On the thread beside the training

    def _write(self, target: SaveTarget, save: _Save) -> None:
        started = time.perf_counter()
        name, boundary = save.name, save.boundary
        self.reporter.display.status(f"saving {name}")
        try:
            info = self._commit_with_room(target, save)
        except ResourceError as error:
            size = sum(memoryview(content).nbytes for content in save.snapshot.tensors.values())
            self._missed(name, _with_way_out(error, target.run, size), boundary)
            return
        save.times.written_s = time.perf_counter() - started
        self._misses, self._failure = 0, None
        self.reporter.line(saved_line(info, boundary))
        target.committed()
        try:
            self._update_records(target, info, boundary)
        except (ResourceError, OSError) as error:
            self.reporter.warn(f"{name} is safe, but the run's records do not show it yet: {error} The next resume repairs them.")

    def _commit_with_room(self, target: SaveTarget, save: _Save) -> CheckpointInfo:
        """Commit; on a full disk once more without the checkpoints that are only kept until they are on the Hub."""
        run = target.run
        try:
            return self.commit(target, save)
        except ResourceError as error:
            if error.__cause__ is None or not is_disk_full(error.__cause__):
                raise
            dropped = run.store.prune(
                self.settings.training.checkpoint.keep_last_n, protect=set(retention.pins(run, uploads=False))
            )
            if not dropped:
                raise
        self.reporter.warn(f"The disk is full: deleted before they were on the Hub: {', '.join(dropped)}.")
        return self.commit(target, save)

    def commit(self, target: SaveTarget, save: _Save) -> CheckpointInfo:
        """Write the checkpoint, and before it the rows of the logs; on the thread beside the training."""
        files, boundary = save.snapshot.files(), save.boundary
        for log in target.logs:
            with saving(log.path):
                log.sync()
        facts = CheckpointFacts(
            step=boundary.step,
            epoch=boundary.epoch,
            metrics=boundary.scored,
            world_size=save.world_size,
            fingerprints=self.identity.fingerprints,
            versions=self.identity.environment["versions"],
            saved_at=datetime.now().astimezone(),
        )
        return target.run.store.write(save.name, files, facts)

    def _missed(self, name: str, error: ResourceError, boundary: Boundary) -> None:
        self._misses += 1
        self._failure = error
        if not boundary.final and self._misses < MOST_MISSES:  # otherwise the training ends with this error
            self.reporter.warn(
                f"{name} was not saved ({self._misses} of {MOST_MISSES} misses in a row): {error.message} Training goes on."
            )

    def _update_records(self, target: SaveTarget, info: CheckpointInfo, boundary: Boundary) -> None:
        """Pointers, retention and metadata: hints beside the commit, repaired when the run is next opened."""
        run, training = target.run, self.settings.training
        run.store.repair_pointers()
        run.store.prune(training.checkpoint.keep_last_n, protect=set(retention.pins(run)))
        progress = {
            "step": info.step,
            "total_steps": target.total_steps,
            "epoch": boundary.epoch,
            "total_epochs": training.epochs,
        }
        run.sync_checkpoints({"progress": progress, "usage": target.usage()})


def _buffers(engine: Engine) -> StateBuffers:
    pinned = engine.device.type == "cuda"
    weights = engine.trained.buffer(pinned=pinned)
    further = [AverageBuffer(engine.average, pinned=pinned)] if engine.ema is not None else []
    return StateBuffers(weights, engine.raw_optimizer, engine.names, engine.device, further)


def _with_way_out(error: ResourceError, run: RunDirectory, size: int) -> ResourceError:
    """The error of a save with how much it needed and what could make room for it."""
    try:
        freed = freed_by_prune(run.base_dir, 1, without=run.label)
    except OSError:
        return error
    room = (
        f"`pitstop prune --keep-last-n 1` would free {human_size(freed)} in other runs"
        if freed
        else "`pitstop prune` finds nothing to free in other runs"
    )
    return ResourceError(f"{error.message} It takes about {human_size(size)}; {room}.", hint=error.hint)


def saved_line(info: CheckpointInfo, boundary: Boundary) -> str:
    """What is told of a commit."""
    best = "  ← best" if boundary.improved else ""
    return f"saved {info.name} (step {info.step}, {human_size(info.size)}){best}"
