"""Turns the training state into a committed checkpoint, on every process together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from pitstop.checkpointing import state, vetting
from pitstop.checkpointing.metrics_log import MetricsLog
from pitstop.checkpointing.runs import RunDirectory
from pitstop.checkpointing.store import CheckpointInfo
from pitstop.configs.errors import ResourceError
from pitstop.configs.schema import Settings
from pitstop.configs.units import human_size
from pitstop.trainers.engine import Engine, agree, gather_bytes
from pitstop.trainers.loop import Boundary, Plan
from pitstop.trainers.progress import Progress
from pitstop.trainers.reporter import Reporter

MOST_MISSES = 3


@dataclass(frozen=True)
class Identity:
    """What a checkpoint's manifest says it belongs to, and the settings in force."""

    fingerprints: dict[str, str]
    versions: dict[str, str]
    settings: dict[str, Any]


class Saver:
    """Saves checkpoints of one run; only the first process has ``run`` and ``log``."""

    def __init__(
        self,
        engine: Engine,
        progress: Progress,
        settings: Settings,
        identity: Identity,
        reporter: Reporter,
        run: RunDirectory | None,
        log: MetricsLog | None,
        protect: frozenset[str] = frozenset(),
    ) -> None:
        self.engine, self.progress, self.settings, self.identity = engine, progress, settings, identity
        self.reporter, self.run, self.log, self.protect = reporter, run, log, protect
        self.plan: Plan | None = None
        self._misses = 0

    def save(self, name: str, boundary: Boundary) -> None:
        """Commit the present state under ``name``, on all processes together.

        A full or failing disk costs this checkpoint, not the training: there is a warning, and after three in a row, or
        at the end of training, ``ResourceError``.
        """
        random_states = gather_bytes(state.rng_state(), self.engine.device)
        failure: ResourceError | None = None
        if self.run is not None:
            try:
                self._commit(self.run, name, boundary, random_states)
            except ResourceError as error:
                failure = error
        if not agree(int(failure is not None), self.engine.device):
            self._misses = 0
            return
        self._misses += 1
        if boundary.final or self._misses >= MOST_MISSES:
            raise failure or ResourceError("The first process could not save a checkpoint.")
        if failure is not None:
            self.reporter.warn(
                f"{name} was not saved ({self._misses} of {MOST_MISSES} misses in a row): {failure.message} Training goes on."
            )

    def _commit(self, run: RunDirectory, name: str, boundary: Boundary, random_states: list[bytes]) -> None:
        self.reporter.display.status(f"saving {name}")
        if self.log is not None:
            self.log.sync()  # rows that the checkpoint's step relies on must be as durable as the checkpoint
        info = run.store.write(
            name,
            self._files(random_states),
            step=self.progress.step,
            epoch=boundary.epoch,
            metrics=boundary.scored,
            world_size=len(random_states),
            fingerprints=self.identity.fingerprints,
            versions=self.identity.versions,
            now=datetime.now().astimezone(),
        )
        self.reporter.line(_saved(info, boundary))
        self._after(run, info, boundary)

    def _files(self, random_states: list[bytes]) -> dict[str, bytes]:
        engine = self.engine
        scaler = engine.accelerator.scaler
        trainer_state = {
            "format_version": vetting.STATE_VERSION,
            "global_step": self.progress.step,
            "epoch": self.progress.epoch,
            "progress": self.progress.to_dict(),
            "settings": self.identity.settings,
            "scaler": scaler.state_dict() if scaler is not None else None,
        }
        return {
            **state.adapter_files(engine.model),
            **state.optimizer_files(engine.raw_optimizer, engine.names),
            state.TRAINER_STATE: state.to_json(trainer_state),
            **{state.rng_file(rank): content for rank, content in enumerate(random_states)},
        }

    def _after(self, run: RunDirectory, info: CheckpointInfo, boundary: Boundary) -> None:
        """Pointers, retention and metadata: hints beside the commit, repaired when the run is next opened."""
        run.store.repair_pointers()
        run.store.prune(self.settings.training.checkpoint.keep_last_n, protect=set(self.protect))
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


def _saved(info: CheckpointInfo, boundary: Boundary) -> str:
    best = "  ← best" if boundary.improved else ""
    return f"saved {info.name} (step {info.step}, {human_size(info.size)}){best}"


def restore(engine: Engine, info: CheckpointInfo, content: dict[str, Any]) -> Callable[[], None]:
    """Put a verified checkpoint's weights, optimizer and loss scale back.

    Returns what is to be called last, right before training: it restores this process's random state, which building
    and loading would disturb. Raises ``CheckpointError`` for anything missing or unfit.
    """
    state.load_adapter(engine.model, info.path)
    state.load_optimizer(engine.raw_optimizer, engine.names, info.path)
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
