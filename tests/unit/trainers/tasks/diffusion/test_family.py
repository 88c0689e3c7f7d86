"""DiffiT networks on disk: saved and read back bit for bit, made anew from a seed, and refused where files do not fit;
adapters by resolution, and what a step is expected to take.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.store import file_sets
from pitstop.configs.errors import CheckpointError, ModelError, SettingsError
from pitstop.trainers.data.images.data import ImageData
from pitstop.trainers.models.adapter import add_adapter
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.tasks.diffusion.config import DiffiTConfig, named_size
from pitstop.trainers.tasks.diffusion.family import LORA_TARGETS, DiffiTFamily, read_config
from pitstop.trainers.tasks.diffusion.model import DiffiT
from support.image_models import SMALL, image_settings, linear_targets, numbered_images, small_config, small_network, stage_of

CPU = torch.device("cpu")
FAMILY = DiffiTFamily()
DATA = ImageData(numbered_images([0] * 10, ["a"]))
RECIPE = BaseRecipe(quantised=False, quant_type="nf4", double_quant=False, compute=torch.bfloat16)


def _load(path: Path, *, stored: bool = False, frozen: bool = False) -> Any:
    return FAMILY.load(path, RECIPE, CPU, stored=stored, flash=False, frozen=frozen)


def _same(one: nn.Module, other: nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return list(first) == list(second) and all(torch.equal(first[name], second[name]) for name in first)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A directory with the small network."""
    FAMILY.save(small_network(1), None, tmp_path / "model")
    return tmp_path / "model"


