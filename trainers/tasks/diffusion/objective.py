"""The EDM loss over images, as the engine takes it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pitstop.trainers.data.images.data import ImageData
from pitstop.trainers.data.images.grid import from_uint8
from pitstop.trainers.models.objective import Losses
from pitstop.trainers.tasks.diffusion import edm
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.noise import evaluation_noise


@dataclass(frozen=True)
class ImageBatch:
    """``images`` float32 in [-1, 1], ``(n, channels, size, size)``; ``labels`` int64 ``(n,)`` or None; their numbers in the data set."""

    images: torch.Tensor
    labels: torch.Tensor | None
    numbers: list[int]


class DenoisingObjective:
    """See ``objective.Objective``. With ``flip`` every image is mirrored with probability one half in training."""

    packing = True  # each image is a row of its own anyway

    def __init__(self, config: DiffiTConfig, *, flip: bool) -> None:
        self.config, self.flip = config, flip

    def batch(self, data: ImageData, sequence_ids: np.ndarray, device: torch.device) -> ImageBatch:
        """Pixels 0 to 255 become -1 to 1."""
        images = torch.from_numpy(from_uint8(data.pixels(sequence_ids))).to(device)
        labels = torch.from_numpy(data.labels(sequence_ids)).to(device) if self.config.classes else None
        return ImageBatch(images, labels, [int(number) for number in sequence_ids])

    def losses(self, model: Any, batch: ImageBatch) -> Losses:
        """One draw of noise level and noise for each image."""
        images, device = batch.images, batch.images.device
        if self.flip:
            mirrored = torch.rand(len(images), device=device) < 0.5
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        sigma = edm.draw_sigma(len(images), device=device)
        return self._of(model, images, sigma, torch.randn_like(images), batch.labels)

    def evaluated(self, model: Any, batch: ImageBatch) -> Losses:
        """The noise that belongs to each image."""
        sigma, noise = evaluation_noise(batch.numbers, batch.images.shape[1:])
        device = batch.images.device
        return self._of(model, batch.images, sigma.to(device), noise.to(device), batch.labels)

    def metrics(self, loss: float, accuracy: float) -> dict[str, float]:
        """The loss alone."""
        del accuracy
        return {"val_loss": loss}

    def _of(
        self, model: Any, images: torch.Tensor, sigma: torch.Tensor, noise: torch.Tensor, labels: torch.Tensor | None
    ) -> Losses:
        return Losses(edm.losses(model, images, sigma, noise, labels, sigma_data=self.config.sigma_data))
