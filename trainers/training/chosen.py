"""The checkpoint that was picked, verified and opened: what a resume, generate, evaluate and export begin with."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state import state
from pitstop.checkpointing.store import vetting
from pitstop.checkpointing.store.portable_paths import portable_value
from pitstop.checkpointing.store.store import CheckpointInfo
from pitstop.configs.errors import CheckpointError, ModelError
from pitstop.configs.leaves import by_path
from pitstop.configs.load import Loaded, load_recorded, settings_to_dict
from pitstop.configs.notices import Notice
from pitstop.configs.schema import Settings
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.machine.device import Precision
from pitstop.trainers.models.foreign_code import check_stored
from pitstop.trainers.models.origin import check_origin, is_base
from pitstop.trainers.models.source import KnownBase, ModelSource, NoModel, find_model
from pitstop.trainers.tasks.registry import family_of
from pitstop.trainers.training.building import BaseOnDisk
from pitstop.trainers.training.setting_changes import Changes, changes_between, is_fixed, refuse_fixed

_COMMIT = re.compile(r"[0-9a-f]{40}")
_METADATA_HINT = "move metadata.json away: the next resume rebuilds it from config.json and the checkpoints"


@dataclass(frozen=True)
class ChosenCheckpoint:
    """A verified checkpoint of a run, with the settings to use it under.

    ``trainer_state`` is its trainer_state.json, vetted. ``settings`` are those in force when it was saved, with what the user sets
    now; ``changes`` tells these apart. ``known_base`` is what the run recorded of the base that it was trained on; None where it
    recorded none, or the settings mean another.
    """

    run: RunDirectory
    info: CheckpointInfo
    trainer_state: dict[str, Any]
    settings: Settings
    changes: Changes
    known_base: KnownBase | None

    @property
    def label(self) -> str:
        """``run_003@epoch_002``."""
        return f"{self.run.label}@{self.info.name}"

    @property
    def started_on(self) -> date:
        """The day on which the run was started; where that is not on record, the day of the checkpoint."""
        try:
            return datetime.fromisoformat(self.run.metadata().created_at or "").date()
        except ValueError:
            return self.info.saved_at.date()

    @property
    def asked(self) -> Mapping[str, Any] | None:
        """The options of the chat template that all answers of the training data are learnt behind; None where they differ or are not known."""
        entries = self.run.metadata().data.counts.template_options
        return entries[0]["options"] if len(entries) == 1 else None

    @property
    def base_digest(self) -> str:
        """The digest of the base that the checkpoint was trained on."""
        return self.info.manifest.fingerprints.get("base", "")

    def own_base(self) -> BaseOnDisk:
        """The run's own copy of the base, every byte verified. ``CheckpointError`` where it is missing or damaged, ``ModelError``."""
        path = BaseModels(self.run.base_dir).base_path(self.run.path, self.base_digest)
        check_stored(path)
        return BaseOnDisk(path, stored=True, digest=self.base_digest)

    def whole_model(self) -> ModelSource | None:
        """The checkpoint as a model, where all weights were trained: it has all of it, the tokenizer too."""
        if not self.settings.training.all_weights:
            return None
        return ModelSource(str(self.settings.model.id), self.info.path, None, is_copy=True)

    def source_in(self, path: Path) -> ModelSource:
        """The base of the checkpoint, which lies in ``path``."""
        return ModelSource(str(self.settings.model.id), path, None)

    def restore_weights(self, engine: Engine) -> None:
        """Put the weights, and their average where one is kept, into the engine's model. ``CheckpointError`` for what does not fit."""
        engine.trained.restore(self.info.path)
        if engine.ema is not None:
            state.load_average(engine.average(), self.info.path)


