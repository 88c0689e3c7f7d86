"""Opening a run to continue it: which checkpoint, which settings, and whether data and base are still the same."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.metrics_log import MetricsLog
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state import state
from pitstop.checkpointing.store import vetting
from pitstop.checkpointing.store.portable_paths import portable_value
from pitstop.checkpointing.store.store import CheckpointInfo, DamagedError, RecoveryReport
from pitstop.configs.errors import CheckpointError, DataError, ModelError, PitstopError, RunError, SettingsError
from pitstop.configs.leaves import by_path, leaves
from pitstop.configs.load import Loaded, load_recorded, settings_to_dict
from pitstop.configs.schema import Settings
from pitstop.trainers.data.dataset import Dataset
from pitstop.trainers.data.records import NoData
from pitstop.trainers.loop.loop import ALL_DONE, Plan
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.environment import differences, in_one_line
from pitstop.trainers.machine.hardware import Hardware
from pitstop.trainers.machine.processes import from_first
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.foreign_code import check_stored
from pitstop.trainers.models.source import KnownBase, ModelSource, NoModel
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.training.inputs import Inputs
from pitstop.trainers.training.prepare import BaseOnDisk, place_base
from pitstop.trainers.training.samples import samples_log

# Changing one of these makes another model or another run of it.
_FIXED = ("model.revision", "model.from_scratch", "lora.", "quantization.", "training.task", "training.method",
          "training.optimizer", "training.ema_decay", "training.checkpoint.shard_size_gb",
          "training.checkpoint.base_dir", "training.checkpoint.run_number", "naming.", "data.label",
          "diffusion.conditional_classes")  # fmt: skip
_MAY_CHANGE = ("lora.dropout",)
# A checkpoint of a whole model needs no other model, so that naming one would be a misunderstanding.
_FIXED_IN_FULL = ("model.id", "model.from_run", "model.config", "model.tokenizer")
_FALLBACK = "or add --fallback new to start a new run with the same settings"
_COMMIT = re.compile(r"[0-9a-f]{40}")
_ENDED = ("completed", "stopped")
_METADATA_HINT = "move metadata.json away: the next resume rebuilds it from config.json and the checkpoints"


@dataclass(frozen=True)
class ResumeRequest:
    """What the user asked for. ``run`` is a run reference; ``checkpoint`` a name, ``best`` or ``last``."""

    base_dir: str
    run: str
    checkpoint: str | None = None
    flags: Mapping[str, Any] = field(default_factory=dict)
    env_file: Path | None = None
    allow_changed_data: bool = False
    allow_changed_base: bool = False
    fallback_new: bool = False


@dataclass(frozen=True)
class ResumePlan:
    """The run, the verified checkpoint and the settings to go on with; ``changes`` is path → (before, now).

    ``known_base`` is what the run recorded of the base that the checkpoint was trained on; None where it did not.
    """

    run: RunDirectory
    info: CheckpointInfo
    state: dict[str, Any]
    settings: Settings
    changes: dict[str, tuple[Any, Any]]
    allow_changed_base: bool
    known_base: KnownBase | None


def start_again(request: ResumeRequest) -> Loaded:
    """The settings of the run's start with the flags, for a new run in its place."""
    run, _ = locate(request.base_dir, request.run)
    base = _start_settings(run)
    checkpoint = {**base["training"]["checkpoint"], "run_number": None, "resume_from_run": None}
    again = {**base, "training": {**base["training"], "checkpoint": checkpoint}}
    return _load(again, request, run, f"{run.label}/{layout.CONFIG}")


@contextlib.contextmanager
def open_run(request: ResumeRequest, reporter: Reporter) -> Iterator[ResumePlan]:
    """Lock the run, bring it to a clean state and choose the checkpoint; the lock is held while inside.

    Raises ``RunError`` (no such run, in use, finished), ``CheckpointError`` (nothing valid) and ``SettingsError`` (an
    override that would make another run of it).
    """
    run, in_reference = locate(request.base_dir, request.run)
    run.check_made_by_train("resume", f"start that program again with run_number={run.number}")
    if not request.flags and not request.checkpoint and not in_reference:
        _refuse_finished_early(run)
    with run.lock():
        report = run.store.recover()
        for name, reason in report.quarantined:
            reporter.warn(f"{name} is damaged and was set aside in {run.store.directory / '.damaged'}: {reason}")
        with_metadata(run, reporter)
        wanted = request.checkpoint or in_reference
        info = _wanted(run, wanted, report) if wanted else _newest(run, report)
        if report.quarantined and not wanted:
            reporter.warn(f"Going on from {info.name}, the newest checkpoint that is whole.")
        yield plan_from(run, info, request)


