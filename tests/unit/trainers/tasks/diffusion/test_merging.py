"""A network and its adapter as one, and both for other people's Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from pitstop.configs.errors import CheckpointError, ModelError
from pitstop.trainers.models.adapter import add_adapter
from pitstop.trainers.tasks.diffusion import edm
from pitstop.trainers.tasks.diffusion.family import DiffiTFamily
from pitstop.trainers.tasks.diffusion.loading import load_sampler
from pitstop.trainers.tasks.diffusion.merging import merge_into
from support.image_models import image_settings, small_network

FAMILY = DiffiTFamily()


def _adapted(classes: int = 0) -> Any:
    """The small network with an adapter that changes what it answers, of another rank in each stage."""
    network = small_network(1, classes=classes)
    settings = image_settings(model__id="base", lora__stage_ranks=["3", "2"], lora__rank=3, lora__alpha=6)
    form = FAMILY.adapter_form(network, settings)
    model = add_adapter(network, settings.lora, seed=0, model_id="base", form=form)
    generator = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=generator) / 4
    return model.eval()


@torch.no_grad()
def _denoised(model: Any) -> torch.Tensor:
    images = torch.randn(3, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    labels = torch.tensor([1, 0, 2])
    return edm.denoise(model.eval(), images, torch.tensor([0.1, 0.5, 3.0]), labels, sigma_data=0.5)


@pytest.mark.parametrize("classes", [0, 3])
def test_the_merged_network_answers_as_the_two_apart(tmp_path: Path, classes: int) -> None:
    adapted = _adapted(classes)
    wanted, weights = _denoised(adapted), {name: tensor.clone() for name, tensor in adapted.state_dict().items()}
    difference = merge_into(adapted, tmp_path / "merged")
    assert 0 <= difference < 1e-5
    merged = load_sampler(tmp_path / "merged").model
    assert merged.config.classes == classes and not hasattr(merged, "peft_config")
    torch.testing.assert_close(_denoised(merged), wanted, atol=1e-5, rtol=0.0)
    assert float((_denoised(small_network(1, classes=classes)) - wanted).abs().max()) > 1e-3  # the adapter matters
    assert adapted.state_dict().keys() == weights.keys()  # and is still there
    assert all(torch.equal(tensor, weights[name]) for name, tensor in adapted.state_dict().items())


def test_a_difference_would_be_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = DiffiTFamily.save

    def spoilt(self: DiffiTFamily, model: Any, tokenizer: Any, directory: Path) -> None:
        model.conv_out.bias.data += 0.25
        real(self, model, tokenizer, directory)

    monkeypatch.setattr(DiffiTFamily, "save", spoilt)
    assert merge_into(_adapted(), tmp_path / "merged") > 0.05


def test_a_base_training_is_written_as_it_is(tmp_path: Path) -> None:
    network = small_network(4)
    assert merge_into(network, tmp_path / "merged") == 0.0
    loaded = load_sampler(tmp_path / "merged").model.state_dict()
    assert all(torch.equal(tensor, loaded[name]) for name, tensor in network.state_dict().items())


def test_a_network_that_gives_no_numbers_is_refused(tmp_path: Path) -> None:
    network = small_network()
    network.conv_out.bias.data[0] = float("nan")
    with pytest.raises(CheckpointError, match="not finite numbers"):
        merge_into(network, tmp_path / "merged")


# For others ------------------------------------------------------------------------------------------------------------


def test_a_sampler_makes_images_with_the_network_and_its_adapter(tmp_path: Path) -> None:
    adapted = _adapted()
    adapted.save_pretrained(tmp_path / "adapter")
    FAMILY.save(small_network(1), None, tmp_path / "base")
    base = load_sampler(tmp_path / "base")
    both = load_sampler(str(tmp_path / "base"), adapter=str(tmp_path / "adapter"))
    assert base.steps == edm.STEPS and base.config == both.config == small_network().config
    torch.testing.assert_close(_denoised(both.model), _denoised(adapted), atol=1e-6, rtol=0.0)
    images = both.made(2, seed=0)
    assert images.shape == (2, 3, 8, 8) and images.dtype == np.uint8
    assert not np.array_equal(images, base.made(2, seed=0))
    assert not any(parameter.requires_grad for each in (base, both) for parameter in each.model.parameters())


@pytest.mark.parametrize("change", [lambda t: dict(list(t.items())[1:]), lambda t: {f"module.{name}": t[name] for name in t}])
def test_an_adapter_that_lacks_a_tensor_is_refused(tmp_path: Path, change: Any) -> None:
    """PEFT would go on with the numbers that it has drawn, and warn."""
    _adapted().save_pretrained(tmp_path / "adapter")
    FAMILY.save(small_network(1), None, tmp_path / "base")
    file = tmp_path / "adapter/adapter_model.safetensors"
    safetensors.torch.save_file(change(safetensors.torch.load_file(file)), file)
    with pytest.raises(ModelError, match="does not fit the network"):
        load_sampler(tmp_path / "base", adapter=tmp_path / "adapter")


@pytest.mark.parametrize("content", [None, b"", b"version https://git-lfs.github.com/spec/v1\n"])
def test_an_adapter_without_its_weights_is_refused(tmp_path: Path, content: bytes | None) -> None:
    _adapted().save_pretrained(tmp_path / "adapter")
    FAMILY.save(small_network(1), None, tmp_path / "base")
    file = tmp_path / "adapter/adapter_model.safetensors"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(ModelError, match=r"adapter_model\.safetensors: cannot be read") as caught:
        load_sampler(tmp_path / "base", adapter=tmp_path / "adapter")
    assert caught.value.hint


def test_a_directory_without_a_network_or_an_adapter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json"):
        load_sampler(tmp_path)
    FAMILY.save(small_network(1), None, tmp_path / "base")
    with pytest.raises(ModelError, match="holds no adapter") as caught:
        load_sampler(tmp_path / "base", adapter=tmp_path / "base")
    assert "adapter_config.json" in str(caught.value.hint)
