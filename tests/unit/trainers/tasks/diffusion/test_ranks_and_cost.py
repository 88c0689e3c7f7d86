"""Adapters by resolution, and what a step is expected to take."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from pitstop.configs.errors import SettingsError
from pitstop.trainers.data.images.data import ImageData
from pitstop.trainers.models.adapter import add_adapter
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig
from pitstop.trainers.tasks.diffusion.family import LORA_TARGETS, DiffiTFamily
from pitstop.trainers.tasks.diffusion.model import DiffiT
from support.image_models import image_settings, linear_targets, numbered_images, small_config, small_network, stage_of

FAMILY = DiffiTFamily()
DATA = ImageData(numbered_images([0] * 10, ["a"]))


def _adapted(network: DiffiT, **lora: Any) -> Any:
    settings = image_settings(model__id="base", **{f"lora__{name}": value for name, value in lora.items()})
    form = FAMILY.adapter_form(network, settings)
    return add_adapter(network, settings.lora, seed=0, model_id="base", form=form)


def _layers(model: Any) -> dict[str, Any]:
    return {path: module for path, module in model.get_base_model().named_modules() if hasattr(module, "lora_A")}


def test_each_resolution_has_its_rank_and_alpha_keeps_its_proportion() -> None:
    """Three stages of two cells each, so that a stage's number is not taken for a cell's. Alpha is twice the rank."""
    network = small_network(widths=(8, 8, 8), blocks=2)
    found = _layers(_adapted(network, stage_ranks=["6", "4", "2"], rank=6, alpha=12))
    assert len(found) == 5 * 2 * len(LORA_TARGETS)
    for path, layer in found.items():
        rank = (6, 4, 2)[stage_of(path)]
        assert (layer.r["default"], layer.lora_A["default"].weight.shape[0]) == (rank, rank), path
        assert layer.lora_alpha["default"] == 2 * rank and layer.scaling["default"] == 2.0
    assert {(path.split(".")[0], stage_of(path)) for path in found} == {
        ("encoder", 0),
        ("encoder", 1),
        ("encoder", 2),
        ("decoder", 0),
        ("decoder", 1),
    }


def test_one_rank_is_that_of_every_layer() -> None:
    network = small_network()
    wanted = set(linear_targets(network))
    found = _layers(_adapted(network, rank=3, alpha=6))
    assert set(found) == wanted and {layer.r["default"] for layer in found.values()} == {3}


def test_some_layers_can_be_chosen() -> None:
    found = _layers(_adapted(small_network(), rank=3, target_modules=["q_space", "mlp.fc1"]))
    assert {path.split(".", 3)[3] for path in found} == {"block.attention.q_space", "block.mlp.fc1"}


@pytest.mark.parametrize("ranks", [["4"], ["4", "3", "2"]])
def test_as_many_ranks_as_resolutions_are_wanted(ranks: list[str]) -> None:
    with pytest.raises(SettingsError, match=f"has {len(ranks)} ranks, and the network works at 2 resolutions") as caught:
        _adapted(small_network(), stage_ranks=ranks)
    assert str(caught.value.hint).startswith("Give 2")


def test_ranks_are_checked_on_a_network_that_has_an_adapter_already() -> None:
    model = _adapted(small_network(), rank=2)
    with pytest.raises(SettingsError, match="at 2 resolutions"):
        FAMILY.adapter_form(model, image_settings(model__id="base", lora__stage_ranks=["4"]))


# Cost ------------------------------------------------------------------------------------------------------------------


def _meta(config: DiffiTConfig) -> DiffiT:
    with torch.device("meta"):
        return DiffiT(config)


def _conv(before: int, after: int, side: int) -> int:
    return 2 * 9 * before * after * side * side


def _cell(width: int, side: int, *, time: int, window: int) -> int:
    """Convolution; q, k, v and out; MLP with four times the width and back; the time token's three; QKᵀ and its product with V."""
    positions = side * side
    linear = positions * (4 * width * width + 2 * 4 * width * width) + 3 * time * width
    attention = 2 * positions * window * window * width
    return _conv(width, width, side) + 2 * (linear + attention)


def _by_hand(width: int, time: int, window: int) -> int:
    """The forward pass of one 8×8 RGB image through two stages of equal width and one cell each."""
    cell = {side: _cell(width, side, time=time, window=window) for side in (8, 4)}
    ends = _conv(3, width, 8) + _conv(width, 3, 8)
    between = _conv(width, width, 4) + _conv(width, width, 8)
    return 2 * cell[8] + cell[4] + ends + between + 2 * 2 * time * time


@pytest.mark.parametrize(("width", "time", "window"), [(8, 8, 2), (16, 12, 4)])
def test_operations_of_an_image_by_hand(width: int, time: int, window: int) -> None:
    model = _meta(small_config(widths=(width, width), time_width=time, window=window))
    found = FAMILY.cost(model, image_settings(), DATA)
    assert found.flops == pytest.approx(3 * _by_hand(width, time, window), rel=0.02)


def test_frozen_weights_save_a_third_and_the_adapter_adds_its_own() -> None:
    with torch.device("meta"):
        model = _adapted(DiffiT(small_config()).requires_grad_(False), rank=2, alpha=4)
    found = FAMILY.cost(model, image_settings(model__id="base"), DATA).flops
    base = 2 * _by_hand(8, 8, 2)
    assert base < found < 1.5 * base


def test_a_network_that_is_told_classes_costs_no_less() -> None:
    plain, told = (FAMILY.cost(_meta(small_config(classes=classes)), image_settings(), DATA) for classes in (0, 5))
    assert told.flops >= plain.flops > 0 and told.kept_bytes > 0


def test_what_is_kept_grows_with_the_batch_up_to_the_data() -> None:
    def kept(batch: int) -> float:
        return FAMILY.cost(_meta(small_config()), image_settings(training__batch_size=batch), DATA).kept_bytes

    assert kept(1) > 0
    assert [kept(batch) for batch in (2, 5, 10, 64)] == [kept(1) * images for images in (2, 5, 10, 10)]


def test_what_is_kept_is_what_another_image_takes() -> None:
    """Each memory once, and no weights, which layers keep as well: they are there anyway."""
    network = small_network(widths=(16, 16))
    weights = {tensor.untyped_storage().data_ptr() for tensor in [*network.parameters(), *network.buffers()]}

    def held(count: int) -> int:
        memory: dict[int, int] = {}

        def keep(tensor: torch.Tensor) -> torch.Tensor:
            storage = tensor.untyped_storage()
            if not isinstance(tensor, nn.Parameter) and storage.data_ptr() not in weights:
                memory[storage.data_ptr()] = storage.nbytes()
            return tensor

        with saved_tensors_hooks(keep, lambda tensor: tensor):
            network(torch.zeros(count, 3, 8, 8), torch.zeros(count))
        return sum(memory.values())

    settings = image_settings(training__batch_size=1)
    found = FAMILY.cost(_meta(network.config), settings, DATA).kept_bytes
    assert found == pytest.approx(held(5) - held(4), rel=0.03)
