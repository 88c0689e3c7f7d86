"""Noise that belongs to an image: a pure function of its number, whatever batch it is in and whatever was drawn before.

With it the validation loss of two checkpoints differs by the checkpoints alone, and a grid of samples shows the same places.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from pitstop.trainers.tasks.diffusion.edm import LOG_SIGMA_MEAN, LOG_SIGMA_STD

_GOLDEN = 0x9E3779B97F4A7C15  # 2^64 divided by the golden ratio
_SEEDS = 2**32  # PyTorch's generator for the CPU takes no more of a seed


def evaluation_noise(indices: Sequence[int], shape: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The noise level and the standard normal noise of each image of these numbers: ``(n,)`` and ``(n, *shape)``, float32 on the CPU.

    Levels follow the training distribution, and those of any run of numbers are spread evenly over it. The numbers are 0 or more,
    below 2³²; raises ``ValueError`` for others.
    """
    return torch.tensor([_level(index) for index in indices], dtype=torch.float32), _normal(indices, shape, _key("evaluation"))


def sample_noise(indices: Sequence[int], shape: Sequence[int], seed: int) -> Tensor:
    """The standard normal noise that samples of these numbers start from: ``(n, *shape)``, float32 on the CPU.

    Another seed gives other noise. The numbers are 0 or more, below 2³²; raises ``ValueError`` for others.
    """
    return _normal(indices, shape, _key(f"sample {seed}"))


def _level(index: int) -> float:
    """exp of the quantile of N(−1.2, 1.2²) at frac(½ + index/golden ratio), which never is 0 or 1."""
    position = (index * _GOLDEN + 2**63) % 2**64
    quantile = ((position >> 12) + 0.5) / 2**52
    return math.exp(NormalDist(LOG_SIGMA_MEAN, LOG_SIGMA_STD).inv_cdf(quantile))


def _normal(indices: Sequence[int], shape: Sequence[int], key: int) -> Tensor:
    noise = torch.empty((len(indices), *shape))
    generator = torch.Generator()
    for row, index in enumerate(indices):
        if not 0 <= index < _SEEDS:
            raise ValueError(f"{index}: there is no image of this number; they go from 0 to {_SEEDS - 1}")
        generator.manual_seed((key + index) % _SEEDS)  # different for each number
        noise[row] = torch.randn(tuple(shape), generator=generator)
    return noise


def _key(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")
