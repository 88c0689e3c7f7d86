"""Copies of the training state in buffers that are used again and again, for a writer that takes its time.

Copying is all that a save costs the training: laying out, hashing, writing and syncing happen on the copy. The buffer of a
tensor file *is* the safetensors file, so that writing it copies nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import safetensors.torch
import torch

from pitstop.checkpointing import state
from pitstop.checkpointing.storage import FileContent

_HEADER_LENGTH_BYTES = 8  # a little-endian integer before the header (safetensors format)


class TensorFile:
    """One safetensors file in memory, laid out by the library once and refilled in place.

    ``pinned`` keeps it in page-locked memory, from and to which a CUDA device copies without waiting for the processor.
    """

    def __init__(self, *, pinned: bool = False) -> None:
        self._pinned = pinned
        self._shapes: dict[str, tuple[torch.dtype, torch.Size]] | None = None
        self._buffer = torch.empty(0, dtype=torch.uint8)
        self._views: dict[str, torch.Tensor] = {}

    def fill(self, tensors: Mapping[str, torch.Tensor]) -> memoryview:
        """The bytes of the file with ``tensors``, valid until the next call.

        On CUDA the copies may still be under way when this returns: wait for the stream before reading them.
        """
        shapes = {name: (tensor.dtype, tensor.shape) for name, tensor in tensors.items()}
        if shapes != self._shapes:
            self._lay_out(tensors)
            self._shapes = shapes
        else:
            for name, view in self._views.items():
                view.copy_(tensors[name].detach(), non_blocking=self._pinned)
        return memoryview(self._buffer.numpy())

    def _lay_out(self, tensors: Mapping[str, torch.Tensor]) -> None:
        copies = {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in sorted(tensors.items())}
        data = safetensors.torch.save(copies, metadata={"format": "pt"})
        self._buffer = torch.empty(len(data), dtype=torch.uint8, pin_memory=self._pinned)
        self._buffer.copy_(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        start = _HEADER_LENGTH_BYTES + int.from_bytes(data[:_HEADER_LENGTH_BYTES], "little")
        header = json.loads(data[_HEADER_LENGTH_BYTES:start])
        self._views = {}
        for name, tensor in tensors.items():
            begin, end = header[name]["data_offsets"]
            self._views[name] = self._buffer[start + begin : start + end].view(tensor.dtype).view(tensor.shape)


@dataclass(frozen=True)
class Snapshot:
    """The state of one moment. ``tensors`` are whole files, ``values`` are to become JSON files."""

    tensors: Mapping[str, memoryview]
    values: Mapping[str, Any]
    wait: Callable[[], None] = lambda: None

    def files(self) -> dict[str, FileContent]:
        """What a checkpoint is written from; waits for copies that a device still makes. For the writer's thread."""
        self.wait()
        return {**self.tensors, **{name: state.to_json(value) for name, value in self.values.items()}}


class AdapterBuffer:
    """Takes snapshots of the adapter of a ``PeftModel``; each one overwrites the last."""

    def __init__(self, model: Any, *, pinned: bool = False) -> None:
        self._model = model
        self._file = TensorFile(pinned=pinned)
        self._named: dict[str, torch.Tensor] = {}

    def take(self) -> Snapshot:
        """Copy the weights as they are now."""
        weights = self._file.fill(self._tensors())
        return Snapshot({state.ADAPTER_WEIGHTS: weights}, {state.ADAPTER_CONFIG: state.adapter_config(self._model)})

    def _tensors(self) -> dict[str, torch.Tensor]:
        # PEFT takes 50 ms to name the tensors of a small model. The names stay as long as the memory behind them does.
        addresses = {parameter.data_ptr() for parameter in self._model.parameters() if parameter.requires_grad}
        if {tensor.data_ptr() for tensor in self._named.values()} != addresses:
            self._named = state.adapter_tensors(self._model)
        return self._named


class OptimizerBuffer:
    """Takes snapshots of an optimizer; each one overwrites the last. ``names`` maps ``id(parameter)`` to its name."""

    def __init__(self, optimizer: torch.optim.Optimizer, names: Mapping[int, str], *, pinned: bool = False) -> None:
        self._optimizer, self._names = optimizer, names
        self._file = TensorFile(pinned=pinned)

    def take(self) -> Snapshot:
        """Copy the optimizer's state as it is now."""
        moments, meta = state.optimizer_parts(self._optimizer, self._names)
        return Snapshot({state.OPTIMIZER: self._file.fill(moments)}, {state.OPTIMIZER_META: meta})


class StateBuffers:
    """Takes snapshots of adapter and optimizer together; each one overwrites the last."""

    def __init__(self, model: Any, optimizer: torch.optim.Optimizer, names: Mapping[int, str], device: torch.device) -> None:
        self._on_cuda = device.type == "cuda"
        self._adapter = AdapterBuffer(model, pinned=self._on_cuda)
        self._optimizer = OptimizerBuffer(optimizer, names, pinned=self._on_cuda)

    def take(self) -> Snapshot:
        """Copy the state as it is now; training may change it as soon as this returns."""
        adapter, optimizer = self._adapter.take(), self._optimizer.take()
        return Snapshot({**adapter.tensors, **optimizer.tensors}, {**adapter.values, **optimizer.values}, self._when_copied())

    def _when_copied(self) -> Callable[[], None]:
        if not self._on_cuda:
            return lambda: None
        copied = torch.cuda.Event()  # what training does next on this stream runs after the copies, so it need not wait
        copied.record()
        return copied.synchronize
