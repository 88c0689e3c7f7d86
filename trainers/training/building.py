"""Builds what a run trains with: base, adapter, optimizer, engine."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pitstop.checkpointing.runs.base_models import BaseModels
from pitstop.checkpointing.state import state
from pitstop.configs.notices import Notice
from pitstop.configs.schema import Settings
from pitstop.trainers.loop.engine import Engine
from pitstop.trainers.loop.optim import build_optimizer, trainable
from pitstop.trainers.machine.disk import check_room as check_disk
from pitstop.trainers.machine.hardware import Hardware
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.machine.processes import from_first
from pitstop.trainers.models.adapter import add_adapter, prepare_for_training, share_inputs_under_autocast
from pitstop.trainers.models.base import BaseRecipe, has_flash_attention
from pitstop.trainers.models.family import Family
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.models.trained import Trained, TrainedAdapter, WholeModel, parameter_counts, stored_descriptions
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.registry import family_of


@dataclass(frozen=True)
class BaseOnDisk:
    """Where the base lies in the form that is trained on, or its source where no copy is kept."""

    path: Path
    stored: bool
    digest: str


def place_base(settings: Settings, source: ModelSource, tokenizer: Any, hardware: Hardware, reporter: Reporter) -> BaseOnDisk:
    """Make sure that the shared copy of the base exists, saving it if this is the first run to use it.

    Where all weights are trained nothing is frozen, so there is nothing to save. Only the first process writes and hashes; the others
    wait and load the same bytes.
    """
    recipe = BaseRecipe.from_settings(settings, hardware.precision)
    digest = source.digest(recipe.as_dict())
    if not settings.training.checkpoint.save_base_model or settings.training.all_weights:
        return BaseOnDisk(source.path, stored=False, digest=digest)
    bases, family = BaseModels(settings.training.checkpoint.base_dir), family_of(settings)

    def write(directory: Path) -> None:
        reporter.line(f"Saving the {'4-bit ' if recipe.quantised else ''}base model once, for all runs that share it.")
        model = family.load(source.path, recipe, hardware.device, stored=False, flash=False, frozen=True)
        family.save(model, tokenizer, directory)

    path = from_first(lambda: os.fsencode(bases.save_once(digest, write)), hardware.device)  # which hashes what is there
    return BaseOnDisk(Path(os.fsdecode(path)), stored=True, digest=digest)


@dataclass(frozen=True)
class Built:
    """A model ready to train. ``packing`` is false where the architecture cannot keep documents of a row apart."""

    engine: Engine
    packing: bool


def build(
    settings: Settings,
    base: BaseOnDisk,
    source: ModelSource,
    tokenizer: Any,
    hardware: Hardware,
    reporter: Reporter,
) -> Built:
    """Load the model, make what is trained of it as the method says, and hand both to Accelerate."""
    family = family_of(settings)
    flash = _flash(settings, hardware, reporter)
    if source.config is not None:
        model = family.initialise(source, source.seed, hardware.device, flash=flash)
    else:
        recipe, frozen = BaseRecipe.from_settings(settings, hardware.precision), not settings.training.all_weights
        model = family.load(base.path, recipe, hardware.device, stored=base.stored, flash=flash, frozen=frozen)
    otherwise = lambda text: reporter.notice(Notice(text.removesuffix("."), loss=True))  # noqa: E731
    objective = family.objective(model, tokenizer, settings, hardware.device, flash=flash, warn=otherwise)
    trained = _trained(settings, model, source, family, tokenizer, hardware)
    prepare_for_training(trained.model, gradient_checkpointing=settings.model.gradient_checkpointing)
    optimizer = build_optimizer(trainable(trained.model), settings.training, hardware.device)
    with quiet_libraries():
        engine = Engine(
            hardware.accelerator,
            trained.model,
            optimizer,
            objective,
            settings.training.max_grad_norm,
            trained=trained,
            ema_decay=settings.training.ema_decay,
        )
    state.seed_everything(settings.training.seed + hardware.accelerator.process_index)
    return Built(engine, packing=objective.packing)


def _trained(settings: Settings, model: Any, source: ModelSource, family: Family, tokenizer: Any, hardware: Hardware) -> Trained:
    if not settings.training.all_weights:
        seed, form = settings.training.seed, family.adapter_form(model, settings)
        adapted = add_adapter(model, settings.lora, seed=seed, model_id=source.model_id, form=form)
        if hardware.precision.mixed != "no":
            share_inputs_under_autocast(adapted)
        return TrainedAdapter(adapted)
    # A resumed run repeats the files that its checkpoint has.
    files = stored_descriptions(source.path) if source.is_copy else family.descriptions(model, tokenizer)
    model_weights = WholeModel(model, family, files, int(settings.training.checkpoint.shard_size_gb * 1e9))
    if settings.training.ema_decay is not None:
        model_weights.check_averaged()
    return model_weights


def _flash(settings: Settings, hardware: Hardware, reporter: Reporter) -> bool:
    if not settings.model.use_flash_attention:
        return False
    if has_flash_attention(hardware.device):
        return True
    reason = "USE_FLASH_ATTENTION: FlashAttention 2 is not available here; PyTorch's scaled_dot_product_attention is used instead"
    reporter.notice(Notice(reason, loss=True))
    return False


def check_room(settings: Settings, built: Built, hardware: Hardware, reporter: Reporter) -> None:
    """Make sure that the disk has room for checkpoints. ``ResourceError`` where not even one fits; a warning where few do."""
    if hardware.is_main and (note := check_disk(settings, parameter_counts(built.engine.model)[0])):
        reporter.warn(note)
