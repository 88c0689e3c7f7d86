"""Denoiser, objective and sampler of EDM by hand."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pitstop.trainers.tasks.diffusion.edm import denoise, draw_sigma, heun, loss_weight, losses, preconditioning, sigma_steps

ONE = torch.tensor([[[[0.7, -0.9]]], [[[0.5, 1.0]]]])  # two images of one channel and two pixels
SIGMA = torch.tensor([0.5, 1.0])


def _answers(value: float) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
    return lambda x, c_noise, labels: torch.full_like(x, value)


def test_preconditioning_by_hand() -> None:
    found = preconditioning(torch.tensor([0.5, 1.0]), 0.5)
    torch.testing.assert_close(found.c_skip, torch.tensor([0.5, 0.2]))
    torch.testing.assert_close(found.c_out, torch.tensor([0.353553, 0.447214]), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(found.c_in, torch.tensor([math.sqrt(2), 0.894427]), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(found.c_noise, torch.tensor([math.log(0.5) / 4, 0.0]))


def test_the_weight_by_hand() -> None:
    torch.testing.assert_close(loss_weight(torch.tensor([0.5, 1.0]), 0.5), torch.tensor([8.0, 5.0]))


def test_the_weight_undoes_the_scale_of_the_answer() -> None:
    sigma = torch.tensor([0.002, 0.3, 80.0])
    torch.testing.assert_close(loss_weight(sigma, 0.7) * preconditioning(sigma, 0.7).c_out ** 2, torch.ones(3))


def test_the_denoiser_by_hand() -> None:
    """At σ = .5 half of x plus .353553 of the answer, at σ = 1 a fifth plus .447214."""
    wanted = torch.tensor([[[[0.703553, -0.096447]]], [[[0.547214, 0.647214]]]])
    torch.testing.assert_close(denoise(_answers(1.0), ONE, SIGMA, sigma_data=0.5), wanted, atol=1e-6, rtol=0.0)


def test_the_network_is_given_scaled_images_the_logarithm_of_the_level_and_the_labels() -> None:
    given: list[Tensor | None] = []

    def network(x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        given.extend((x, c_noise, labels))
        return x

    labels = torch.tensor([3, 4])
    denoise(network, ONE.double(), SIGMA.double(), labels, sigma_data=0.5)
    x, c_noise, passed = given
    torch.testing.assert_close(x, torch.tensor([[[[0.989949, -1.272792]]], [[[0.447214, 0.894427]]]]), atol=1e-6, rtol=0.0)
    torch.testing.assert_close(c_noise, torch.tensor([-0.173287, 0.0]), atol=1e-6, rtol=0.0)
    assert passed is labels


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_around_the_network_all_is_float32_whatever_it_computes_in(dtype: torch.dtype) -> None:
    found = denoise(lambda x, c_noise, labels: torch.zeros_like(x, dtype=dtype), ONE, SIGMA, sigma_data=0.5)
    assert torch.equal(found, torch.tensor([[[[0.35, -0.45]]], [[[0.1, 0.2]]]]))
    assert found.dtype == torch.float32


def test_the_loss_of_each_image_by_hand() -> None:
    """σ = .5: x = (.7, -.9), D = x/2, errors .15 and -.05, 8 · .0125. σ = 1: x = (.5, 1), D = x/5, errors .1 and -.8, 5 · .325."""
    images = torch.tensor([[[[0.2, -0.4]]], [[[0.0, 1.0]]]])
    noise = torch.tensor([[[[1.0, -1.0]]], [[[0.5, 0.0]]]])
    found = losses(_answers(0.0), images, SIGMA, noise, sigma_data=0.5)
    torch.testing.assert_close(found, torch.tensor([0.1, 1.625]))
    assert losses(_answers(0.0), images.double(), SIGMA.double(), noise.double(), sigma_data=0.5).dtype == torch.float32


def test_labels_reach_the_network_of_the_loss() -> None:
    def network(x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        assert labels is not None
        return labels.reshape(-1, 1, 1, 1).expand_as(x)

    nothing = torch.zeros_like(ONE)
    found = losses(network, nothing, SIGMA, nothing, torch.tensor([0, 1]), sigma_data=0.5)
    torch.testing.assert_close(found, torch.tensor([0.0, 1.0]))


def test_levels_for_training_follow_the_log_normal_distribution() -> None:
    sigma = draw_sigma(20_000, generator=torch.Generator().manual_seed(0))
    assert (sigma.dtype, sigma.shape) == (torch.float32, (20_000,))
    assert sigma.log().mean() == pytest.approx(-1.2, abs=0.03)
    assert sigma.log().std() == pytest.approx(1.2, abs=0.03)
    assert torch.equal(
        draw_sigma(5, generator=torch.Generator().manual_seed(0)), draw_sigma(5, generator=torch.Generator().manual_seed(0))
    )


def test_without_a_generator_levels_come_from_the_global_one() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        first = draw_sigma(3, device="cpu")
        torch.manual_seed(4)
        assert torch.equal(draw_sigma(3), first)


def test_levels_of_sampling_go_from_80_to_two_thousandths_and_then_0() -> None:
    sigmas = sigma_steps()
    assert len(sigmas) == 19
    assert sigmas[0] == pytest.approx(80, rel=1e-12)
    assert sigmas[1:4] == pytest.approx([57.58598, 40.78557, 28.37458], abs=1e-5)
    assert sigmas[17] == pytest.approx(0.002, rel=1e-12)
    assert sigmas[18] == 0
    with pytest.raises(ValueError, match=r"^1 sampling steps; at least 2 are needed"):
        sigma_steps(1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_denoiser_that_always_answers_the_same_gives_exactly_that_after_35_evaluations(dtype: torch.dtype) -> None:
    mean = torch.rand(1, 1000, dtype=dtype, generator=torch.Generator().manual_seed(1))
    mean[:, ::2] *= 1e-6  # beside it the last state is large, and rounding would show
    levels: list[float] = []

    def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
        assert (x.dtype, x.shape, sigma.dtype, sigma.shape) == (dtype, (2, 1000), dtype, (2,))
        levels.append(float(sigma[1]))
        return mean.expand_as(x)

    found = heun(denoiser, torch.randn(2, 1000, dtype=dtype, generator=torch.Generator().manual_seed(2)))
    assert found.dtype == dtype
    assert torch.equal(found, mean.expand(2, 1000))
    sigmas = sigma_steps()
    assert levels == pytest.approx([sigmas[0], *(sigma for sigma in sigmas[1:18] for _ in range(2))], rel=1e-6)
    assert len(levels) == 35


def test_the_ideal_denoiser_of_a_normal_distribution_takes_80_to_its_quantile() -> None:
    """D = x σ_d²/(σ² + σ_d²); the exact solution is 80 · .5/√(80² + .25) = .49999."""
    found = heun(lambda x, sigma: x * 0.25 / (sigma[:, None] ** 2 + 0.25), torch.ones(1, 1, dtype=torch.float64))
    assert float(found) == pytest.approx(0.527625, abs=5e-7)


def test_the_sampler_is_algorithm_1_of_the_paper() -> None:
    """Written out for one number, with a denoiser that is not linear."""

    def ideal(x: float, sigma: float) -> float:
        return math.tanh(x / (1 + sigma)) / 2

    sigmas, x = sigma_steps(5), 80 * 0.3
    for i in range(5):
        slope = (x - ideal(x, sigmas[i])) / sigmas[i]
        following = x + (sigmas[i + 1] - sigmas[i]) * slope
        if sigmas[i + 1] != 0:
            second = (following - ideal(following, sigmas[i + 1])) / sigmas[i + 1]
            following = x + (sigmas[i + 1] - sigmas[i]) * (slope / 2 + second / 2)
        x = following
    found = heun(lambda x, sigma: (x / (1 + sigma[:, None])).tanh() / 2, torch.full((1, 1), 0.3, dtype=torch.float64), 5)
    assert float(found) == pytest.approx(x, rel=1e-12)


def test_the_state_between_evaluations_is_float64_whatever_the_type_of_the_noise() -> None:
    generator = torch.Generator().manual_seed(2)
    answers = torch.randn(35, 1, 50, generator=generator, dtype=torch.float64)
    noise = torch.randn(1, 50, generator=generator)

    def states(noise: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def denoiser(x: Tensor, sigma: Tensor) -> Tensor:
            seen.append(x)
            return answers[len(seen) - 1]

        heun(denoiser, noise)
        return torch.stack(seen)

    assert torch.equal(states(noise), states(noise.double()).float())


def test_sampling_keeps_no_graph() -> None:
    weight = torch.ones((), requires_grad=True)
    assert not heun(lambda x, sigma: x * weight / 2, torch.ones(1, 1), 2).requires_grad