def _newest(run: RunDirectory, report: RecoveryReport) -> CheckpointInfo:
    try:
        return report.checkpoint()
    except CheckpointError as error:
        raise CheckpointError(f"{run.label}: {error.message}", hint=f"{error.hint}; {_FALLBACK}") from error


def _wanted(run: RunDirectory, wanted: str, report: RecoveryReport) -> CheckpointInfo:
    """The checkpoint that the user asked for. Where that is damaged it is refused: another one would be a silent change."""
    try:
        return run.store.verify(wanted)
    except CheckpointError as error:
        reason = dict(report.quarantined).get(layout.normal_checkpoint(wanted))
        if reason is None and not isinstance(error, DamagedError):
            raise  # there is no such checkpoint, and the error says which there are
        run.store.recover(deep=True)
        whole = ", ".join(info.name for info in run.store.list()) or "none"
        raise CheckpointError(
            f"{run.label}: checkpoint '{wanted}' is damaged and was set aside in {run.store.directory / layout.DAMAGED}: "
            f"{reason or error.message}",
            hint=f"verified and whole: {whole}; {_FALLBACK}",
        ) from error


def with_metadata(run: RunDirectory, reporter: Reporter) -> None:
    """Make sure that metadata.json is readable, rebuilding it from the checkpoints if it is not."""
    try:
        run.metadata()
    except CheckpointError as error:
        reporter.warn(f"{error.message}; it is rebuilt from config.json and the checkpoints.")
        run.rebuild_metadata()


def _refuse_finished_early(run: RunDirectory) -> None:
    """Save the user the loading of model and data where metadata already tells that nothing is left."""
    metadata = run.readable_metadata()
    if metadata.status in _ENDED:
        progress = metadata.progress
        raise _finished(run, progress.step, progress.total_epochs, metadata.status_reason or "")


def _finished(run: RunDirectory, step: int | None, epochs: float | None, reason: str) -> RunError:
    longer = (epochs or 1) + 5
    why = f" ({reason})" if reason and reason != ALL_DONE else ""
    return RunError(
        f"{run.label} is finished: {epochs} epochs, step {step}{why}.",
        hint=f"To train it further, give a larger total: pitstop resume {run.ref} --epochs {longer}",
    )


def _start_settings(run: RunDirectory) -> dict[str, Any]:
    settings = {key: value for key, value in run.config().items() if key != "sources"}
    vetting.check_settings(settings, str(run.path / layout.CONFIG))
    return settings


def plan_from(run: RunDirectory, info: CheckpointInfo, request: ResumeRequest) -> ResumePlan:
    """What to go on with from the verified checkpoint ``info``, its files found to be what they must be. ``CheckpointError``."""
    content = vetting.check_checkpoint(info, _start_settings(run), _is_fixed)
    for process in range(info.manifest.world_size):
        state.check_rng(info.path / state.rng_file(process))
    # A checkpoint carries the settings in force when it was saved: what an earlier resume changed stays changed.
    base = run.with_full_paths(content["settings"], info)
    where = f"{run.label}/{info.name}/{layout.TRAINER_STATE}"
    _check_last_changes(run, info)
    settings = _load(run.with_last_changes(base, info.name), request, run, where).settings
    changes = _changes(base, settings_to_dict(settings))
    _refuse_fixed(changes, request, settings.training.method)
    return ResumePlan(
        run, info, content, settings, changes, request.allow_changed_base, _known_base(run, info, settings, request)
    )


