"""What a training will need, worked out before anything is spent: parameters, memory, disk, steps, time.

Steps and parameters are exact. Memory, disk and time are estimates, and are called so wherever they are shown.
"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.disk.storage import LocalStorage
from pitstop.configs.schema import Settings
from pitstop.trainers.data.mixture import describe_shares
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.loop import Plan
from pitstop.trainers.loop.progress import Progress
from pitstop.trainers.machine.device import choose_device, choose_precision
from pitstop.trainers.machine.disk import OPTIMIZER_BYTES, checkpoint_bytes
from pitstop.trainers.machine.launch import world_size
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models.adapter import add_adapter
from pitstop.trainers.models.cost import frozen_linear
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.reporter import Reporter
from pitstop.trainers.tasks.pinned_data import at_commits
from pitstop.trainers.tasks.registry import family_of
from pitstop.trainers.training.inputs import read_inputs

_PROCESS_BYTES = {"cpu": 700 << 20, "cuda": 600 << 20, "mps": 700 << 20}  # libraries, or the CUDA context
# NF4: half a byte a weight, and for each block of 64 a constant of 4 bytes, or with double quantisation of about 1.02.
_NF4_BYTES = {False: 0.5 + 4 / 64, True: 0.5 + 1 / 64 + 4 / (64 * 256)}
_REALISTIC = 0.4  # share of the speed of one large matrix product that a whole training step reaches


@dataclass(frozen=True)
class Forecast:
    """The plan of one training. Sizes in bytes, times in seconds."""

    device: str
    parameters: int
    trainable_parameters: int
    records: int
    sequences: int
    steps_per_epoch: int
    total_steps: int
    tokens_per_epoch: int
    peak_memory_bytes: int
    checkpoint_bytes: int
    base_bytes: int
    disk_bytes: int
    free_disk_bytes: int | None
    time_s: float
    data: str = ""  # how much it is, in words
    sources: tuple[str, ...] = ()  # what each of several data sets contributes, in words

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form with stable keys."""
        return asdict(self)


def forecast(settings: Settings, reporter: Reporter) -> Forecast:
    """Work out the plan without loading a weight.

    Raises what starting would raise for a missing model or bad data: ``ModelError``, ``DataError``, ``SettingsError``.
    """
    device = choose_device()
    precision = choose_precision(settings, device)
    settings = at_commits(settings, device, reporter)
    inputs = read_inputs(settings, reporter)
    training = settings.training
    shape = BatchShape.of(training, max(training.num_processes, world_size()))
    plan = Plan.from_here(Progress(), len(inputs.train), shape, training)
    model = without_weights(settings, inputs.source)
    sizes = Sizes.of(model, settings)
    cost = family_of(settings).cost(model, settings, inputs.train)
    tokens = inputs.train.tokens_per_epoch * plan.total_steps / max(1, plan.steps_per_epoch)
    checkpoint = checkpoint_bytes(sizes.trainable, training.optimizer, average=training.ema_decay is not None)
    checkpoints = (training.checkpoint.keep_last_n or max(1, plan.total_steps // max(1, plan.steps_per_epoch))) + 1
    return Forecast(
        device=str(device),
        parameters=sizes.total - sizes.trainable,
        trainable_parameters=sizes.trainable,
        records=inputs.train.counts.used,
        sequences=len(inputs.train),
        steps_per_epoch=plan.steps_per_epoch,
        total_steps=plan.total_steps,
        tokens_per_epoch=round(inputs.train.tokens_per_epoch),
        peak_memory_bytes=int(
            _PROCESS_BYTES[device.type] + sizes.base_bytes + trained_bytes(settings, sizes, device) + cost.kept_bytes
        ),
        checkpoint_bytes=checkpoint,
        base_bytes=sizes.base_bytes,
        disk_bytes=checkpoints * checkpoint + (sizes.base_bytes if training.checkpoint.save_base_model else 0),
        free_disk_bytes=_free(Path(training.checkpoint.base_dir)),
        time_s=tokens * cost.flops / (_flops_per_s(device, precision.compute) * _REALISTIC * shape.world_size),
        data=inputs.train.in_words(),
        sources=tuple(describe_shares(inputs.train)),
    )


def _free(directory: Path) -> int | None:
    """Bytes free where the runs are to lie, in a directory that need not exist yet."""
    existing = next((path for path in (directory.absolute(), *directory.absolute().parents) if path.is_dir()), None)
    try:
        return LocalStorage().free_space(existing) if existing is not None else None
    except OSError:
        return None


def without_weights(settings: Settings, source: ModelSource) -> Any:
    """The model that would be trained, its adapter too, on the device ``meta``."""
    with quiet_libraries(), torch.device("meta"):
        family = family_of(settings)
        model = family.without_weights(source)
        if settings.training.all_weights:
            return model.requires_grad_(True)
        model.requires_grad_(False)
        form = family.adapter_form(model, settings)
        return add_adapter(model, settings.lora, seed=settings.training.seed, model_id=source.model_id, form=form)


@dataclass(frozen=True)
class Sizes:
    """Parameters of a model, and the bytes of what is frozen."""

    total: int
    trainable: int
    base_bytes: int

    @classmethod
    def of(cls, model: Any, settings: Settings) -> Sizes:
        """Count those of ``model``, whose tensors may be on the device ``meta``."""
        trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
        total = sum(p.numel() for p in model.parameters())
        quantised = sum(weight.numel() for weight in frozen_linear(model)) if settings.training.method == "qlora" else 0
        rest = total - trainable - quantised
        base_bytes = int(quantised * _NF4_BYTES[settings.quantization.use_double_quant] + rest * 2)
        return cls(total, trainable, base_bytes)


def trained_bytes(settings: Settings, sizes: Sizes, device: torch.device) -> float:
    """What is trained in float32, its gradient, optimizer state and average; the buffers that saves copy to, on a CPU."""
    training = settings.training
    average = 0 if training.ema_decay is None else 4
    state = 4 + average + OPTIMIZER_BYTES[training.optimizer]
    in_16_bits = 2 if training.all_weights and device.type != "mps" else 0  # autocast's copies of the weights
    copied = state if device.type == "cpu" and training.all_weights else 0  # a device's are copied to the memory of its host
    return sizes.trainable * (4 + state + in_16_bits + copied)


def _flops_per_s(device: torch.device, dtype: torch.dtype) -> float:
    """Speed of a product of two 1,024 × 1,024 matrices, measured for a quarter of a second."""
    matrix = torch.ones(1024, 1024, device=device, dtype=dtype)
    rounds, started = 0, 0.0
    while rounds < 3 or time.perf_counter() - started < 0.25:
        if rounds == 2:  # the first two warm up
            started = time.perf_counter()
        product = matrix @ matrix
        float(product[0, 0])  # wait for the device
        rounds += 1
    return 2 * 1024**3 * (rounds - 2) / (time.perf_counter() - started)
