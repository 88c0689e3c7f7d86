"""What a training computes on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from pitstop.configs.schema import Settings
from pitstop.trainers.machine.device import Precision, choose_precision, make_deterministic
from pitstop.trainers.machine.environment import describe
from pitstop.trainers.machine.libraries import quiet_libraries


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

    @property
    def processes(self) -> int:
        """How many processes train together."""
        return int(self.accelerator.num_processes)


def open_hardware(settings: Settings, device: torch.device) -> Hardware:
    """Prepare computing on ``device``. Raises ``SettingsError`` for USE_FP16 off CUDA."""
    precision = choose_precision(settings, device)
    make_deterministic()
    with quiet_libraries():
        accelerator = build_accelerator(precision.mixed, device)
    return Hardware(device, precision, accelerator, describe(device, precision, int(accelerator.num_processes)))


def build_accelerator(mixed: str, device: torch.device) -> Any:
    """Accelerate's entry: process group, device placement, autocast, loss scaling."""
    from accelerate import Accelerator, DistributedDataParallelKwargs

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return Accelerator(
            mixed_precision=mixed,
            cpu=device.type == "cpu",
            kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
        )
