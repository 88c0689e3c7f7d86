"""A whole model in files: the names and bytes that transformers writes, its shards, and what a load must give back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.state import state
from pitstop.checkpointing.state.snapshot import ModelBuffer
from pitstop.checkpointing.store import file_sets
from pitstop.configs.errors import CheckpointError, ModelError, SettingsError
from pitstop.configs.schema import Settings, TrainingSettings
from pitstop.trainers.loop.sizing import advice
from pitstop.trainers.machine.disk import checkpoint_bytes
from pitstop.trainers.models.base import BaseRecipe
from pitstop.trainers.models.causal_lm import CausalLM
from pitstop.trainers.models.source import ModelSource
from pitstop.trainers.models.trained import WholeModel, parameter_counts
from pitstop.trainers.training.planning import Sizes, trained_bytes

CPU = torch.device("cpu")
RECIPE = BaseRecipe(quantised=False, quant_type="nf4", double_quant=True, compute=torch.float32)


@pytest.fixture
def model(tiny: Path) -> Any:
    return CausalLM().load(tiny, RECIPE, CPU, stored=False, flash=False, frozen=False)


@pytest.fixture
def written(model: Any, tokenizer: Any, tmp_path: Path) -> Path:
    """A directory with the model in shards, its descriptions and an average of zeros, as a committed checkpoint has them."""
    directory = tmp_path / "checkpoint-1"
    directory.mkdir()
    buffer = ModelBuffer(lambda: CausalLM().tensors(model), CausalLM().descriptions(model, tokenizer), shard_bytes=200_000)
    for name, content in buffer.take().files().items():
        (directory / name).write_bytes(content)  # type: ignore[arg-type]
    zeros = {name: torch.zeros_like(tensor) for name, tensor in CausalLM().tensors(model).items()}
    safetensors.torch.save_file(zeros, directory / file_sets.EMA, metadata={"format": "pt"})
    (directory / layout.MANIFEST).write_text("{}")
    return directory


def test_all_parameters_are_trained_in_float32_and_the_files_are_those_of_save_pretrained(
    model: Any, tokenizer: Any, written: Path, tmp_path: Path
) -> None:
    assert parameter_counts(model) == (sum(p.numel() for p in model.parameters()),) * 2
    assert {p.dtype for p in model.parameters()} == {torch.float32} and all(p.requires_grad for p in model.parameters())
    plain = tmp_path / "plain"
    model.save_pretrained(plain, max_shard_size=200_000)
    tokenizer.save_pretrained(plain)
    wanted = {path.name for path in plain.iterdir()}
    assert wanted == {path.name for path in written.iterdir()} - {file_sets.EMA, layout.MANIFEST}
    for path in plain.glob("*.safetensors"):
        one, other = safetensors.torch.load_file(path), safetensors.torch.load_file(written / path.name)
        assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
    indices = [json.loads((each / file_sets.WEIGHTS_INDEX).read_text()) for each in (plain, written)]
    assert indices[0] == indices[1]


def test_a_run_that_starts_from_a_checkpoint_has_its_average_and_one_that_resumes_it_its_weights(
    written: Path, model: Any
) -> None:
    for stored in (False, True):
        loaded = CausalLM().load(written, RECIPE, CPU, stored=stored, flash=False, frozen=False)
        weight = loaded.model.embed_tokens.weight
        assert torch.equal(weight, model.model.embed_tokens.weight) is stored and bool((weight == 0).all()) is not stored


def test_a_restore_compares_every_bit(written: Path, tokenizer: Any) -> None:
    loaded: Any = CausalLM().load(written, RECIPE, CPU, stored=True, flash=False, frozen=False)
    whole = WholeModel(loaded, CausalLM(), {}, 1)
    whole.restore(written)
    with torch.no_grad():
        loaded.lm_head.weight[0, 0] = torch.nextafter(loaded.lm_head.weight[0, 0], torch.tensor(9.0))
    with pytest.raises(CheckpointError, match=r"lm_head\.weight did not come back"):
        whole.restore(written)
    for path in written.glob("model-*"):
        path.rename(path.with_suffix(".gone"))
    (written / "model-00001-of-00001.safetensors").write_bytes(safetensors.torch.save({"lm_head.weight": loaded.lm_head.weight}))
    with pytest.raises(CheckpointError, match="is missing"):
        whole.restore(written)


def test_a_tokenizer_with_files_of_its_own_is_refused_at_the_start(model: Any, tokenizer: Any) -> None:
    save = tokenizer.save_pretrained
    tokenizer.save_pretrained = lambda where: (save(where), (Path(where) / "special.txt").write_text("x"))
    with pytest.raises(ModelError, match=r"special\.txt"):
        CausalLM().descriptions(model, tokenizer)


class Merging(CausalLM):
    """An architecture whose file holds another form of a weight."""

    def tensors(self, model: Any) -> Mapping[str, torch.Tensor]:
        return {name: tensor * 1 if name == "lm_head.weight" else tensor for name, tensor in super().tensors(model).items()}


def test_an_average_is_refused_where_it_could_not_be_put_back(model: Any) -> None:
    WholeModel(model, CausalLM(), {}, 1).check_averaged()
    with pytest.raises(SettingsError, match=r"lm_head\.weight"):
        WholeModel(model, Merging(), {}, 1).check_averaged()


def test_an_average_that_does_not_fit_changes_nothing(written: Path, model: Any) -> None:
    live = dict(CausalLM().tensors(model))
    before = {name: tensor.clone() for name, tensor in live.items()}
    state_of = safetensors.torch.load_file(written / file_sets.EMA)
    del state_of["lm_head.weight"]
    safetensors.torch.save_file(state_of, written / file_sets.EMA)
    with pytest.raises(CheckpointError, match=r"lm_head\.weight is missing"):
        state.load_average(live, written)
    assert all(torch.equal(live[name], before[name]) for name in live)


def test_what_full_training_needs_is_counted_by_the_parameter(tiny: Path) -> None:
    """Weight 4, gradient 4, moments 8, 16-bit copy 2, and on a CPU weight and moments once more in the save's buffers."""
    settings = Settings(training=TrainingSettings(method="full"))
    sizes = Sizes.of(CausalLM().without_weights(ModelSource("tiny", tiny, None)), settings)
    assert sizes.base_bytes == 0 and sizes.total == sizes.trainable
    assert trained_bytes(settings, sizes, CPU) == sizes.trainable * (4 + 4 + 8 + 2 + 12)
    assert trained_bytes(settings, sizes, torch.device("cuda")) == sizes.trainable * (4 + 4 + 8 + 2)
    assert checkpoint_bytes(1_000_000, "adamw") == 12_000_000 + (1 << 20)
    assert checkpoint_bytes(1_000_000, "adamw", average=True) == 16_000_000 + (1 << 20)
    assert "--method lora" in advice(settings) and "--method qlora" not in advice(settings)
