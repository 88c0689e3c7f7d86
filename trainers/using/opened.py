"""Opening checkpoints of runs to use them: to generate, to score, to export. Nothing of a run is changed, and no lock is taken.

A checkpoint is verified as for a resume. Its adapter is put on the same base, in the same precision, as in training; one of a base
training is the model itself. Where an average of the weights was kept it is what answers.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.strict_json import read_json
from pitstop.checkpointing.runs.find import locate
from pitstop.checkpointing.runs.run_directory import RunDirectory
from pitstop.checkpointing.state import state
from pitstop.configs.errors import CheckpointError, RunError, SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.machine.device import choose_device
from pitstop.trainers.machine.hardware import Hardware, open_hardware
from pitstop.trainers.machine.launch import is_worker
from pitstop.trainers.models.adapter import add_another, share_inputs_under_autocast
from pitstop.trainers.models.limits import ModelLimits
from pitstop.trainers.models.templates import put_template
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.base import Task
from pitstop.trainers.tasks.registry import family_of, make_task
from pitstop.trainers.tasks.text import TextTask, on_day
from pitstop.trainers.training.building import BaseOnDisk, build
from pitstop.trainers.training.chosen import ChosenCheckpoint, find_base, open_checkpoint

BASE = "base"
"""What the base without an adapter is called where adapters have labels."""


def choose(
    base_dir: Path | str, reference: str, *, model_id: str | None = None, env_file: Path | None = None
) -> ChosenCheckpoint:
    """The verified checkpoint that ``reference`` means, with the settings that were in force when it was saved.

    ``reference`` is a run, perhaps with ``@checkpoint``; without one the best checkpoint is taken, and the last where no
    checkpoint has a metric to go by. ``model_id`` says where the base is found now, should the run have no copy of it. Raises
    ``RunError`` (no such run) and ``CheckpointError`` (no such checkpoint, a damaged one).
    """
    run, checkpoint = locate(base_dir, reference)
    info = run.store.verify(checkpoint or _preferred(run))
    return open_checkpoint(run, info, {} if model_id is None else {"model.id": model_id}, env_file)


def _preferred(run: RunDirectory) -> str:
    infos = run.store.list()
    best = run.store.best(infos)
    if best is not None:
        return best.name
    if not infos:
        raise CheckpointError(f"{run.label} has no whole checkpoint.", hint=f"`pitstop show {run.label}` lists what there is.")
    return infos[-1].name


@dataclass(frozen=True)
class _Adapter:
    name: str  # PEFT's; a label may hold characters that PEFT refuses
    chosen: ChosenCheckpoint
    task: Task


class OpenModel:
    """A base with the adapters of one or more checkpoints, one of which is in use, or none.

    ``engine`` scores it as training does; ``base`` says where the base lies.
    """

    def __init__(
        self, chosen: ChosenCheckpoint, engine: Engine, hardware: Hardware, base: BaseOnDisk, tokenizer: Any, *, packing: bool
    ) -> None:
        self.engine, self.hardware, self.base, self.tokenizer, self.packing = engine, hardware, base, tokenizer, packing
        self._adapters = {chosen.label: _Adapter("default", chosen, task_of(chosen, tokenizer))}
        self._current: str | None = chosen.label
        self._latest = chosen.label

    @property
    def model(self) -> Any:
        """The ``PeftModel``, or of a base training the model itself."""
        return self.engine.model

    @functools.cached_property
    def limits(self) -> ModelLimits:
        """What the base, a model of text, can take."""
        return ModelLimits.of(self.engine.trained.bare, self.tokenizer, self.chosen.source_in(self.base.path))

    @property
    def chosen(self) -> ChosenCheckpoint:
        """The checkpoint in use; while the base alone is, the one before."""
        return self._adapters[self._latest].chosen

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
        return [*self._adapters, *([] if self.chosen.settings.training.all_weights else [BASE])]

    def add(self, chosen: ChosenCheckpoint) -> str:
        """Put the adapter of another checkpoint beside the others and return its label; it is not in use yet.

        Raises ``RunError`` for a checkpoint that was trained on another base, ``CheckpointError`` for one that does not fit.
        """
        label = chosen.label
        if label in self._adapters:
            return label
        if chosen.settings.training.all_weights or self.chosen.settings.training.all_weights:
            raise RunError(
                f"{label if chosen.settings.training.all_weights else self._latest} is a model of its own: all its weights were trained.",
                hint="Open that run by itself; only adapters on one base can be switched.",
            )
        if chosen.base_digest != self.base.digest:
            raise RunError(
                f"{label} was trained on another base than {self._latest}: {chosen.settings.model.id}.",
                hint="Both adapters need the same base in the same form; open that run by itself.",
            )
        name = f"adapter_{len(self._adapters)}"
        form = family_of(chosen.settings).adapter_form(self.engine.trained.bare, chosen.settings)
        add_another(self.model, chosen.settings.lora, name, _targets(chosen), model_id=str(chosen.settings.model.id), form=form)
        try:
            state.load_adapter(self.model, chosen.info.path, name)
        except CheckpointError:
            self.model.delete_adapter(name)
            raise
        if self.hardware.precision.mixed != "no":
            share_inputs_under_autocast(self.model)
        self._adapters[label] = _Adapter(name, chosen, task_of(chosen, self.tokenizer))
        return label

    def use(self, label: str) -> None:
        """Let the adapter with this label answer from now on, or the base alone (``BASE``)."""
        if label == BASE:
            if self.chosen.settings.training.all_weights:
                raise RunError(
                    f"{self._latest} has no base without it: all weights were trained.",
                    hint="Open the model that it started from.",
                )
            self._current = None
            return
        if not self.chosen.settings.training.all_weights:
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


def task_of(chosen: ChosenCheckpoint, tokenizer: Any) -> Task:
    """The task as the run has it: a chat template is told the day that training told it, and asks with the options that training asked with."""
    task = make_task(on_day(chosen.settings, tokenizer, chosen.started_on), tokenizer)
    if isinstance(task, TextTask):
        task.ask_with(chosen.asked)
    return task


def _targets(chosen: ChosenCheckpoint) -> list[str]:
    """The modules that the checkpoint's adapter is on. On a base that has adapters already PEFT cannot find them by itself."""
    path = chosen.info.path / layout.ADAPTER_CONFIG
    targets = read_json(path).get("target_modules")
    if not isinstance(targets, list) or not all(isinstance(target, str) and target for target in targets):
        raise CheckpointError(f"{path}: target_modules is not a list of names")
    return targets


