"""The Fréchet inception distance: what it takes, and what is handed to it. The distance itself is another library's."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pitstop.configs.errors import SettingsError
from pitstop.trainers.data.images.data import ImageData
from pitstop.trainers.data.images.image_set import ImageSet
from pitstop.trainers.loop.scoring import Interrupted, Scoring
from pitstop.trainers.tasks.diffusion import fid as module
from pitstop.trainers.tasks.diffusion.fid import WEIGHTS, check_available, fid, weights_path
from support.image_models import image_settings, small_network

CPU = torch.device("cpu")
SETTINGS = image_settings(diffusion__fid_images=5, diffusion__sampling_steps=2, training__seed=4)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """As if the package were there; the weights would be in this file."""
    monkeypatch.setattr(module, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints" / WEIGHTS


def test_the_package_is_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(module, "find_spec", asked.append)
    with pytest.raises(SettingsError, match="needs torch-fidelity") as caught:
        check_available()
    assert asked == ["torch_fidelity"] and "pitstop[fid]" in str(caught.value.hint)


def test_the_weights_are_wanted_where_the_package_looks_for_them(installed: Path) -> None:
    assert weights_path() == installed
    with pytest.raises(SettingsError, match="weights of the Inception network") as caught:
        check_available()
    assert str(installed) in caught.value.message
    assert f"-o {installed} https://" in str(caught.value.hint) and str(caught.value.hint).endswith(WEIGHTS)


def test_with_both_it_is_available(installed: Path) -> None:
    installed.parent.mkdir(parents=True)
    installed.write_bytes(b"weights")
    check_available()


def _evaluation() -> ImageData:
    return ImageData(ImageSet(np.zeros((3, 3, 8, 8), dtype=np.uint8), np.array([2, 0, 2]), ("a", "b", "c")))


def _scoring(network: Any, **changes: Any) -> Scoring:
    usual: dict[str, Any] = {"model": network, "tokenizer": None, "device": CPU, "autocast": contextlib.nullcontext}
    return Scoring(**usual, **{"batch_size": 8, "max_new_tokens": 1, **changes})


def test_as_many_images_as_asked_for_are_held_against_all_of_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Any] = []
    monkeypatch.setattr(module, "distance", lambda *what: given.append(what) or 12.5)
    network, data = small_network(), _evaluation()
    assert fid(data, _scoring(network), network.config, SETTINGS) == 12.5
    ((made, real, device),) = given
    assert made.shape == (5, 3, 8, 8) and made.dtype == np.uint8 and real is data.images.images and device == CPU
    fid(data, _scoring(network), network.config, SETTINGS)
    assert np.array_equal(given[1][0], made)  # the same noise each time


def test_a_network_that_is_told_classes_makes_those_of_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []
    monkeypatch.setattr(module.Sampler, "made", lambda self, count, *, seed, labels: told.append((count, seed, labels)))
    monkeypatch.setattr(module, "distance", lambda *what: 1.0)
    for classes in (3, 0):
        network = small_network(classes=classes)
        fid(_evaluation(), _scoring(network), network.config, SETTINGS)
    assert told == [(5, 4, [2, 0, 2, 2, 0]), (5, 4, None)]


@pytest.mark.parametrize("value", [7.25, math.nan, math.inf])
def test_all_processes_return_what_the_first_computed(monkeypatch: pytest.MonkeyPatch, value: float) -> None:
    sent: list[bytes] = []
    network = small_network()
    monkeypatch.setattr(module, "distance", lambda *what: value)
    first = fid(_evaluation(), _scoring(network, world_size=2, gather=lambda own: sent.append(own) or [own, b"0.0"]),
                network.config, SETTINGS)  # fmt: skip

    def never(*what: Any) -> float:
        raise AssertionError

    monkeypatch.setattr(module, "distance", never)
    monkeypatch.setattr(module, "Sampler", never)
    second = fid(
        _evaluation(), _scoring(network, rank=1, world_size=2, gather=lambda own: [sent[0], own]), network.config, SETTINGS
    )
    assert json.dumps([first, second]) == json.dumps([value, value])  # of two that are no numbers, too


def test_a_signal_ends_it_where_one_process_decides_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "distance", lambda *what: 3.0)
    network = small_network()
    with pytest.raises(Interrupted):
        fid(_evaluation(), _scoring(network, give_up=lambda: True), network.config, SETTINGS)
    several = _scoring(network, give_up=lambda: True, world_size=2)
    assert fid(_evaluation(), several, network.config, SETTINGS) == 3.0


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_have_three_channels_and_are_not_changed(channels: int) -> None:
    images = np.arange(2 * channels * 4, dtype=np.uint8).reshape(2, channels, 2, 2)
    pictures = module._Pictures(images)
    assert len(pictures) == 2
    picture = pictures[1]
    assert picture.dtype == torch.uint8 and picture.shape == (3, 2, 2) and picture.is_contiguous()
    assert np.array_equal(picture.numpy(), np.repeat(images[1], 3 // channels, axis=0))
