"""Opening checkpoints of runs to use them: to generate, to score, to export. Nothing of a run is changed, and no lock is taken.

A checkpoint is verified as for a resume. Its adapter is put on the same base, in the same precision, as in training; one of a base
training is the model itself. Where an average of the weights was kept it is what answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.strict_json import read_json
from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state import state
from pitstop.configs.errors import CheckpointError, ModelError, RunError, SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.machine.device import Precision, choose_device
from pitstop.trainers.machine.hardware import Hardware, open_hardware
from pitstop.trainers.machine.launch import is_worker
from pitstop.trainers.models.adapter import add_another, share_inputs_under_autocast
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.foreign_code import check_stored
from pitstop.trainers.models.source import ModelSource, NoModel, find_model
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.base import Task
from pitstop.trainers.tasks.registry import family_of, make_task
from pitstop.trainers.training.prepare import BaseOnDisk, build
from pitstop.trainers.training.resuming import ResumePlan, ResumeRequest, is_base, plan_from, whole_model

BASE = "base"
"""What the base without an adapter is called where adapters have labels."""


def choose(base_dir: Path | str, reference: str, *, model_id: str | None = None, env_file: Path | None = None) -> ResumePlan:
    """The verified checkpoint that ``reference`` means, with the settings that were in force when it was saved.

    ``reference`` is a run, perhaps with ``@checkpoint``; without one the best checkpoint is taken, and the last where no
    checkpoint has a metric to go by. ``model_id`` says where the base is found now, should the run have no copy of it. Raises
    ``RunError`` (no such run) and ``CheckpointError`` (no such checkpoint, a damaged one).
    """
    run, checkpoint = locate(base_dir, reference)
    info = run.store.verify(checkpoint or _preferred(run))
    flags = {} if model_id is None else {"model.id": model_id}
    return plan_from(run, info, ResumeRequest(str(base_dir), reference, flags=flags, env_file=env_file))


def _preferred(run: RunDirectory) -> str:
    infos = run.store.list()
    best = run.store.best(infos)
    if best is not None:
        return best.name
    if not infos:
        raise CheckpointError(f"{run.label} has no whole checkpoint.", hint=f"`pitstop show {run.label}` lists what there is.")
    return infos[-1].name


def label_of(plan: ResumePlan) -> str:
    """``run_003@epoch_002``."""
    return f"{plan.run.label}@{plan.info.name}"


@dataclass(frozen=True)
class _Adapter:
    name: str  # PEFT's; a label may hold characters that PEFT refuses
    plan: ResumePlan
    task: Task


class OpenModel:
    """A base with the adapters of one or more checkpoints, one of which is in use, or none.

    ``engine`` scores it as training does; ``base`` says where the base lies.
    """

    def __init__(
        self, plan: ResumePlan, engine: Engine, hardware: Hardware, base: BaseOnDisk, tokenizer: Any, *, packing: bool
    ) -> None:
        self.engine, self.hardware, self.base, self.tokenizer, self.packing = engine, hardware, base, tokenizer, packing
        self._adapters = {label_of(plan): _Adapter("default", plan, make_task(plan.settings, tokenizer))}
        self._current: str | None = label_of(plan)
        self._latest = label_of(plan)

    @property
    def model(self) -> Any:
        """The ``PeftModel``, or of a base training the model itself."""
        return self.engine.model

    @property
    def plan(self) -> ResumePlan:
        """The checkpoint in use; while the base alone is, the one before."""
        return self._adapters[self._latest].plan

    @property
    def task(self) -> Task:
        """The task of the checkpoint in use, which renders prompts as its training did."""
        return self._adapters[self._latest].task

    @property
    def label(self) -> str:
        """What answers: ``run_003@epoch_002``, or ``base``."""
        return self._current or BASE

    @property
    def labels(self) -> list[str]:
        """All that can be used without loading anything."""
        return [*self._adapters, *([] if self.plan.settings.training.all_weights else [BASE])]

    def add(self, plan: ResumePlan) -> str:
        """Put the adapter of another checkpoint beside the others and return its label; it is not in use yet.

        Raises ``RunError`` for a checkpoint that was trained on another base, ``CheckpointError`` for one that does not fit.
        """
        label = label_of(plan)
        if label in self._adapters:
            return label
        wanted = plan.info.manifest.fingerprints.get("base")
        if plan.settings.training.all_weights or self.plan.settings.training.all_weights:
            raise RunError(
                f"{label if plan.settings.training.all_weights else self._latest} is a model of its own: all its weights were trained.",
                hint="Open that run by itself; only adapters on one base can be switched.",
            )
        if wanted != self.base.digest:
            raise RunError(
                f"{label} was trained on another base than {self._latest}: {plan.settings.model.id}.",
                hint="Both adapters need the same base in the same form; open that run by itself.",
            )
        name = f"adapter_{len(self._adapters)}"
        form = family_of(plan.settings).adapter_form(self.engine.trained.bare, plan.settings)
        add_another(self.model, plan.settings.lora, name, _targets(plan), model_id=str(plan.settings.model.id), form=form)
        try:
            state.load_adapter(self.model, plan.info.path, name)
        except CheckpointError:
            self.model.delete_adapter(name)
            raise
        if self.hardware.precision.mixed != "no":
            share_inputs_under_autocast(self.model)
        self._adapters[label] = _Adapter(name, plan, make_task(plan.settings, self.tokenizer))
        return label

    def use(self, label: str) -> None:
        """Let the adapter with this label answer from now on, or the base alone (``BASE``)."""
        if label == BASE:
            if self.plan.settings.training.all_weights:
                raise RunError(
                    f"{self._latest} has no base without it: all weights were trained.",
                    hint="Open the model that it started from.",
                )
            self._current = None
            return
        if not self.plan.settings.training.all_weights:
            self.model.set_adapter(self._adapters[label].name)
        self._current = self._latest = label

    def in_turn(self, *, with_base: bool) -> Iterator[str]:
        """Let what is in use answer and then, ``with_base``, the base. ``RunError`` where there is none, before anybody answers."""
        labels = [self.label, *([BASE] if with_base else [])]
        for label in reversed(labels):
            self.use(label)
        for label in labels:
            self.use(label)
            yield label

    @contextlib.contextmanager
    def in_use(self) -> Iterator[Any]:
        """The model as it stands now: with the adapter in use, or without any."""
        without = self.model.disable_adapter() if self._current is None else contextlib.nullcontext()
        with without, self.engine.evaluated_weights():
            yield self.model

    @contextlib.contextmanager
    def ready(self) -> Iterator[Any]:
        """The model as it answers now, in the precision of training."""
        with self.in_use() as model, self.engine.accelerator.autocast():
            yield model


def _targets(plan: ResumePlan) -> list[str]:
    """The modules that the checkpoint's adapter is on. On a base that has adapters already PEFT cannot find them by itself."""
    path = plan.info.path / layout.ADAPTER_CONFIG
    targets = read_json(path).get("target_modules")
    if not isinstance(targets, list) or not all(isinstance(target, str) and target for target in targets):
        raise CheckpointError(f"{path}: target_modules is no list of names")
    return targets


