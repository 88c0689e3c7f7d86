"""Builds what a run trains with: process group, base, adapter, optimizer, engine."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from pitstop.checkpointing import state
from pitstop.checkpointing.base_models import BaseModels
from pitstop.configs.schema import Settings
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.device import Precision, choose_device, choose_precision, make_deterministic
from pitstop.trainers.engine import Engine, Layout, build_accelerator, join_processes
from pitstop.trainers.environment import describe
from pitstop.trainers.models.adapter import add_adapter, prepare_for_training, share_inputs_under_autocast
from pitstop.trainers.models.attention import keeps_documents_apart
from pitstop.trainers.models.base import BaseRecipe, has_flash_attention, load_base, quiet_libraries, save_base
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.optim import build_optimizer, trainable
from pitstop.trainers.reporter import Reporter


@dataclass(frozen=True)
class Hardware:
    """The device, its precision, Accelerate's handle on the processes, and what is to be on record of all this."""

    device: torch.device
    precision: Precision
    accelerator: Any
    environment: Mapping[str, Any]

    @property
    def is_main(self) -> bool:
        """Whether this process owns the run directory and speaks for all."""
        return bool(self.accelerator.is_main_process)

    def batch_shape(self, settings: Settings) -> BatchShape:
        """How one optimizer step is cut up here."""
        training = settings.training
        return BatchShape(training.batch_size, training.gradient_accumulation_steps, self.accelerator.num_processes)


@contextlib.contextmanager
def process_group() -> Iterator[torch.device]:
    """Be in the process group while inside, if there are several processes; gives the device to compute on."""
    device = choose_device()
    with quiet_libraries():
        join_processes(device)
    try:
        yield device
    finally:
        if dist.is_initialized():  # torch warns at exit of a group that nobody left
            dist.destroy_process_group()


def open_hardware(settings: Settings, device: torch.device) -> Hardware:
    """Prepare computing on ``device``. Raises ``SettingsError`` for USE_FP16 off CUDA."""
    precision = choose_precision(settings, device)
    make_deterministic()
    with quiet_libraries():
        accelerator = build_accelerator(precision.mixed, device)
    return Hardware(device, precision, accelerator, describe(device, precision, int(accelerator.num_processes)))


@dataclass(frozen=True)
class BaseOnDisk:
    """Where the base lies in the form that is trained on, or its source where no copy is kept."""

    path: Path
    stored: bool
    digest: str


def place_base(settings: Settings, source: ModelSource, tokenizer: Any, hardware: Hardware, reporter: Reporter) -> BaseOnDisk:
    """Make sure that the shared copy of the base exists, saving it if this is the first run to use it.

    Only the first process writes; the others wait. Every process then loads the same bytes.
    """
    recipe = BaseRecipe.from_settings(settings, hardware.precision)
    digest = source.digest(recipe.as_dict())
    if not settings.training.checkpoint.save_base_model:
        return BaseOnDisk(source.path, stored=False, digest=digest)
    bases = BaseModels(settings.training.checkpoint.base_dir)

    def write(directory: Path) -> None:
        form = "4-bit" if recipe.quantised else "16-bit"
        reporter.line(f"Saving the {form} base model once, for all runs that share it.")
        model = load_base(source.path, recipe, hardware.device, stored=False, flash=False)
        save_base(model, tokenizer, directory)

    if hardware.is_main:
        bases.save_once(digest, write)
    hardware.accelerator.wait_for_everyone()
    return BaseOnDisk(bases.verify(digest), stored=True, digest=digest)


@dataclass(frozen=True)
class Built:
    """A model ready to train. ``packing`` is false where the architecture cannot keep documents of a row apart."""

    engine: Engine
    packing: bool


def build(settings: Settings, base: BaseOnDisk, model_id: str, pad_id: int, hardware: Hardware, reporter: Reporter) -> Built:
    """Load the base, put a fresh adapter on it and hand both to Accelerate."""
    recipe = BaseRecipe.from_settings(settings, hardware.precision)
    flash = _flash(settings, hardware, reporter)
    base_model = load_base(base.path, recipe, hardware.device, stored=base.stored, flash=flash)
    flat = flash or keeps_documents_apart(base_model, hardware.device)
    if not flat:
        base_model.set_attn_implementation("sdpa" if getattr(base_model, "_supports_sdpa", False) else "eager")
        reporter.warn("This architecture cannot keep packed records apart: records are padded instead, and packing is off.")
    model = add_adapter(base_model, settings.lora, seed=settings.training.seed, model_id=model_id)
    if hardware.precision.mixed != "no":
        share_inputs_under_autocast(model)
    prepare_for_training(model, gradient_checkpointing=settings.model.gradient_checkpointing)
    optimizer = build_optimizer(trainable(model), settings.training, hardware.device)
    with quiet_libraries():
        engine = Engine(hardware.accelerator, model, optimizer, Layout(flat, flash, pad_id), settings.training.max_grad_norm)
    state.seed_everything(settings.training.seed + hardware.accelerator.process_index)
    return Built(engine, packing=flat)


def _flash(settings: Settings, hardware: Hardware, reporter: Reporter) -> bool:
    if not settings.model.use_flash_attention:
        return False
    if has_flash_attention(hardware.device):
        return True
    reporter.warn(
        "USE_FLASH_ATTENTION: FlashAttention 2 is not available here; PyTorch's scaled_dot_product_attention is used instead."
    )
    return False
