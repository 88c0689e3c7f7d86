"""Snapshots in reused buffers: the library's own file, byte for byte, and untouched by what training does next."""

from __future__ import annotations

import random
import threading
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.state import state
from pitstop.checkpointing.state.snapshot import AdapterBuffer, OptimizerBuffer, StateBuffers, TensorFile, shards
from pitstop.configs.schema import LoraSettings, TrainingSettings
from pitstop.trainers.loop.optim import build_optimizer, trainable
from pitstop.trainers.models.adapter import add_adapter

CPU = torch.device("cpu")


def _by_library(tensors: dict[str, torch.Tensor]) -> bytes:
    return safetensors.torch.save({name: t.clone().contiguous() for name, t in tensors.items()}, metadata={"format": "pt"})


def _tensors(seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    return {
        "odd": torch.randint(0, 255, (3, 5), dtype=torch.uint8),
        "scalar": torch.rand(()),
        "half": torch.rand(7, 3).to(torch.bfloat16),
        "empty": torch.rand(0, 4),
        "double": torch.rand(2, 2, dtype=torch.float64),
        "strided": torch.rand(6, 4).t(),
        "flag": torch.tensor([True, False, True]),
        "whole": torch.arange(5),
    }


def test_a_refilled_file_is_what_the_library_would_write() -> None:
    file = TensorFile()
    for seed in range(4):
        assert bytes(file.fill(_tensors(seed))) == _by_library(_tensors(seed))


def test_the_buffer_is_used_again_and_laid_out_anew_only_for_other_tensors() -> None:
    file = TensorFile()
    addresses = []
    for seed in range(3):
        file.fill(_tensors(seed))
        addresses.append(file._buffer.data_ptr())
    assert len(set(addresses)) == 1
    other = {**_tensors(9), "more": torch.rand(2)}
    assert bytes(file.fill(other)) == _by_library(other)
    fewer = {"scalar": torch.rand((), dtype=torch.float64)}
    assert bytes(file.fill(fewer)) == _by_library(fewer)


def test_a_file_without_tensors_is_a_file() -> None:
    assert safetensors.torch.load(bytes(TensorFile().fill({}))) == {}


def test_tensors_that_share_memory_are_each_saved() -> None:
    shared = torch.rand(4)
    file = TensorFile()
    for _ in range(2):
        loaded = safetensors.torch.load(bytes(file.fill({"a": shared, "b": shared})))
        assert torch.equal(loaded["a"], shared) and torch.equal(loaded["b"], shared)
        shared += 1


def _model() -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    sizes = {"vocab_size": 32, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    options = {"rank": 4, "alpha": 8, "target_modules": ["all-linear"]}
    return add_adapter(LlamaForCausalLM(LlamaConfig(**sizes)), LoraSettings(**options), seed=1, model_id="owner/name")


class Training:
    """A model and an optimizer that change with each step."""

    def __init__(self, optimizer: str = "adamw") -> None:
        self.model = _model()
        self.optimizer = build_optimizer(trainable(self.model), TrainingSettings(optimizer=optimizer), CPU)
        self.names = {id(p): name for name, p in trainable(self.model).items()}

    def step(self) -> None:
        for parameter in trainable(self.model).values():
            parameter.grad = torch.rand_like(parameter)
        self.optimizer.step()

    def reference(self) -> dict[str, bytes]:
        """The state now, by buffers of its own."""
        fresh = StateBuffers(AdapterBuffer(self.model), self.optimizer, self.names, CPU).take()
        return {name: bytes(content) for name, content in fresh.files().items()}  # type: ignore[arg-type]


@pytest.mark.parametrize("optimizer", ["adamw", "adamw_8bit"])
def test_training_that_goes_on_does_not_reach_into_a_snapshot(optimizer: str) -> None:
    training = Training(optimizer)
    buffers = StateBuffers(AdapterBuffer(training.model), training.optimizer, training.names, CPU)
    for _ in range(3):
        training.step()
        expected, snapshot = training.reference(), buffers.take()
        for _ in range(2):
            training.step()
        assert {name: bytes(content) for name, content in snapshot.files().items()} == expected  # type: ignore[arg-type]


def test_names_are_asked_for_once_and_again_when_the_weights_move(monkeypatch: pytest.MonkeyPatch) -> None:
    model = _model()
    buffer, asked = AdapterBuffer(model), []
    real = state.adapter_tensors
    monkeypatch.setattr(state, "adapter_tensors", lambda model: asked.append(1) or real(model))
    for _ in range(3):
        buffer.take()
    assert len(asked) == 1
    for parameter in trainable(model).values():
        parameter.data = parameter.data.clone() + 1
    taken = bytes(buffer.take().tensors[layout.ADAPTER_WEIGHTS])
    assert len(asked) == 2
    assert taken == bytes(AdapterBuffer(model).take().tensors[layout.ADAPTER_WEIGHTS])


def test_the_optimizers_groups_and_counters_are_copies() -> None:
    training = Training("adamw_8bit")
    training.step()
    taken = OptimizerBuffer(training.optimizer, training.names).take()
    before = taken.files()[layout.OPTIMIZER_META]
    training.step()
    training.optimizer.param_groups[0]["lr"] = 0.5
    assert taken.files()[layout.OPTIMIZER_META] == before


@pytest.mark.faults
def test_state_mutated_while_it_is_written_is_saved_as_it_was(matrix: Any) -> None:
    """A thread writes piece by piece while the training goes on as fast as it can."""
    row = matrix("state mutated while an async save writes")
    training = Training()
    training.step()
    buffers = StateBuffers(AdapterBuffer(training.model), training.optimizer, training.names, CPU)
    rng = random.Random(3)
    for _ in range(row.count):
        expected, snapshot, written = training.reference(), buffers.take(), {}

        def write(snapshot: Any = snapshot, written: dict[str, bytes] = written) -> None:
            for name, content in snapshot.files().items():
                view, copy = memoryview(content), bytearray()
                for start in range(0, len(view), 1024):
                    copy += view[start : start + 1024]
                written[name] = bytes(copy)

        writer = threading.Thread(target=write)
        writer.start()
        with row.trial():
            for _ in range(rng.randrange(1, 6)):
                training.step()
            writer.join()
            assert written == expected


def test_a_vector_of_parameters_has_no_moments_before_the_first_step() -> None:
    parameter = nn.Parameter(torch.zeros(3))
    optimizer = torch.optim.AdamW([parameter])
    files = OptimizerBuffer(optimizer, {id(parameter): "p"}).take().files()
    assert safetensors.torch.load(bytes(files[layout.OPTIMIZER])) == {}  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("sizes", "limit", "files"),
    [
        ({"a": 4, "b": 4}, 8, {"model.safetensors": ["a", "b"]}),
        ({"a": 4, "b": 5}, 8, {"model-00001-of-00002.safetensors": ["a"], "model-00002-of-00002.safetensors": ["b"]}),
        ({"a": 99, "b": 1}, 8, {"model-00001-of-00002.safetensors": ["a"], "model-00002-of-00002.safetensors": ["b"]}),
    ],
)
def test_tensors_go_into_as_few_files_as_their_order_allows(
    sizes: dict[str, int], limit: int, files: dict[str, list[str]]
) -> None:
    assert shards(sizes, limit) == files