def _known_base(run: RunDirectory, info: CheckpointInfo, settings: Settings, request: ResumeRequest) -> KnownBase | None:
    """Where the base of ``info`` came from, by metadata.json, as far as the settings mean the same one and it may not change."""
    metadata = run.metadata()
    wanted = (info.manifest.fingerprints.get("base"), portable_value(settings.model.id))
    for base in reversed([metadata.base_model, *(resume.base_model for resume in metadata.resumes)]):
        if (base.digest, portable_value(base.id)) == wanted:
            return _recorded(base.revision, request)
    return None


def _recorded(revision: str | None, request: ResumeRequest) -> KnownBase | None:
    if request.allow_changed_base:
        return None
    if revision is None:
        return None if "model.id" in request.flags else KnownBase(None)
    return KnownBase(revision) if _COMMIT.fullmatch(revision) else None


def _check_last_changes(run: RunDirectory, info: CheckpointInfo) -> None:
    where = f"{run.path / layout.METADATA}: the changes of the last resume"
    for path, pair in run.last_changes(info.name).items():
        leaf = by_path().get(path)
        if leaf is None or _is_fixed(path) or not isinstance(pair, list) or len(pair) != 2:
            raise CheckpointError(f"{where} hold {path!r:.80}, which no resume changes", hint=_METADATA_HINT)
        vetting.check_setting(leaf, pair[1], where)


def _load(base: Mapping[str, Any], request: ResumeRequest, run: RunDirectory, where: str) -> Loaded:
    # Where the run lies now counts, not where it lay when it started: directories are moved and mounted elsewhere.
    training = base.get("training", {})
    here = {**base, "training": {**training, "checkpoint": {**training.get("checkpoint", {}), "base_dir": str(run.base_dir)}}}
    return load_recorded(here, where, flags=request.flags, env_file=request.env_file)


def _is_fixed(path: str) -> bool:
    """Whether a setting stays what it was in config.json for the whole run; where the run lies may change."""
    return path.startswith(_FIXED) and path not in (*_MAY_CHANGE, "training.checkpoint.base_dir")


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Setting → (before, now) where they differ; one that ``before`` is too old to know had its default."""

    def get(nested: Any, path: str, default: Any) -> Any:
        for part in path.split("."):
            nested = nested.get(part, default) if isinstance(nested, dict) else default
        return nested

    chosen = [leaf for leaf in leaves() if not leaf.secret and leaf.path != "training.checkpoint.base_dir"]
    pairs = {leaf.path: (get(before, leaf.path, leaf.default), get(now, leaf.path, leaf.default)) for leaf in chosen}
    return {path: pair for path, pair in pairs.items() if pair[0] != pair[1]}


def _refuse_fixed(changes: Mapping[str, Any], request: ResumeRequest, method: str | None) -> None:
    flags = {leaf.path: leaf.flag for leaf in leaves()}
    for path in sorted(changes, key=lambda path: path not in request.flags):  # name what the user gave, not what follows
        fixed = path.startswith(_FIXED) and path not in _MAY_CHANGE
        if fixed or (method == "full" and path in _FIXED_IN_FULL):
            raise SettingsError(
                f"{flags[path]} cannot change in a resumed run: it would be another model.",
                hint="Start a new run with 'pitstop train'.",
            )


def open_together(request: ResumeRequest, reporter: Reporter, stack: contextlib.ExitStack, device: torch.device) -> ResumePlan:
    """Open the run on the first process and give every process its choice, or its error; the lock lives as long as ``stack``.

    Raises what ``open_run`` raises, on all of them.
    """
    plan: ResumePlan | None = None

    def choose() -> bytes:
        nonlocal plan
        plan = stack.enter_context(open_run(request, reporter))
        return json.dumps({"run": str(plan.run.path), "checkpoint": plan.info.name}).encode()

    choice = json.loads(from_first(choose, device))
    if plan is not None:
        return plan
    run = RunDirectory(Path(choice["run"]))
    return plan_from(run, run.store.resolve(choice["checkpoint"]), request)


@contextlib.contextmanager
def naming_new_places() -> Iterator[None]:
    """Tell whoever resumes where the run's model or data no longer lie how to give the new place."""
    try:
        yield
    except NoModel as error:
        raise _with_new_place(error, "--model-id PATH gives") from error
    except NoData as error:
        raise _with_new_place(error, "--dataset PATH and --eval-dataset PATH give") from error