def open_model(chosen: ChosenCheckpoint, reporter: Reporter) -> OpenModel:
    """Load the base and the adapter of a chosen checkpoint, on CUDA or MPS where there is such a device.

    The base is the run's own copy, verified, or its source, which must still be what it was; that is told. Raises
    ``ModelError`` (no such base, or a changed one), ``CheckpointError`` (an adapter that does not fit) and ``SettingsError``
    in one of several processes.
    """
    if is_worker():
        raise SettingsError("This command runs in one process.", hint="Start it without torchrun or accelerate launch.")
    device = choose_device()
    settings = for_inference(chosen.settings, on_cuda=device.type == "cuda")
    hardware = open_hardware(settings, device)
    base = find_base(chosen, hardware.precision, reporter.notice)
    source = chosen.whole_model() or chosen.source_in(base.path)
    tokenizer = family_of(settings).tokenizer(source)
    put_template(tokenizer, settings)
    built = build(settings, base, source, tokenizer, hardware, reporter)
    chosen.restore_weights(built.engine)
    return OpenModel(chosen, built.engine, hardware, base, tokenizer, packing=built.packing)


def for_inference(settings: Settings, *, on_cuda: bool) -> Settings:
    """The settings without what only training needs and this machine may not have."""
    model = replace(settings.model, gradient_checkpointing=False, use_fp16=settings.model.use_fp16 and on_cuda)
    return replace(settings, model=model, training=replace(settings.training, optimizer="adamw"))
