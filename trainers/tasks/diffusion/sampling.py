"""Making images with a network: the same ones for the same seed, however many are made at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pitstop.trainers.data.images.grid import to_uint8
from pitstop.trainers.data.images.image_set import Images
from pitstop.trainers.tasks.diffusion import edm
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.noise import sample_noise


@dataclass(frozen=True)
class Sampler:
    """What images are made with. ``give_up`` is called before each evaluation of the model and may raise."""

    model: Any
    config: DiffiTConfig
    device: torch.device
    autocast: Callable[[], AbstractContextManager[Any]]
    steps: int = edm.STEPS
    batch_size: int = 64
    give_up: Callable[[], None] = lambda: None

    def made(self, count: int, *, seed: int, labels: Sequence[int] | None = None) -> Images:
        """``count`` images, uint8 ``(count, channels, size, size)``; ``labels`` are their classes, for a model that is told them."""
        return np.concatenate(list(self.batches(range(count), seed=seed, labels=labels)))

    def batches(self, numbers: Sequence[int], *, seed: int, labels: Sequence[int] | None = None) -> Iterator[Images]:
        """The images with these numbers out of those that ``seed`` gives, ``batch_size`` at a time."""
        self.model.eval()
        for start in range(0, len(numbers), self.batch_size):
            chosen = list(numbers[start : start + self.batch_size])
            classes = None if labels is None else torch.tensor(labels[start : start + self.batch_size], device=self.device)
            yield self._batch(chosen, seed, classes)

    @torch.no_grad()
    def _batch(self, numbers: Sequence[int], seed: int, labels: torch.Tensor | None) -> Images:
        side = self.config.image_size
        noise = sample_noise(numbers, (self.config.channels, side, side), seed).to(self.device)

        def denoiser(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
            self.give_up()
            with self.autocast():
                return edm.denoise(self.model, x, sigma, labels, sigma_data=self.config.sigma_data)

        return to_uint8(edm.heun(denoiser, noise, self.steps).float().cpu().numpy())