def _with_new_place(error: PitstopError, how: str) -> PitstopError:
    hint = f"{error.hint} If it lies elsewhere on this machine, {how} the new place."
    return type(error)(error.message, hint=hint)


def whole_model(plan: ResumePlan) -> ModelSource | None:
    """The checkpoint as the model to go on with, where all weights are trained: it has all of it, the tokenizer too."""
    if not plan.settings.training.all_weights:
        return None
    return ModelSource(str(plan.settings.model.id), plan.info.path, None, is_copy=True)


def own_copy(plan: ResumePlan) -> ModelSource | None:
    """The run's own copy of the base that the checkpoint was trained on, every byte verified; None where that cannot be used.

    It holds the tokenizer too, so that a run goes on without the model that it was made from. Whether the tokenizer
    gives the same tokens, the fingerprint of the data tells.
    """
    if "model.id" in plan.changes:
        return None
    model_id = str(plan.settings.model.id)
    try:
        path = BaseModels(plan.run.base_dir).base_path(plan.run.path, plan.info.manifest.fingerprints.get("base", ""))
        check_stored(path)
    except PitstopError:
        return None
    return ModelSource(model_id, path, None, is_copy=True)


def find_base(plan: ResumePlan, inputs: Inputs, hardware: Hardware, reporter: Reporter) -> BaseOnDisk:
    """The base that the checkpoint was trained on: the run's own copy, or its source.

    A copy that is missing or damaged is rebuilt from the source if that still is what it was. The source may have moved: what
    is there must be the same. Raises ``ModelError`` for a base that has changed.
    """
    wanted = plan.info.manifest.fingerprints.get("base", "")
    if inputs.source.is_copy:
        return BaseOnDisk(inputs.source.path, stored=True, digest=wanted)
    bases = BaseModels(plan.run.base_dir)
    recipe = BaseRecipe.from_settings(plan.settings, hardware.precision)
    if "model.id" not in plan.changes or is_base(inputs.source, recipe, wanted):
        try:
            return BaseOnDisk(bases.base_path(plan.run.path, wanted), stored=True, digest=wanted)
        except CheckpointError as error:
            if plan.settings.training.checkpoint.save_base_model and _had_copy(plan.run):
                reporter.warn(f"{error.message.rstrip('.')}. It is made again from {inputs.source.model_id}.")
    digest = inputs.source.digest(recipe.as_dict())
    if digest != wanted and not plan.allow_changed_base:
        raise ModelError(
            f"The base model {inputs.source.model_id} is not the one that {plan.run.label} was trained on (its files have changed).",
            hint="Restore the files, or pass --allow-changed-base to train on the changed base.",
        )
    if digest != wanted:
        reporter.warn("The base model has changed; the run goes on with the changed one and will not be exact.")
    placed = place_base(plan.settings, inputs.source, inputs.tokenizer, hardware, reporter)
    if placed.stored and hardware.is_main:
        bases.relink(plan.run.path, placed.digest)
    return placed


def _had_copy(run: RunDirectory) -> bool:
    """Whether the run had a copy of its base: one that was pulled without has not lost any."""
    return run.metadata().base_model.saved is not False


def is_base(source: ModelSource, recipe: BaseRecipe, wanted: str) -> bool:
    """Whether the files are those of the base ``wanted``, in whatever type the device computed in that it was made on."""
    recipes = [dataclasses.replace(recipe, compute=dtype) for dtype in (torch.bfloat16, torch.float16, torch.float32)]
    return wanted in [source.digest(each.as_dict()) for each in recipes]


def check_data(plan: ResumePlan, fingerprint: str, request: ResumeRequest, reporter: Reporter) -> None:
    """Raises ``DataError`` where the data is not what the checkpoint was trained on, unless the user allowed that."""
    if not _data_changed(plan, fingerprint):
        return
    if not request.allow_changed_data:
        raise DataError(
            f"The training data of {plan.run.label} has changed since {plan.info.name} was saved.",
            hint="Restore it, or pass --allow-changed-data: the current epoch then starts again on the new data.",
        )
    reporter.warn("The training data has changed: the current epoch starts again on the new data.")


