"""Turns the training state into a committed checkpoint, beside the training and for every process together."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from typing import Any, NoReturn

from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.disk.storage import MOST_MISSES, failed_save
from pitstop.checkpointing.runs import retention
from pitstop.checkpointing.runs.housekeeping import freed_by_prune
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state import state
from pitstop.checkpointing.state.snapshot import AverageBuffer, Snapshot, StateBuffers
from pitstop.checkpointing.store import vetting
from pitstop.checkpointing.store.store import CheckpointFacts, CheckpointInfo
from pitstop.configs.errors import ResourceError, first_line, is_disk_full
from pitstop.configs.schema import Settings
from pitstop.configs.shown import human_size
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.loop.loop import Boundary, Plan
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.background import Background
from pitstop.trainers.machine.processes import agree, gather_bytes
from pitstop.trainers.reporter import Reporter


@dataclass(frozen=True)
class Identity:
    """What a checkpoint's manifest says it belongs to, the settings in force without this machine's paths, and the machine."""

    fingerprints: dict[str, str]
    settings: dict[str, Any]
    environment: dict[str, Any]


@dataclass
class SaveTime:
    """What one save took, in seconds. ``written_s`` is None where it failed or is still under way."""

    step: int
    waited_s: float  # for the save before
    stalled_s: float = 0.0  # all that the training waited, for the save before and for the copy
    written_s: float | None = None  # from the copy to the commit, beside the training


class Saver:
    """Saves checkpoints of one run; only the first process has ``run``, ``log`` and ``samples``.

    ``save`` copies the state and returns; one save at a time is committed on a thread beside the training. With
    ``training.checkpoint.sync_save`` it returns after the commit.
    """

    def __init__(
        self,
        engine: Engine,
        progress: Progress,
        settings: Settings,
        identity: Identity,
        reporter: Reporter,
        run: RunDirectory | None,
        log: MetricsLog | None,
        saved: Callable[[], None] = lambda: None,
        samples: MetricsLog | None = None,
    ) -> None:
        self.engine, self.progress, self.settings, self.identity = engine, progress, settings, identity
        self.reporter, self.run, self.saved = reporter, run, saved
        self.logs = [each for each in (log, samples) if each is not None]
        self.plan: Plan | None = None
        self.times: list[SaveTime] = []
        self._buffers = _buffers(engine)
        self._background = Background()
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
        if self.run is not None:
            snapshot = self._take(random_states)
            self._background.start(partial(self._write, self.run, name, boundary, snapshot, len(random_states), times))
        if boundary.final or self.settings.training.checkpoint.sync_save:
            self.settle(final=boundary.final)
        times.stalled_s = time.perf_counter() - started

    def settle(self, *, final: bool) -> None:
        """Wait for the save under way; all processes call this together. ``ResourceError`` when it is time to give up."""
        self._background.wait()
        if agree(int(self._must_stop(final)), self.engine.device):
            self.raise_trouble()

    def join(self) -> None:
        """Wait for the save under way where an error ends the training: that is the one to raise, this one is only told."""
        try:
            self._background.wait()
        except Exception as error:  # noqa: BLE001 - whatever it is, the error that ended the training comes first
            self.reporter.warn(f"The save under way when training ended failed too: {type(error).__name__}: {first_line(error)}")

    def troubled(self) -> bool:
        """Whether a save has ended in a way that training must not go on after; asked at every step."""
        return self._background.failed() or self._must_stop(final=False)

    def raise_trouble(self) -> NoReturn:
        """Raise what is wrong with saving."""
        self._background.wait()
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
            "format_version": vetting.STATE_VERSION,
            "global_step": self.progress.step,
            "epoch": self.progress.epoch,
            "progress": self.progress.to_dict(),
            "settings": self.identity.settings,
            "environment": self.identity.environment,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        taken = self._buffers.take()
        rng = {state.rng_file(rank): memoryview(content) for rank, content in enumerate(random_states)}
        return replace(taken, tensors={**taken.tensors, **rng}, values={**taken.values, state.TRAINER_STATE: trainer_state})

    # On the thread beside the training

    def _write(
        self, run: RunDirectory, name: str, boundary: Boundary, snapshot: Snapshot, world_size: int, times: SaveTime
    ) -> None:
        started = time.perf_counter()
        self.reporter.display.status(f"saving {name}")
        try:
            info = self._commit_with_room(run, name, boundary, snapshot, world_size)
        except ResourceError as error:
            size = sum(memoryview(content).nbytes for content in snapshot.tensors.values())
            self._missed(name, _with_way_out(error, run, size), boundary)
            return
        times.written_s = time.perf_counter() - started
        self._misses, self._failure = 0, None
        self.reporter.line(_saved(info, boundary))
        self.saved()
        try:
            self._after(run, info, boundary)
        except (ResourceError, OSError) as error:
            self.reporter.warn(f"{name} is safe, but the run's records do not show it yet: {error} The next resume repairs them.")

    def _commit_with_room(
        self, run: RunDirectory, name: str, boundary: Boundary, snapshot: Snapshot, world_size: int
    ) -> CheckpointInfo:
        """Commit; on a full disk once more without the checkpoints that are only kept until they are on the Hub."""
        try:
            return self._commit(run, name, boundary, snapshot, world_size)
        except ResourceError as error:
            if error.__cause__ is None or not is_disk_full(error.__cause__):
                raise
            dropped = run.store.prune(
                self.settings.training.checkpoint.keep_last_n, protect=set(retention.pins(run, uploads=False))
            )
            if not dropped:
                raise
        self.reporter.warn(f"The disk is full: {', '.join(dropped)} had to go before being on the Hub.")
        return self._commit(run, name, boundary, snapshot, world_size)

    def _commit(self, run: RunDirectory, name: str, boundary: Boundary, snapshot: Snapshot, world_size: int) -> CheckpointInfo:
        files = snapshot.files()
        self._sync_log()
        return run.store.write(
            name,
            files,
            CheckpointFacts(
                step=boundary.step,
                epoch=boundary.epoch,
                metrics=boundary.scored,
                world_size=world_size,
                fingerprints=self.identity.fingerprints,
                versions=self.identity.environment["versions"],
                saved_at=datetime.now().astimezone(),
            ),
        )

    def _sync_log(self) -> None:
        """Rows up to the checkpoint's step, samples too, must be as durable as the checkpoint."""
        for log in self.logs:
            try:
                log.sync()
            except OSError as error:
                raise failed_save(log.path, error) from error

    def _missed(self, name: str, error: ResourceError, boundary: Boundary) -> None:
        self._misses += 1
        self._failure = error
        if not boundary.final and self._misses < MOST_MISSES:  # otherwise the training ends with this error
            self.reporter.warn(
                f"{name} was not saved ({self._misses} of {MOST_MISSES} misses in a row): {error.message} Training goes on."
            )

    def _after(self, run: RunDirectory, info: CheckpointInfo, boundary: Boundary) -> None:
        """Pointers, retention and metadata: hints beside the commit, repaired when the run is next opened."""
        run.store.repair_pointers()
        run.store.prune(self.settings.training.checkpoint.keep_last_n, protect=set(retention.pins(run)))
        total = self.plan.total_steps if self.plan else None
        run.sync_checkpoints(
            {
                "progress": {
                    "step": info.step,
                    "total_steps": total,
                    "epoch": boundary.epoch,
                    "total_epochs": self.settings.training.epochs,
                }
            }
        )


