from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pitstop.checkpointing.state import weights
from pitstop.configs.errors import CheckpointError, ModelError


class Tied(torch.nn.Module):
    """Two names for one matrix, a buffer, and a part that may be frozen."""

    def __init__(self, width: int = 3, *, frozen: bool = False) -> None:
        super().__init__()
        self.first = torch.nn.Linear(width, width)
        self.second = torch.nn.Linear(width, width)
        self.second.weight = self.first.weight
        self.norm = torch.nn.BatchNorm1d(width)
        self.norm.requires_grad_(not frozen)


def written(directory: Path, taken: weights.Weights) -> Path:
    for name, content in taken.files.items():
        (directory / name).write_bytes(content)  # type: ignore[arg-type]
    return directory


def test_a_whole_model_comes_back_with_each_memory_saved_once(tmp_path: Path) -> None:
    model = Tied()
    taken = weights.take(model, base_saved=False)
    assert (taken.kind, taken.aliases) == (weights.FULL, {"second.weight": "first.weight"})
    other = Tied()
    weights.load(other, written(tmp_path, taken), taken.description())
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in model.state_dict().items())
    assert other.second.weight is other.first.weight


def test_beside_a_saved_base_only_what_changes_is_saved(tmp_path: Path) -> None:
    model = Tied(frozen=True)
    assert weights.take(model, base_saved=False).kind == weights.FULL
    taken = weights.take(model, base_saved=True)
    assert taken.kind == weights.TRAINED
    read = weights.read(written(tmp_path, taken), taken.description())
    assert {"norm.weight", "norm.bias"}.isdisjoint(read) and {"first.weight", "second.weight", "norm.running_mean"} <= read.keys()
    weights.load(Tied(frozen=True), tmp_path, taken.description())
    with pytest.raises(CheckpointError, match=r"norm\.bias is missing"):
        weights.load(Tied(), tmp_path, taken.description())


def test_weights_of_another_shape_change_nothing(tmp_path: Path) -> None:
    taken = weights.take(Tied(), base_saved=False)
    other = Tied(4)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    with pytest.raises(
        CheckpointError, match=r"does not fit the model: first\.bias is torch\.float32 \(3,\), wanted torch\.float32 \(4,\)"
    ):
        weights.load(other, written(tmp_path, taken), taken.description())
    assert all(torch.equal(tensor, other.state_dict()[name]) for name, tensor in before.items())


def test_an_alias_of_nothing_and_a_tensor_without_values_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="b is not in the file with the weights"):
        weights.with_aliases({"a": torch.zeros(1)}, {"c": "b"}, tmp_path)
    with pytest.raises(CheckpointError, match="w is on no device, sparse or sharded"):
        weights.to_safetensors({"w": torch.zeros(2, device="meta")})
    with pytest.raises(CheckpointError, match=r"w is torch\.complex64, which checkpoints do not hold"):
        weights.to_safetensors({"w": torch.zeros(2, dtype=torch.complex64)})


def test_tensors_that_overlap_without_being_the_same_are_two() -> None:
    whole = torch.arange(4.0)
    distinct, aliases = weights.without_aliases(
        {"a": whole, "b": whole[:2], "c": whole, "d": torch.zeros(0), "e": torch.zeros(0)}
    )
    assert (list(distinct), aliases) == (["a", "b", "d", "e"], {"c": "a"})


def test_a_base_is_what_is_frozen_and_its_digest_that_of_its_bytes() -> None:
    model = Tied(frozen=True)
    base = weights.base_of(model)
    assert {"norm.weight", "norm.bias"} <= base.tensors.keys() and "first.weight" not in base.tensors
    frozen, digest = base.frozen_digest(), base.digest()
    model.norm(torch.ones(2, 3))  # moves the running mean, which is no part of what cannot change
    assert weights.base_of(model).frozen_digest() == frozen
    assert weights.base_of(model).digest() != digest
    with torch.no_grad():
        model.norm.weight += 1
    assert weights.base_of(model).frozen_digest() != frozen
    with pytest.raises(ModelError, match="no parameters or buffers"):
        weights.base_of(torch.nn.ReLU())


def test_wrappers_are_taken_off() -> None:
    model = Tied()
    wrapper = torch.nn.Module()
    wrapper._orig_mod = torch.nn.DataParallel(model)
    assert weights.unwrapped(wrapper) is model
    assert weights.unwrapped(model) is model and not weights.is_peft(model)
