"""Networks, settings and images as small as they can be, for tests of the task diffusion."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from pitstop.configs.load import load_settings
from pitstop.configs.schema import Settings
from pitstop.trainers.data.images.image_set import ImageSet
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.model import DiffiT

_STAGE = re.compile(r"(?:^|\.)(?:encoder|decoder)\.(\d+)\.")

SMALL: dict[str, Any] = {"image_size": 8, "widths": (8, 8), "blocks": 1, "heads": 2, "time_width": 8, "window": 2}
"""Two stages for 8×8 RGB images: 5 thousand weights."""


def small_config(**changes: Any) -> DiffiTConfig:
    """``SMALL`` with changes."""
    return DiffiTConfig(**{**SMALL, **changes})


def small_network(seed: int = 0, **changes: Any) -> DiffiT:
    """A network that answers something, as after some training; the global generator is left as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = DiffiT(small_config(**changes))
        torch.nn.init.normal_(network.conv_out.weight, std=0.1)
    return network


def image_settings(**flags: Any) -> Settings:
    """Settings of the task, a base training from scratch unless they say otherwise; ``data__classes`` is ``data.classes``."""
    given = {path.replace("__", "."): value for path, value in flags.items()}
    return load_settings(flags={"training.task": "diffusion", "data.train": ["images"], **given}, environ={}).settings


def numbered_images(labels: Sequence[int], names: Sequence[str], *, size: int = 2, **more: Any) -> ImageSet:
    """Grey images whose pixels are all their number in the set."""
    pixels = np.arange(len(labels), dtype=np.uint8)[:, None, None, None]
    images = np.ascontiguousarray(np.broadcast_to(pixels, (len(labels), 1, size, size)))
    return ImageSet(images, np.array(labels, dtype=np.int64), tuple(names), **more)


def linear_targets(model: nn.Module) -> list[str]:
    """Full paths of all ``nn.Linear`` in the blocks, for LoRA: q, k and v of space and time, output projection and MLP."""
    return [path for path, module in model.named_modules() if isinstance(module, nn.Linear) and _STAGE.search(path)]


def stage_of(path: str) -> int:
    """The stage that a module or weight of this path is in, 0 for the full resolution, 1 for half of it, and so on.

    Raises ``ValueError`` for what is in no stage.
    """
    found = _STAGE.search(path)
    if found is None:
        raise ValueError(f"{path} is in no stage of the encoder or decoder")
    return int(found.group(1))