def _data_changed(plan: ResumePlan, fingerprint: str) -> bool:
    return fingerprint != plan.info.manifest.fingerprints.get("data") or "training.seed" in plan.changes


def progress_of(plan: ResumePlan, data: Dataset) -> Progress:
    """Where training stood; with changed data at the beginning of that epoch.

    Raises ``CheckpointError`` for a place that ``data`` does not have.
    """
    where = plan.info.path / layout.TRAINER_STATE
    progress = Progress.from_dict(plan.state.get("progress"))
    changed = _data_changed(plan, data.fingerprint)
    if not changed and abs(progress.epoch + progress.position / len(data) - plan.info.epoch) > 1e-9:
        raise CheckpointError(
            f"{where}: position {progress.position} of {len(data)} in epoch {progress.epoch} is not the manifest's epoch {plan.info.epoch}"
        )
    if not changed and len(progress.sources) != len(data.names):
        raise CheckpointError(f"{where}: it tells of {len(progress.sources)} data sets, and there are {len(data.names)}")
    if changed:
        progress.sources = []
        if plan.info.epoch == progress.epoch + 1:  # that epoch was done
            progress.epoch += 1
        progress.position = 0
        progress.boundary_pending = False
    return progress


def check_unfinished(plan: ResumePlan, todo: Plan, progress: Progress, stop: str | None) -> str | None:
    """Why training is over although the run does not say so: its process died between its last save and its last word.

    ``stop`` is why it would have ended early. None where there is something left to train. Raises ``RunError`` where the run
    is finished and says so.
    """
    ended = plan.run.metadata().status in _ENDED
    if progress.boundary_pending:
        return None
    if progress.step < todo.total_steps:
        # Whoever changed something, now or in a resume from here that died, wants to train on.
        wanted = ended or _more_than_moved(plan.changes) or _more_than_moved(plan.run.last_changes(plan.info.name))
        return None if wanted else stop
    if ended:
        raise _finished(plan.run, progress.step, plan.settings.training.epochs, "")
    return ALL_DONE


def _more_than_moved(changes: Mapping[str, Any]) -> bool:
    """Whether there is a change besides another directory in which a model or data of the same name lies."""
    return any(portable_value(before) != portable_value(now) for before, now in changes.values())


def record(
    plan: ResumePlan,
    run: RunDirectory,
    source: ModelSource,
    digest: str,
    environment: Mapping[str, Any],
    reporter: Reporter,
) -> None:
    """Say and write down that and how the run goes on; rows and checkpoints of a later line are set aside, not deleted."""
    for path, (before, now) in plan.changes.items():
        reporter.line(f"changed: {path}: {before} → {now}")
    pending = bool(plan.state["progress"]["boundary_pending"])
    moved = run.store.supersede(plan.info.step, and_at_it=plan.info.name if pending else None)
    if moved:
        reporter.line(f"Later checkpoints were set aside in {run.store.directory / '.superseded'}: {', '.join(moved)}")
    # A step whose evaluation was put off has its row after that; one that is there was made up for by a process that died.
    for log in (MetricsLog(run.metrics_path), samples_log(run)):
        log.truncate_after(plan.info.step - 1 if pending else plan.info.step)
    changed = differences(plan.state["environment"], environment)
    if changed:
        reporter.warn(f"From here on the run is not bit for bit what it would have been: {in_one_line(changed)}.")
    more: dict[str, Any] = {"environment_changes": {name: list(pair) for name, pair in changed.items()}} if changed else {}
    if "model.id" in plan.changes or digest != plan.info.manifest.fingerprints.get("base"):
        more["base_model"] = {"id": portable_value(source.model_id), "revision": source.revision, "digest": digest}
    run.record_resume(plan.info, plan.changes, environment=dict(environment), **more)
    run.sync_checkpoints()
    reporter.line(f"Resumed run {run.ref} ({run.name}) from {plan.info.name}: step {plan.info.step}, epoch {plan.info.epoch:.2f}")
