"""The EDM denoiser, its objective and its sampler (Karras et al. 2022, "Elucidating the Design Space of Diffusion-Based Generative Models").

A denoiser D(x, σ) answers with the expected image behind x = y + σn. Images are in [-1, 1]; σ is in the same unit.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

SIGMA_MIN, SIGMA_MAX, RHO, STEPS = 0.002, 80.0, 7.0, 18
LOG_SIGMA_MEAN, LOG_SIGMA_STD = -1.2, 1.2

Network = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""F(c_in x, c_noise, labels), ``(n, …)`` to the same shape; a ``DiffiT`` or what wraps one."""
Denoiser = Callable[[Tensor, Tensor], Tensor]
"""D(x, sigma) of shapes ``(n, …)`` and ``(n,)``, to the shape of x."""


class Preconditioning(NamedTuple):
    """D(x, σ) = c_skip x + c_out F(c_in x, c_noise); each of the shape of sigma."""

    c_skip: Tensor
    c_out: Tensor
    c_in: Tensor
    c_noise: Tensor


def preconditioning(sigma: Tensor, sigma_data: float) -> Preconditioning:
    """Table 1, column "Ours": σ_d²/(σ² + σ_d²), σσ_d/√(σ² + σ_d²), 1/√(σ² + σ_d²) and ln σ/4."""
    total = sigma**2 + sigma_data**2
    return Preconditioning(
        c_skip=sigma_data**2 / total, c_out=sigma * sigma_data / total.sqrt(), c_in=1 / total.sqrt(), c_noise=sigma.log() / 4
    )


def loss_weight(sigma: Tensor, sigma_data: float) -> Tensor:
    """(σ² + σ_d²)/(σσ_d)² (table 1), which makes the expected loss 1 at every σ when F answers zero; shape of sigma."""
    return (sigma**2 + sigma_data**2) / (sigma * sigma_data) ** 2


def draw_sigma(n: int, *, generator: torch.Generator | None = None, device: torch.device | str | None = None) -> Tensor:
    """Noise levels for training, ln σ ~ N(−1.2, 1.2²), float32 of shape ``(n,)`` on the generator's device or on ``device``."""
    place = generator.device if generator is not None else device
    return (torch.randn(n, generator=generator, device=place) * LOG_SIGMA_STD + LOG_SIGMA_MEAN).exp()


def denoise(network: Network, x: Tensor, sigma: Tensor, labels: Tensor | None = None, *, sigma_data: float) -> Tensor:
    """D(x, σ) in float32, whatever the network computes in: ``(n, …)`` for ``x`` of shape ``(n, …)`` and ``sigma`` of shape ``(n,)``."""
    x, sigma = x.float(), sigma.float()
    c = preconditioning(sigma, sigma_data)
    answer = network(_for_images(c.c_in, x) * x, c.c_noise, labels).float()
    return _for_images(c.c_skip, x) * x + _for_images(c.c_out, x) * answer


def losses(
    network: Network, images: Tensor, sigma: Tensor, noise: Tensor, labels: Tensor | None = None, *, sigma_data: float
) -> Tensor:
    """The loss of each image, float32 of shape ``(n,)``: the mean over its pixels of weight · (D(y + σn, σ) − y)² (equation 2).

    ``images`` y, float in [-1, 1], and ``noise`` n, standard normal, have the shape ``(n, channels, height, width)``;
    ``sigma`` has the shape ``(n,)``.
    """
    images, sigma = images.float(), sigma.float()
    noisy = images + _for_images(sigma, images) * noise.float()
    error = denoise(network, noisy, sigma, labels, sigma_data=sigma_data) - images
    return loss_weight(sigma, sigma_data) * error.square().flatten(1).mean(dim=1)


def sigma_steps(steps: int = STEPS) -> list[float]:
    """The noise levels of sampling, ``steps`` from 80 down to 0.002 (equation 5 with ρ = 7), then 0.

    Raises ``ValueError`` for fewer than two steps.
    """
    if steps < 2:
        raise ValueError(f"{steps} sampling steps; at least 2 are needed, one at each end")
    highest, lowest = SIGMA_MAX ** (1 / RHO), SIGMA_MIN ** (1 / RHO)
    return [*((highest + i / (steps - 1) * (lowest - highest)) ** RHO for i in range(steps)), 0.0]


@torch.no_grad()
def heun(denoiser: Denoiser, noise: Tensor, steps: int = STEPS) -> Tensor:
    """Images from standard normal ``noise`` of shape ``(n, …)``, by Heun's method in 2 · steps − 1 evaluations (algorithm 1).

    The state of the equation is float64. The denoiser is given, and the answer has, the type and device of ``noise``.
    Raises ``ValueError`` for fewer than two steps.
    """
    sigmas = sigma_steps(steps)
    state = noise.device if noise.device.type != "mps" else torch.device("cpu")  # MPS has no float64

    def answer(x: Tensor, sigma: float) -> Tensor:
        level = torch.full((len(noise),), sigma, dtype=noise.dtype, device=noise.device)
        return denoiser(x.to(noise), level).to(state, torch.float64)

    x = noise.to(state, torch.float64) * sigmas[0]
    for sigma, following in itertools.pairwise(sigmas):
        clean = answer(x, sigma)
        # Euler's x + (σ' − σ)(x − D)/σ, written so that at σ' = 0 it is D to the last bit
        euler = clean + following / sigma * (x - clean)
        if following > 0:
            slope = (x - clean) / sigma
            corrected = (euler - answer(euler, following)) / following
            euler = x + (following - sigma) * (slope + corrected) / 2
        x = euler
    return x.to(noise)


def _for_images(values: Tensor, images: Tensor) -> Tensor:
    """``(n,)`` as ``(n, 1, …)``, to be multiplied with images."""
    return values.reshape(-1, *(1 for _ in images.shape[1:]))