def open_checkpoint(
    run: RunDirectory, info: CheckpointInfo, flags: Mapping[str, Any] | None = None, env_file: Path | None = None
) -> ChosenCheckpoint:
    """Open the verified checkpoint ``info``, its files found to be what they must be, with ``flags`` (setting → value) set anew.

    Raises ``CheckpointError``, and ``SettingsError`` for a flag that would make another model.
    """
    flags = flags or {}
    content = vetting.check_checkpoint(info, start_settings(run), is_fixed)
    for process in range(info.manifest.world_size):
        state.check_rng(info.path / layout.rng_file(process))
    # A checkpoint carries the settings in force when it was saved: what an earlier resume changed stays changed.
    saved = run.with_full_paths(content["settings"], info)
    _check_last_changes(run, info)
    source_name = f"{run.label}/{info.name}/{layout.TRAINER_STATE}"
    settings = settings_of(run, run.with_last_changes(saved, info.name), source_name, flags, env_file).settings
    changes = changes_between(saved, settings_to_dict(settings))
    refuse_fixed(changes, flags, settings.training.method)
    return ChosenCheckpoint(run, info, content, settings, changes, _known_base(run, info, settings, flags))


def start_settings(run: RunDirectory) -> dict[str, Any]:
    """The settings in the run's config.json, vetted. ``CheckpointError``."""
    settings = run.initial_settings()
    vetting.check_settings(settings, str(run.path / layout.CONFIG))
    return settings


def settings_of(
    run: RunDirectory, document: Mapping[str, Any], source_name: str, flags: Mapping[str, Any], env_file: Path | None
) -> Loaded:
    """Load settings that the run has on record, with ``flags`` over them. ``source_name`` says in errors where they are from."""
    # Where the run lies now counts, not where it lay when it started: directories are moved and mounted elsewhere.
    training = document.get("training", {})
    checkpoint = {**training.get("checkpoint", {}), "base_dir": str(run.base_dir)}
    document = {**document, "training": {**training, "checkpoint": checkpoint}}
    return load_recorded(document, source_name, flags=flags, env_file=env_file)


def _check_last_changes(run: RunDirectory, info: CheckpointInfo) -> None:
    place = f"{run.path / layout.METADATA}: the changes of the last resume"
    for path, pair in run.last_changes(info.name).items():
        leaf = by_path().get(path)
        if leaf is None or is_fixed(path) or not isinstance(pair, list) or len(pair) != 2:
            raise CheckpointError(f"{place} hold {path!r:.80}, which no resume changes", hint=_METADATA_HINT)
        vetting.check_setting(leaf, pair[1], place)


def _known_base(run: RunDirectory, info: CheckpointInfo, settings: Settings, flags: Mapping[str, Any]) -> KnownBase | None:
    """Where the base of ``info`` came from, by metadata.json, as far as the settings mean the same one."""
    metadata = run.metadata()
    identity = (info.manifest.fingerprints.get("base"), portable_value(settings.model.id))
    for base in reversed([metadata.base_model, *(resume.base_model for resume in metadata.resumes)]):
        if (base.digest, portable_value(base.id)) == identity:
            if base.revision is None:
                return None if "model.id" in flags else KnownBase(None)
            return KnownBase(base.revision) if _COMMIT.fullmatch(base.revision) else None
    return None


def find_base(chosen: ChosenCheckpoint, precision: Precision, tell: Callable[[Notice], None]) -> BaseOnDisk:
    """The base of a checkpoint: the run's own copy, every byte verified, or the source that is on record; of a base training itself.

    Raises ``ModelError`` where neither is what the checkpoint was trained on.
    """
    settings, model_id = chosen.settings, chosen.settings.model.id
    if settings.training.all_weights:
        return BaseOnDisk(chosen.info.path, stored=True, digest=chosen.base_digest)
    try:
        base = chosen.own_base()
    except (CheckpointError, ModelError) as error:
        remedy = f"The base is taken from its source, {model_id}."
        tell(Notice("{subject}", error.message.rstrip("."), remedy=remedy, loss=True))
    else:
        check_origin(family_of(settings), settings, chosen.known_base, precision, chosen.base_digest)
        return base
    try:
        source = find_model(settings, chosen.known_base)
    except NoModel as error:
        raise NoModel(error.message, hint=f"{error.hint} If it lies elsewhere, --model-id PATH gives the new place.") from error
    if not is_base(source, settings, precision, chosen.base_digest):
        raise ModelError(
            f"The base model {model_id} is not the one that {chosen.label} was trained on (its files have changed).",
            hint="Restore its files, or the run's own copy of it.",
        )
    family_of(settings).check(source, tell)
    return BaseOnDisk(source.path, stored=False, digest=chosen.base_digest)
