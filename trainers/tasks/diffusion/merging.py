"""A network and its adapter as one, in float32."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import torch

from pitstop.configs.errors import CheckpointError
from pitstop.trainers.machine.libraries import quiet_libraries
from pitstop.trainers.models.adapter import bare_model
from pitstop.trainers.tasks.diffusion import edm
from pitstop.trainers.tasks.diffusion.family import DiffiTFamily
from pitstop.trainers.tasks.diffusion.loading import load_sampler
from pitstop.trainers.tasks.diffusion.noise import evaluation_noise

_PROBES = 4


def merge_into(adapted: Any, directory: Path) -> float:
    """Write the merged network (W + s·BA for each layer, Hu et al. 2021) into ``directory``, a new one, and hold it against the two apart.

    ``adapted`` is a ``PeftModel``, or of a base training the network itself. Returns the largest difference of a pixel, in units of [-1, 1], between what the two
    make of the same noisy images. Raises ``CheckpointError`` where the merged network gives no numbers.
    """
    config = bare_model(adapted).config
    expected = _answers(adapted, config)
    with quiet_libraries():
        merged = copy.deepcopy(adapted).merge_and_unload() if hasattr(adapted, "merge_and_unload") else adapted
    DiffiTFamily().save(merged, None, directory)
    answers = _answers(load_sampler(directory).model, config)
    if not bool(torch.isfinite(answers).all()):
        raise CheckpointError(
            "The merged model makes images with values that are not finite numbers.", hint="Export another checkpoint of the run."
        )
    return float((answers - expected).abs().max())


@torch.no_grad()
def _answers(model: Any, config: Any) -> torch.Tensor:
    """What the denoiser makes of noise at four levels, float32."""
    model.eval()
    sigma, noise = evaluation_noise(range(_PROBES), (config.channels, config.image_size, config.image_size))
    labels = torch.arange(_PROBES) % config.classes if config.classes else None
    return edm.denoise(model, noise * sigma[:, None, None, None], sigma, labels, sigma_data=config.sigma_data)
