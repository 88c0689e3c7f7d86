"""The Fréchet inception distance (Heusel et al. 2017) between made images and real ones, by torch-fidelity."""

from __future__ import annotations

import json
import warnings
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from pitstop.configs.errors import SettingsError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.images.data import ImageData
from pitstop.trainers.data.images.image_set import Images
from pitstop.trainers.loop.scoring import Scoring
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.sampling import Sampler

WEIGHTS = "weights-inception-2015-12-05-6726825d.pth"
"""torch-fidelity's copy of the Inception network that the metric is defined by."""
_WHERE = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/" + WEIGHTS


def check_available() -> None:
    """Raises ``SettingsError`` where the package or the network's weights are not on this machine; they are not fetched by the way."""
    if find_spec("torch_fidelity") is None:
        raise SettingsError("FID_IMAGES needs torch-fidelity.", hint="pip install 'pitstop[fid]', or leave --fid-images out.")
    if not weights_path().is_file():
        raise SettingsError(
            f"FID_IMAGES needs the weights of the Inception network at {weights_path()}.",
            hint=f"Fetch them with: curl -L --create-dirs -o {weights_path()} {_WHERE}",
        )


def weights_path() -> Path:
    """Where the weights lie: where torch-fidelity itself would put them."""
    return Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS


def fid(evaluation: ImageData, scoring: Scoring, config: DiffiTConfig, settings: Settings) -> float:
    """The distance of ``settings.diffusion.fid_images`` made images to all of ``evaluation``; a model that is told classes makes those there.

    The first process computes it, and all return it. Raises ``Interrupted``.
    """
    value = 0.0
    if scoring.rank == 0:
        options, labels = settings.diffusion, evaluation.images.labels
        sampler = Sampler(
            scoring.model,
            config,
            scoring.device,
            scoring.autocast,
            steps=options.sampling_steps,
            batch_size=max(64, settings.training.batch_size),
            give_up=scoring.check,
        )
        classes = [int(labels[number % len(labels)]) for number in range(options.fid_images)] if config.classes else None
        images = sampler.made(options.fid_images, seed=settings.training.seed, labels=classes)
        value = distance(images, evaluation.images.images, scoring.device)
    return float(json.loads(scoring.gather(json.dumps(value).encode())[0]))


def distance(images: Images, real: Images, device: torch.device) -> float:
    """FID of two sets of images, uint8 ``(n, 1 or 3, height, width)``; one channel counts as grey."""
    from torch_fidelity import calculate_metrics

    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):  # its data loader draws from training's generator
        warnings.simplefilter("ignore")
        metrics: dict[str, Any] = calculate_metrics(
            input1=_Pictures(images),
            input2=_Pictures(real),
            cuda=device.type == "cuda",
            fid=True,
            feature_extractor_weights_path=str(weights_path()),
            cache=False,
            verbose=False,
        )
    return float(metrics["frechet_inception_distance"])


class _Pictures(Dataset[torch.Tensor]):
    """As torch-fidelity takes them: uint8 ``(3, height, width)``."""

    def __init__(self, images: Images) -> None:
        self._images = images

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> torch.Tensor:
        image = self._images[index]
        return torch.from_numpy(np.array(np.broadcast_to(image, (3, *image.shape[1:])), order="C"))
