"""Noise that belongs to the number of an image."""

from __future__ import annotations

import math
from statistics import NormalDist

import pytest
import torch

from pitstop.trainers.tasks.diffusion.noise import evaluation_noise, sample_noise

SHAPE = (1, 4, 4)


def test_evaluation_noise_is_the_same_in_every_batch_and_order() -> None:
    sigma, noise = evaluation_noise(range(10), SHAPE)
    assert (sigma.shape, noise.shape, sigma.dtype, noise.dtype) == ((10,), (10, *SHAPE), torch.float32, torch.float32)
    other_sigma, other_noise = evaluation_noise([7, 2], SHAPE)
    assert torch.equal(other_sigma, sigma[[7, 2]])
    assert torch.equal(other_noise, noise[[7, 2]])


def test_evaluation_noise_neither_reads_nor_moves_the_global_generator() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        first = evaluation_noise([3], SHAPE)[1]
        after = torch.rand(1)
        torch.manual_seed(1)
        assert torch.equal(torch.rand(1), after)
        assert torch.equal(evaluation_noise([3], SHAPE)[1], first)


def test_the_first_levels_by_hand() -> None:
    """Quantiles ½, ½ + .618034 − 1 and .118034 + .618034 of ln σ ~ N(−1.2, 1.2²)."""
    wanted = [math.exp(-1.2 + 1.2 * NormalDist().inv_cdf(quantile)) for quantile in (0.5, 0.1180340, 0.7360680)]
    assert evaluation_noise(range(3), SHAPE)[0].tolist() == pytest.approx(wanted, rel=1e-5)
    assert wanted[0] == pytest.approx(0.301194, abs=1e-6)


@pytest.mark.parametrize("start", [0, 12_345, 2**32 - 100])
def test_any_hundred_levels_in_a_row_are_spread_evenly_over_the_distribution(start: int) -> None:
    logs = evaluation_noise(range(start, start + 100), (1,))[0].log().tolist()
    quantiles = sorted(NormalDist(-1.2, 1.2).cdf(value) for value in logs)
    assert max(abs(quantile - (rank + 0.5) / 100) for rank, quantile in enumerate(quantiles)) < 0.03


def test_noise_is_standard_normal_and_different_for_every_image() -> None:
    noise = evaluation_noise(range(200), (1, 16, 16))[1].flatten(1)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(1, abs=0.02)
    alike = noise @ noise.T / 256
    assert (alike - torch.eye(200) * alike.diagonal()).abs().max() < 0.4, "six standard deviations of what chance gives"


def test_samples_start_from_noise_of_their_number_and_the_seed() -> None:
    noise = sample_noise(range(5), SHAPE, seed=1)
    assert noise.shape == (5, *SHAPE)
    assert torch.equal(sample_noise([4, 0], SHAPE, seed=1), noise[[4, 0]])
    everything = [*noise, *sample_noise(range(5), SHAPE, seed=2), *evaluation_noise(range(5), SHAPE)[1]]
    everything += sample_noise(range(5), SHAPE, seed=1 + 2**32)
    assert len({tuple(one.flatten().tolist()) for one in everything}) == 20


@pytest.mark.parametrize("index", [-1, 2**32])
def test_what_is_the_number_of_no_image_is_refused(index: int) -> None:
    with pytest.raises(ValueError, match="there is no image of this number; they go from 0 to 4294967295"):
        evaluation_noise([index], SHAPE)
    with pytest.raises(ValueError, match="there is no image of this number"):
        sample_noise([index], SHAPE, seed=0)


def test_no_image_has_no_noise() -> None:
    sigma, noise = evaluation_noise([], SHAPE)
    assert (sigma.shape, noise.shape) == ((0,), (0, *SHAPE))
