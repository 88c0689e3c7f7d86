"""Images as the engine gets them, and what each of them costs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from pitstop.trainers.data.images.data import ImageData
from pitstop.trainers.data.images.image_set import ImageSet
from pitstop.trainers.tasks.diffusion import objective as module
from pitstop.trainers.tasks.diffusion.noise import evaluation_noise
from pitstop.trainers.tasks.diffusion.objective import DenoisingObjective, ImageBatch
from support.image_models import small_config, small_network

CPU = torch.device("cpu")
CONFIG = small_config(channels=1, sigma_data=0.7)


def _half(x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
    return x / 2


def _batch(count: int, *, labels: Tensor | None = None) -> ImageBatch:
    images = torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(1)) * 2 - 1
    return ImageBatch(images, labels, list(range(count)))


def _by_hand(images: Tensor, sigma: Tensor, noise: Tensor, sigma_data: float) -> Tensor:
    """Karras et al. 2022, equation 2, for the network F(x) = x/2, image by image in float64."""
    found = []
    for image, level, drawn in zip(images.double(), sigma.double().tolist(), noise.double(), strict=True):
        total = level**2 + sigma_data**2
        noisy = image + level * drawn
        denoised = sigma_data**2 / total * noisy + level * sigma_data / math.sqrt(total) * (noisy / math.sqrt(total) / 2)
        found.append(total / (level * sigma_data) ** 2 * ((denoised - image) ** 2).mean())
    return torch.stack(found).float()


def test_pixels_go_from_minus_one_to_one_and_keep_their_numbers() -> None:
    images = np.array([0, 51, 102, 255], dtype=np.uint8).reshape(4, 1, 1, 1)
    data = ImageData(ImageSet(images, np.array([0, 1, 0, 1]), ("a", "b")))
    batch = DenoisingObjective(CONFIG, flip=False).batch(data, np.array([3, 0, 1]), CPU)
    assert batch.images.dtype == torch.float32 and batch.images.shape == (3, 1, 1, 1)
    torch.testing.assert_close(batch.images.flatten(), torch.tensor([1.0, -1.0, -0.6]))
    assert batch.numbers == [3, 0, 1] and batch.labels is None


def test_a_network_that_is_told_classes_gets_labels() -> None:
    images = np.zeros((3, 1, 1, 1), dtype=np.uint8)
    data = ImageData(ImageSet(images, np.array([2, 0, 1]), ("a", "b", "c")))
    batch = DenoisingObjective(small_config(channels=1, classes=3), flip=False).batch(data, np.array([2, 0]), CPU)
    assert batch.labels is not None and batch.labels.dtype == torch.int64 and batch.labels.tolist() == [1, 2]


def test_labels_reach_the_network_in_training_and_in_evaluation() -> None:
    seen: list[Any] = []

    def network(x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        seen.append(labels)
        return x

    labels = torch.tensor([1, 0])
    for method in ("losses", "evaluated"):
        getattr(DenoisingObjective(CONFIG, flip=True), method)(network, _batch(2, labels=labels))
    assert all(given is labels for given in seen) and len(seen) == 2


def test_losses_by_hand() -> None:
    batch = _batch(5)
    torch.manual_seed(3)
    found = DenoisingObjective(CONFIG, flip=False).losses(_half, batch)
    torch.manual_seed(3)
    sigma = (torch.randn(5) * 1.2 - 1.2).exp()
    wanted = _by_hand(batch.images, sigma, torch.randn(5, 1, 8, 8), 0.7)
    assert found.per_unit.shape == (5,) and found.per_unit.dtype == torch.float32 and found.correct is None
    torch.testing.assert_close(found.per_unit, wanted, rtol=1e-4, atol=1e-6)


def test_evaluated_losses_by_hand_with_the_noise_of_their_numbers() -> None:
    whole = _batch(9)
    batch = ImageBatch(whole.images[4:7], None, [4, 5, 6])
    sigma, noise = evaluation_noise([4, 5, 6], (1, 8, 8))
    found = DenoisingObjective(CONFIG, flip=True).evaluated(_half, batch)
    torch.testing.assert_close(found.per_unit, _by_hand(batch.images, sigma, noise, 0.7), rtol=1e-4, atol=1e-6)


def test_draws_come_from_torch_s_generator() -> None:
    objective, batch = DenoisingObjective(CONFIG, flip=True), _batch(6)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = objective.losses(_half, batch).per_unit
    assert not torch.equal(torch.get_rng_state(), before)
    second = objective.losses(_half, batch).per_unit
    torch.set_rng_state(before)
    assert torch.equal(objective.losses(_half, batch).per_unit, first)
    assert not torch.equal(second, first)


@pytest.mark.parametrize("cuts", [[[0, 1, 2, 3, 4, 5]], [[0], [1, 2], [3, 4, 5]], [[5, 3, 1], [4, 2, 0]]])
def test_an_evaluation_does_not_depend_on_how_it_is_cut_into_batches(cuts: list[list[int]]) -> None:
    network, labels = small_network(channels=1, classes=3), torch.tensor([0, 1, 2, 0, 1, 2])
    whole = _batch(6, labels=labels)
    objective = DenoisingObjective(network.config, flip=True)
    state = torch.get_rng_state()
    with torch.no_grad():
        wanted = objective.evaluated(network, whole).per_unit
        found = torch.empty(6)
        for cut in cuts:
            torch.rand(3)  # whatever was drawn before
            found[cut] = objective.evaluated(network, ImageBatch(whole.images[cut], labels[cut], cut)).per_unit
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-6)
    torch.set_rng_state(state)
    objective.evaluated(_half, whole)
    assert torch.equal(torch.get_rng_state(), state)


def _shown(monkeypatch: pytest.MonkeyPatch, *, flip: bool, method: str, count: int = 4000) -> Tensor:
    """Which of ``count`` equal images came to the loss as they are (0), mirrored (1), or as something else (-1)."""
    seen: list[Tensor] = []

    def losses(network: Any, images: Tensor, *rest: Any, **named: Any) -> Tensor:
        seen.append(images)
        return torch.zeros(len(images))

    monkeypatch.setattr(module.edm, "losses", losses)
    image = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
    batch = ImageBatch(image.expand(count, 1, 2, 2), None, list(range(count)))
    torch.manual_seed(0)
    getattr(DenoisingObjective(CONFIG, flip=flip), method)(None, batch)
    mirrored = torch.tensor([[[0.2, 0.1], [0.4, 0.3]]])
    same, other = ((seen[0] == each).flatten(1).all(1) for each in (image, mirrored))
    return torch.where(same, 0, torch.where(other, 1, -1))


def test_flip_mirrors_each_image_with_probability_one_half(monkeypatch: pytest.MonkeyPatch) -> None:
    found = _shown(monkeypatch, flip=True, method="losses")
    assert set(found.tolist()) == {0, 1}
    assert abs(float(found.float().mean()) - 0.5) < 0.04  # five standard deviations
    assert 0.4 < float((found[1:] != found[:-1]).float().mean()) < 0.6  # each on its own


@pytest.mark.parametrize(("flip", "method"), [(False, "losses"), (True, "evaluated")])
def test_nothing_is_mirrored_unasked_or_in_an_evaluation(monkeypatch: pytest.MonkeyPatch, flip: bool, method: str) -> None:
    assert set(_shown(monkeypatch, flip=flip, method=method, count=64).tolist()) == {0}


def test_an_evaluation_logs_the_loss_alone() -> None:
    objective = DenoisingObjective(CONFIG, flip=False)
    assert objective.metrics(1.5, 0.25) == {"val_loss": 1.5} and objective.packing