def _weights(path: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(path / file_sets.WEIGHTS)


def _write(path: Path, weights: dict[str, torch.Tensor], name: str = file_sets.WEIGHTS) -> None:
    safetensors.torch.save_file(weights, path / name, metadata={"format": "pt"})


@pytest.mark.parametrize("stored", [True, False])
@pytest.mark.parametrize("classes", [0, 3])
def test_a_network_comes_back_bit_for_bit(tmp_path: Path, classes: int, stored: bool) -> None:
    network = small_network(1, classes=classes, sigma_data=0.3)
    FAMILY.save(network, None, tmp_path / "a" / "model")
    assert sorted(path.name for path in (tmp_path / "a" / "model").iterdir()) == ["config.json", "model.safetensors"]
    loaded = _load(tmp_path / "a" / "model", stored=stored)
    assert loaded.config == network.config and _same(loaded, network)
    assert all(tensor.dtype == torch.float32 for tensor in loaded.state_dict().values())


@pytest.mark.parametrize("frozen", [True, False])
def test_a_base_of_adapters_is_frozen_and_what_is_trained_is_not(saved: Path, frozen: bool) -> None:
    assert {parameter.requires_grad for parameter in _load(saved, frozen=frozen).parameters()} == {not frozen}


def test_the_files_of_a_checkpoint_are_those_that_saving_writes(saved: Path) -> None:
    network = small_network(1)
    assert FAMILY.descriptions(network, None) == {"config.json": (saved / "config.json").read_bytes()}
    assert DiffiTConfig.from_json(json.loads((saved / "config.json").read_bytes())) == network.config
    live = FAMILY.tensors(network)
    assert live.keys() == _weights(saved).keys()
    assert live["conv_in.weight"].data_ptr() == network.conv_in.weight.data_ptr()


def test_reading_does_not_disturb_training_s_generator(saved: Path) -> None:
    before = torch.get_rng_state()
    _load(saved)
    assert torch.equal(torch.get_rng_state(), before)


def test_of_a_checkpoint_with_an_average_another_run_starts_from_that(saved: Path) -> None:
    average = {name: tensor + 1 for name, tensor in _weights(saved).items()}
    _write(saved, average, file_sets.EMA)
    assert torch.equal(_load(saved).state_dict()["conv_in.bias"], _weights(saved)["conv_in.bias"])  # no checkpoint yet
    (saved / layout.MANIFEST).write_text("{}")
    assert torch.equal(_load(saved).state_dict()["conv_in.bias"], average["conv_in.bias"])
    assert torch.equal(_load(saved, stored=True).state_dict()["conv_in.bias"], _weights(saved)["conv_in.bias"])


def _renamed(path: Path) -> None:
    weights = _weights(path)
    weights["another.weight"] = weights.pop("conv_out.weight")
    _write(path, weights)


def _turned(path: Path) -> None:
    weights = _weights(path)
    weights["conv_out.weight"] = weights["conv_out.weight"].transpose(0, 1).contiguous()
    _write(path, weights)


def _one_short(path: Path) -> None:
    weights = _weights(path)
    del weights["conv_out.bias"]
    _write(path, weights)


def _truncated(path: Path) -> None:
    content = (path / file_sets.WEIGHTS).read_bytes()
    (path / file_sets.WEIGHTS).write_bytes(content[: len(content) // 2])


def _garbage(path: Path) -> None:
    (path / file_sets.WEIGHTS).write_bytes(b"\x80\x04pickle" * 9)


def _missing(path: Path) -> None:
    (path / file_sets.WEIGHTS).unlink()


@pytest.mark.parametrize("damage", [_renamed, _turned, _one_short, _truncated, _garbage, _missing])
def test_weights_that_are_not_what_the_configuration_says_are_refused(saved: Path, damage: Callable[[Path], None]) -> None:
    damage(saved)
    with pytest.raises(ModelError) as caught:
        _load(saved)
    assert str(saved) in caught.value.message and caught.value.hint
    with pytest.raises(ModelError):
        _load(saved, stored=True, frozen=True)


@pytest.mark.parametrize("damage", [_renamed, _turned, _one_short, _truncated, _garbage, _missing])
def test_plan_refuses_them_by_their_headers(saved: Path, damage: Callable[[Path], None]) -> None:
    source = ModelSource("small", saved, None)
    assert {parameter.device.type for parameter in FAMILY.check(source, pytest.fail).parameters()} == {"meta"}
    damage(saved)
    with pytest.raises(ModelError):
        FAMILY.check(source, pytest.fail)


@pytest.mark.parametrize("damage", [_one_short, _truncated, _garbage, _missing])
def test_in_a_checkpoint_of_a_base_training_that_is_damage(saved: Path, damage: Callable[[Path], None]) -> None:
    damage(saved)
    with pytest.raises(CheckpointError):
        _load(saved, stored=True)


def test_a_model_whose_files_are_links_is_read_as_in_the_hub_s_cache(saved: Path, tmp_path: Path) -> None:
    (tmp_path / "snapshot").mkdir()
    for path in saved.iterdir():
        (tmp_path / "snapshot" / path.name).symlink_to(path)
    assert _same(_load(tmp_path / "snapshot"), small_network(1))
    assert read_config(ModelSource("m", tmp_path / "snapshot", None)) == small_config()


def test_another_size_of_the_network_is_refused_before_memory_is_taken(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = {**json.loads((saved / "config.json").read_text()), "widths": [2048] * 2}
    (saved / "config.json").write_text(json.dumps(content))
    made: list[Any] = []
    monkeypatch.setattr("pitstop.checkpointing.state.state.read_tensors", made.append)
    with pytest.raises(ModelError, match="numbers"):
        _load(saved)
    assert not made


HOSTILE = {
    "nothing": "",
    "no JSON": "{widths: 8}",
    "a list": "[]",
    "of another kind": '{"model_type": "llama"}',
    "of no kind": '{"image_size": 8}',
    "code": '{"model_type": "diffit", "auto_map": {"AutoModel": "evil.Model"}}',
    "no number": '{"model_type": "diffit", "sigma_data": NaN}',
    "endless": '{"model_type": "diffit", "sigma_data": Infinity}',
    "large": '{"model_type": "diffit", "image_size": 4096000}',
    "wide": '{"model_type": "diffit", "widths": [4096, 4096, 4096, 4096, 4096, 4096], "blocks": 64}',
    "a text": '{"model_type": "diffit", "blocks": "2"}',
    "true": '{"model_type": "diffit", "heads": true}',
    "negative": '{"model_type": "diffit", "widths": [-8]}',
    "nested": '{"model_type": "diffit", "widths": [[8]]}',
    "deep": "[" * 100_000,
    "not UTF-8": b'{"model_type": "diffit\xff"}',
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
def test_a_configuration_that_describes_no_network_is_refused(saved: Path, content: str | bytes) -> None:
    path = saved / "config.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for use in (lambda: _load(saved), lambda: read_config(ModelSource("m", saved, None)), lambda: _load(saved, stored=True)):
        with pytest.raises(ModelError, match="describes no DiffiT network") as caught:
            use()
        assert str(path) in caught.value.message and "diffit-cpu" in str(caught.value.hint)


def test_a_model_is_looked_at_when_it_is_found(saved: Path) -> None:
    settings = image_settings(model__id=str(saved))
    assert FAMILY.find(settings, None).path == saved.resolve()
    (saved / "config.json").write_text('{"model_type": "llama", "hidden_size": 8}')
    with pytest.raises(ModelError, match="describes no DiffiT network"):
        FAMILY.find(settings, None)


def test_a_directory_without_a_configuration_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        _load(tmp_path)
    (tmp_path / "config.json").mkdir()
    with pytest.raises(ModelError, match=r"config\.json cannot be read"):
        _load(tmp_path)


# From scratch ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """The small network's configuration."""
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"model_type": "diffit", **SMALL}))
    return path


def _from_scratch(config: object, **flags: Any) -> ModelSource:
    return FAMILY.find(image_settings(model__config=str(config), **flags), None)


def test_a_size_is_found_by_name_and_a_file_by_path(config: Path) -> None:
    source = _from_scratch(config)
    assert source.config == config.resolve() and FAMILY.tokenizer(source) == small_config()
    for name, found in (("diffit-cpu", _from_scratch("diffit-cpu")), ("diffit-cifar-l2", FAMILY.find(image_settings(), None))):
        size = named_size(name)
        assert size is not None and found.config == size.resolve()


@pytest.mark.parametrize("wanted", ["diffit-huge", "nothing/config.json", "."])
def test_a_configuration_that_is_not_there_is_refused_with_the_sizes_that_are(wanted: str) -> None:
    with pytest.raises(ModelError, match="no such file, and no size of DiffiT") as caught:
        _from_scratch(wanted)
    assert "diffit-cifar-l4" in str(caught.value.hint)


def test_a_bad_configuration_is_refused_when_it_is_found(config: Path) -> None:
    config.write_text('{"model_type": "diffit", "widths": []}')
    with pytest.raises(ModelError, match="describes no DiffiT network: widths"):
        _from_scratch(config)


def test_weights_follow_from_the_seed_whatever_was_drawn_before(config: Path) -> None:
    source = _from_scratch(config)
    first = FAMILY.initialise(source, 3, CPU, flash=False)
    torch.rand(5)
    torch.manual_seed(99)
    assert _same(FAMILY.initialise(source, 3, CPU, flash=False), first)
    assert not _same(FAMILY.initialise(source, 4, CPU, flash=False), first)
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in first.parameters())


def test_classes_that_a_network_is_told_of_are_part_of_what_it_is(config: Path) -> None:
    plain, told = _from_scratch(config), _from_scratch(config, diffusion__conditional_classes=5)
    assert (plain.classes, told.classes) == (None, 5)
    assert FAMILY.tokenizer(plain).classes == 0 and FAMILY.tokenizer(told).classes == 5
    network: Any = FAMILY.initialise(told, 1, CPU, flash=False)
    assert network.class_embedding.weight.shape == (5, 8)
    others = (plain, _from_scratch(config, diffusion__conditional_classes=6), _from_scratch(config, training__seed=1))
    assert len({source.digest({}) for source in (told, *others)}) == 4
    assert told.digest({}) == _from_scratch(config, diffusion__conditional_classes=5).digest({})


def test_a_configuration_s_own_classes_stay_where_no_others_are_asked_for(config: Path) -> None:
    config.write_text(json.dumps({"model_type": "diffit", **SMALL, "classes": 7}))
    assert FAMILY.tokenizer(_from_scratch(config)).classes == 7


def test_parameters_are_counted_without_memory(config: Path) -> None:
    network = FAMILY.without_weights(_from_scratch(config))
    assert {parameter.device.type for parameter in network.parameters()} == {"meta"}
    assert sum(parameter.numel() for parameter in network.parameters()) == small_config().parameters


# Adapters by resolution -----------------------------------------------------------------------------------------------


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
