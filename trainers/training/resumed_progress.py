"""Where a resumed run stands: its data the same, its progress, optimizer and random state put back, the resume on record."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state import state
from pitstop.checkpointing.store.portable_paths import portable_value
from pitstop.configs.errors import CheckpointError, DataError
from pitstop.configs.notices import Notice
from pitstop.trainers.data.dataset import Sequences
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.environment import differences, in_one_line
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.chosen import ChosenCheckpoint
from pitstop.trainers.training.inputs import Inputs
from pitstop.trainers.training.samples import samples_log

_DATE = "data.template_date"
_TOKENISING = ("transformers", "tokenizers", "jinja2")


def check_data(
    chosen: ChosenCheckpoint, inputs: Inputs, environment: Mapping[str, Any], reporter: Reporter, *, allow_changed: bool
) -> None:
    """Raises ``DataError`` where the data is not what the checkpoint was trained on, unless the user allowed that.

    It names what else than records makes tokens and is not what it was.
    """
    if not _data_changed(chosen, inputs.train.fingerprint):
        return
    if not allow_changed and (causes := _causes(chosen, inputs, environment)):
        raise DataError(
            f"The training data of {chosen.run.label} has other tokens than when {chosen.info.name} was saved. "
            f"What makes tokens of it has changed: {', '.join(causes)}.",
            hint="Put that back, or pass --allow-changed-data: the current epoch then starts again on the new tokens.",
        )
    if not allow_changed:
        raise DataError(
            f"The training data of {chosen.run.label} has changed since {chosen.info.name} was saved.",
            hint="Restore it, or pass --allow-changed-data: the current epoch then starts again on the new data.",
        )
    reporter.notice(Notice("The training data has changed: the current epoch starts again on the new data", loss=True))


def _causes(chosen: ChosenCheckpoint, inputs: Inputs, environment: Mapping[str, Any]) -> list[str]:
    """What else than its records the tokens of data follow from and is not what it was, in words."""
    if inputs.train.fingerprint == chosen.info.manifest.fingerprints.get("data"):
        return []  # only the order changed
    causes = [f"{_DATE} {old} → {new}" for old, new in [chosen.changes.get(_DATE, ("", ""))] if old != new]
    recorded = chosen.run.metadata().data.template
    if recorded is not None and recorded != inputs.template:
        causes.append("the tokenizer's chat template")
    changed = differences(chosen.trainer_state["environment"], environment)
    libraries = {name: pair for name, pair in changed.items() if name in _TOKENISING}
    return [*causes, in_one_line(libraries)] if libraries else causes


def _data_changed(chosen: ChosenCheckpoint, fingerprint: str) -> bool:
    return fingerprint != chosen.info.manifest.fingerprints.get("data") or "training.seed" in chosen.changes


def progress_of(chosen: ChosenCheckpoint, data: Sequences) -> Progress:
    """Where training stood; with changed data at the beginning of that epoch.

    Raises ``CheckpointError`` for a place that ``data`` does not have.
    """
    path = chosen.info.path / layout.TRAINER_STATE
    progress = Progress.from_dict(chosen.trainer_state.get("progress"))
    epoch = chosen.info.epoch
    if _data_changed(chosen, data.fingerprint):
        progress.sources = []
        if epoch == progress.epoch + 1:  # that epoch was done
            progress.epoch += 1
        progress.position = 0
        progress.boundary_pending = False
        return progress
    if abs(progress.epoch + progress.position / len(data) - epoch) > 1e-9:
        raise CheckpointError(
            f"{path}: position {progress.position} of {len(data)} in epoch {progress.epoch} is not the manifest's epoch {epoch}"
        )
    if len(progress.sources) != len(data.names):
        raise CheckpointError(
            f"{path}: it holds the progress of {len(progress.sources)} data sets, and there are {len(data.names)}"
        )
    return progress


def restore(engine: Engine, chosen: ChosenCheckpoint) -> Callable[[], None]:
    """Put a verified checkpoint's weights, optimizer and loss scale back.

    Returns what is to be called last, right before training: it restores this process's random state, which building
    and loading would disturb. Raises ``CheckpointError`` for anything missing or unfit.
    """
    info, content = chosen.info, chosen.trainer_state
    chosen.restore_weights(engine)
    state.load_optimizer(engine.raw_optimizer, engine.names, info.path)
    for group in engine.raw_optimizer.param_groups:  # a run with only an evaluation left saves the rate of its last step again
        group["lr"] = Progress.from_dict(content.get("progress")).learning_rate
    if engine.accelerator.scaler is not None and content.get("scaler"):
        engine.accelerator.scaler.load_state_dict(content["scaler"])
    rank = engine.accelerator.process_index

    def restore_rng() -> None:
        if rank < info.manifest.world_size:
            state.restore_rng(info.path / layout.rng_file(rank))
        else:  # more processes than before: a stream of their own, the same in every resume from here
            state.seed_everything((info.step * 1_000_003 + rank) % 2**32)

    return restore_rng


def record(
    chosen: ChosenCheckpoint,
    run: RunDirectory,
    source: ModelSource,
    base_digest: str,
    environment: Mapping[str, Any],
    reporter: Reporter,
) -> None:
    """Say and write down that and how the run goes on; rows and checkpoints of a later line are set aside, not deleted."""
    info, checkpoint = chosen.info, chosen.settings.training.checkpoint
    run.store.monitor, run.store.mode = checkpoint.monitor, checkpoint.mode  # what a resume changed decides from here on
    for path, (saved, current) in chosen.changes.items():
        reporter.line(f"changed: {path}: {saved} → {current}")
    pending = bool(chosen.trainer_state["progress"]["boundary_pending"])
    moved = run.store.supersede(info.step, and_at_it=info.name if pending else None)
    if moved:
        reporter.line(f"Later checkpoints were set aside in {run.store.directory / layout.SUPERSEDED}: {', '.join(moved)}")
    # A step whose evaluation was put off has its row after that; one that is there was made up for by a process that died.
    for log in (MetricsLog(run.metrics_path), samples_log(run)):
        log.truncate_after(info.step - 1 if pending else info.step)
    changed = differences(chosen.trainer_state["environment"], environment)
    if changed:
        reporter.warn(f"From here on the run is not bit for bit what it would have been: {in_one_line(changed)}.")
    entry: dict[str, Any] = {"environment_changes": {name: list(pair) for name, pair in changed.items()}} if changed else {}
    if "model.id" in chosen.changes or base_digest != info.manifest.fingerprints.get("base"):
        entry["base_model"] = {"id": portable_value(source.model_id), "revision": source.revision, "digest": base_digest}
    if notices := reporter.record():
        entry["notices"] = notices
    run.record_resume(info, chosen.changes, environment=dict(environment), **entry)
    reporter.line(f"Resumed run {run.ref} ({run.name}) from {info.name}: step {info.step}, epoch {info.epoch:.2f}")