def open_model(plan: ResumePlan, reporter: Reporter) -> OpenModel:
    """Load the base and the adapter of a chosen checkpoint, on CUDA or MPS where there is such a device.

    The base is the run's own copy, verified, or its source, which must still be what it was; that is told. Raises
    ``ModelError`` (no such base, or a changed one), ``CheckpointError`` (an adapter that does not fit) and ``SettingsError``
    in one of several processes.
    """
    if is_worker():
        raise SettingsError("This command runs in one process.", hint="Start it without torchrun or accelerate launch.")
    device = choose_device()
    settings = for_inference(plan.settings, on_cuda=device.type == "cuda")
    hardware = open_hardware(settings, device)
    base = find_base(plan, hardware.precision, reporter)
    source = whole_model(plan) or ModelSource(str(settings.model.id), base.path, None)
    tokenizer = family_of(settings).tokenizer(source)
    built = build(settings, base, source, tokenizer, hardware, reporter)
    built.engine.trained.restore(plan.info.path)
    if built.engine.ema is not None:
        state.load_average(built.engine.average(), plan.info.path)
    return OpenModel(plan, built.engine, hardware, base, tokenizer, packing=built.packing)


def for_inference(settings: Settings, *, on_cuda: bool) -> Settings:
    """The settings without what only training needs and this machine may not have."""
    model = replace(settings.model, gradient_checkpointing=False, use_fp16=settings.model.use_fp16 and on_cuda)
    return replace(settings, model=model, training=replace(settings.training, optimizer="adamw"))


def find_base(plan: ResumePlan, precision: Precision, reporter: Reporter) -> BaseOnDisk:
    """The base of a checkpoint: the run's own copy, every byte verified, or the source that is on record; of a base training itself.

    Raises ``ModelError`` where neither is what the checkpoint was trained on.
    """
    wanted = plan.info.manifest.fingerprints.get("base", "")
    model_id = plan.settings.model.id
    if plan.settings.training.all_weights:
        return BaseOnDisk(plan.info.path, stored=True, digest=wanted)
    try:
        path = BaseModels(plan.run.base_dir).base_path(plan.run.path, wanted)
        check_stored(path)
        return BaseOnDisk(path, stored=True, digest=wanted)
    except (CheckpointError, ModelError) as error:
        reporter.warn(f"{error.message.rstrip('.')}. The base is taken from its source, {model_id}.")
    try:
        source = find_model(plan.settings, plan.known_base)
    except NoModel as error:
        raise NoModel(error.message, hint=f"{error.hint} If it lies elsewhere, --model-id PATH gives the new place.") from error
    if not is_base(source, BaseRecipe.from_settings(plan.settings, precision), wanted):
        raise ModelError(
            f"The base model {model_id} is not the one that {label_of(plan)} was trained on (its files have changed).",
            hint="Restore its files, or the run's own copy of it.",
        )
    return BaseOnDisk(source.path, stored=False, digest=wanted)