def _buffers(engine: Engine) -> StateBuffers:
    pinned = engine.device.type == "cuda"
    return StateBuffers(
        engine.model,
        engine.raw_optimizer,
        engine.names,
        engine.device,
        weights=engine.trained.buffer(pinned=pinned),
        further=[AverageBuffer(engine.average, pinned=pinned)] if engine.ema is not None else [],
    )


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


def _saved(info: CheckpointInfo, boundary: Boundary) -> str:
    best = "  ← best" if boundary.improved else ""
    return f"saved {info.name} (step {info.step}, {human_size(info.size)}){best}"


def restore(engine: Engine, info: CheckpointInfo, content: dict[str, Any]) -> Callable[[], None]:
    """Put a verified checkpoint's weights, optimizer and loss scale back.

    Returns what is to be called last, right before training: it restores this process's random state, which building
    and loading would disturb. Raises ``CheckpointError`` for anything missing or unfit.
    """
    engine.trained.restore(info.path)
    if engine.ema is not None:
        state.load_average(engine.average(), info.path)
    state.load_optimizer(engine.raw_optimizer, engine.names, info.path)
    for group in engine.raw_optimizer.param_groups:  # a run with only an evaluation left saves the rate of its last step again
        group["lr"] = Progress.from_dict(content.get("progress")).learning_rate
    if engine.accelerator.scaler is not None and content.get("scaler"):
        engine.accelerator.scaler.load_state_dict(content["scaler"])
    rank = engine.accelerator.process_index
    known = info.manifest.world_size

    def restore_rng() -> None:
        if rank < known:
            state.restore_rng(info.path / state.rng_file(rank))
        else:  # more processes than before: a stream of their own, the same in every resume from here
            state.seed_everything((info.step * 1_000_003 + rank) % 2**32)

    return restore_rng
