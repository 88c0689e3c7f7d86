"""Making images: the same ones for the same seed, however they are cut into batches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.sampling import Sampler
from support.image_models import small_config, small_network

CPU = torch.device("cpu")


class Pointwise(nn.Module):
    """Answers each pixel by itself, so that no batch changes a bit; notes what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.labels: list[list[int] | None] = []
        self.sizes: list[int] = []
        self.was_training: set[bool] = set()

    def forward(self, x: Tensor, c_noise: Tensor, labels: Tensor | None) -> Tensor:
        self.labels.append(None if labels is None else labels.tolist())
        self.sizes.append(len(x))
        self.was_training.add(self.training)
        assert not torch.is_grad_enabled()
        shift = 0.0 if labels is None else labels[:, None, None, None].float()
        return x / 3 + c_noise[:, None, None, None] + shift


def _sampler(model: Any = None, config: DiffiTConfig | None = None, **changes: Any) -> Sampler:
    model = Pointwise() if model is None else model
    return Sampler(model, config or small_config(), CPU, contextlib.nullcontext, **changes)


def test_images_do_not_depend_on_the_size_of_the_batch() -> None:
    whole = _sampler(batch_size=7).made(7, seed=3)
    assert whole.shape == (7, 3, 8, 8) and whole.dtype == np.uint8 and len(np.unique(whole)) > 20
    for size in (1, 3, 64):
        assert np.array_equal(_sampler(batch_size=size).made(7, seed=3), whole)
    part = np.concatenate(list(_sampler(batch_size=2).batches(range(2, 5), seed=3)))
    assert np.array_equal(part, whole[2:5])


def test_a_network_gives_the_same_images_in_batches_but_for_rounding() -> None:
    network = small_network()
    whole, single = (_sampler(network, batch_size=size, steps=4).made(4, seed=1).astype(int) for size in (4, 1))
    assert np.abs(whole - single).max() <= 1 and (whole != single).mean() < 0.01


def test_another_seed_gives_other_images_and_no_generator_of_training_is_touched() -> None:
    before = torch.get_rng_state()
    first, again, other = (_sampler(steps=3).made(2, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert not np.array_equal(first[0], first[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_labels_go_with_their_images() -> None:
    model = Pointwise()
    found = _sampler(model, small_config(classes=3), batch_size=2, steps=2).made(3, seed=0, labels=[2, 0, 1])
    assert model.labels == [[2, 0]] * 3 + [[1]] * 3
    alone = _sampler(config=small_config(classes=3), batch_size=3, steps=2).made(3, seed=0, labels=[2, 0, 1])
    assert np.array_equal(found, alone)
    other = _sampler(config=small_config(classes=3), batch_size=3, steps=2).made(3, seed=0, labels=[2, 1, 1])
    assert [bool((found[i] == other[i]).all()) for i in range(3)] == [True, False, True]


def test_without_labels_the_network_is_told_none() -> None:
    model = Pointwise()
    _sampler(model, steps=2).made(1, seed=0)
    assert model.labels == [None] * 3


@pytest.mark.parametrize(("steps", "evaluations"), [(None, 35), (18, 35), (4, 7), (2, 3)])
def test_each_batch_takes_two_evaluations_a_step_but_one_for_the_last(steps: int | None, evaluations: int) -> None:
    model = Pointwise()
    _sampler(model, batch_size=2, **({} if steps is None else {"steps": steps})).made(5, seed=0)
    assert model.sizes == [2] * (2 * evaluations) + [1] * evaluations


def test_the_network_is_evaluated_and_keeps_no_graph() -> None:
    model = Pointwise().train()
    _sampler(model, steps=2).made(1, seed=0)
    assert model.was_training == {False}


def test_each_evaluation_is_in_the_precision_of_training() -> None:
    entered: list[bool] = []

    @contextlib.contextmanager
    def autocast() -> Iterator[None]:
        entered.append(True)
        yield

    Sampler(Pointwise(), small_config(), CPU, autocast, steps=3).made(1, seed=0)
    assert len(entered) == 5


def test_a_signal_ends_it_before_the_next_evaluation() -> None:
    class Enough(Exception):
        pass

    model, asked = Pointwise(), 0

    def give_up() -> None:
        nonlocal asked
        asked += 1
        if asked == 3:
            raise Enough

    with pytest.raises(Enough):
        _sampler(model, give_up=give_up).made(1, seed=0)
    assert len(model.sizes) == 2


@pytest.mark.parametrize(("value", "pixel"), [(0.5, 191), (-1.0, 0), (1.0, 255), (7.0, 255)])
def test_numbers_become_pixels(monkeypatch: pytest.MonkeyPatch, value: float, pixel: int) -> None:
    """(0.5 + 1) · 127.5 = 191.25."""
    denoise = "pitstop.trainers.tasks.diffusion.sampling.edm.denoise"
    monkeypatch.setattr(denoise, lambda network, x, *rest, **named: torch.full_like(x, value))
    assert (_sampler(steps=2).made(2, seed=0) == pixel).all()


def test_the_standard_deviation_of_the_data_is_the_network_s() -> None:
    one, other = (_sampler(config=small_config(sigma_data=sigma), steps=3).made(1, seed=0) for sigma in (0.5, 0.2))
    assert not np.array_equal(one, other)
