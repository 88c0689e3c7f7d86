"""Copies of the training state in buffers that are used again and again, for a writer that takes its time.

Copying is all that a save costs the training: laying out, hashing, writing and syncing happen on the copy. The buffer of a
tensor file *is* the safetensors file, so that writing it copies nothing more.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import safetensors.torch
import torch

from pitstop.checkpointing.disk import layout
from pitstop.checkpointing.disk.storage import FileContent
from pitstop.checkpointing.state import state
from pitstop.checkpointing.store import file_sets

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
        """The bytes of the file with ``tensors``, until the next call. On CUDA wait for the stream: it may still copy."""
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


class Buffer(Protocol):
    """Takes snapshots of a part of the state; each one overwrites the last."""

    def take(self) -> Snapshot:
        """Copy the part as it is now."""


class AdapterBuffer:
    """Takes snapshots of the adapter of a ``PeftModel``; each one overwrites the last."""

    def __init__(self, model: Any, *, pinned: bool = False) -> None:
        self._model = model
        self._file = TensorFile(pinned=pinned)
        self._named: dict[str, torch.Tensor] = {}

    def take(self) -> Snapshot:
        """Copy the weights as they are now."""
        weights = self._file.fill(self._tensors())
        return Snapshot({layout.ADAPTER_WEIGHTS: weights}, {layout.ADAPTER_CONFIG: state.adapter_config(self._model)})

    def _tensors(self) -> dict[str, torch.Tensor]:
        # PEFT takes 50 ms to name the tensors of a small model. The names stay as long as the memory behind them does.
        addresses = {parameter.data_ptr() for parameter in self._model.parameters() if parameter.requires_grad}
        if {tensor.data_ptr() for tensor in self._named.values()} != addresses:
            self._named = state.adapter_tensors(self._model)
        return self._named


class ModelBuffer:
    """Takes snapshots of a whole model as transformers lays it out on disk; each one overwrites the last.

    ``tensors`` gives the live tensors by the names that they are saved under, ``files`` are those beside the weights. A model of
    more than ``shard_bytes`` is cut into several files, each of at most that size unless one tensor alone is larger.
    """

    def __init__(
        self,
        tensors: Callable[[], Mapping[str, torch.Tensor]],
        files: Mapping[str, bytes],
        *,
        shard_bytes: int,
        pinned: bool = False,
    ) -> None:
        self._tensors, self._shard_bytes, self._pinned = tensors, shard_bytes, pinned
        self._descriptions = {name: memoryview(content) for name, content in files.items()}
        self._names: dict[str, list[str]] = {}
        self._files: dict[str, TensorFile] = {}

    def take(self) -> Snapshot:
        """Copy the weights as they are now."""
        live = self._tensors()
        if not self._files:
            self._names = shards({name: tensor.nbytes for name, tensor in live.items()}, self._shard_bytes)
            self._files = {file: TensorFile(pinned=self._pinned) for file in self._names}
        weights = {file: buffer.fill({name: live[name] for name in self._names[file]}) for file, buffer in self._files.items()}
        return Snapshot({**weights, **self._descriptions}, self._index(live))

    def _index(self, live: Mapping[str, torch.Tensor]) -> dict[str, Any]:
        if len(self._files) == 1:
            return {}
        sizes = {
            "total_parameters": sum(tensor.numel() for tensor in live.values()),
            "total_size": sum(tensor.nbytes for tensor in live.values()),
        }
        weight_map = {name: file for file, names in self._names.items() for name in names}
        return {file_sets.WEIGHTS_INDEX: {"metadata": sizes, "weight_map": weight_map}}


def shards(sizes: Mapping[str, int], limit: int) -> dict[str, list[str]]:
    """Which tensors go into which weights file, in their order; ``sizes`` and ``limit`` in bytes."""
    parts: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if parts[-1] and filled + size > limit:
            parts.append([])
            filled = 0
        parts[-1].append(name)
        filled += size
    if len(parts) == 1:
        return {file_sets.WEIGHTS: parts[0]}
    return {file_sets.shard_name(number, len(parts)): names for number, names in enumerate(parts, 1)}


class AverageBuffer:
    """Takes snapshots of a moving average of the weights; each one overwrites the last. ``tensors`` as for ``ModelBuffer``."""

    def __init__(self, tensors: Callable[[], Mapping[str, torch.Tensor]], *, pinned: bool = False) -> None:
        self._tensors = tensors
        self._file = TensorFile(pinned=pinned)

    def take(self) -> Snapshot:
        """Copy the average as it is now."""
        return Snapshot({file_sets.EMA: self._file.fill(self._tensors())}, {})


class OptimizerBuffer:
    """Takes snapshots of an optimizer; each one overwrites the last. ``names`` maps ``id(parameter)`` to its name."""

    def __init__(self, optimizer: torch.optim.Optimizer, names: Mapping[int, str], *, pinned: bool = False) -> None:
        self._optimizer, self._names = optimizer, names
        self._file = TensorFile(pinned=pinned)

    def take(self) -> Snapshot:
        """Copy the optimizer's state as it is now."""
        moments, meta = state.optimizer_parts(self._optimizer, self._names)
        return Snapshot({layout.OPTIMIZER: self._file.fill(moments)}, {layout.OPTIMIZER_META: meta})


class StateBuffers:
    """Takes snapshots of weights, optimizer and what ``further`` belongs to the state; each one overwrites the last."""

    def __init__(
        self,
        weights: Buffer,
        optimizer: torch.optim.Optimizer,
        names: Mapping[int, str],
        device: torch.device,
        further: Sequence[Buffer] = (),
    ) -> None:
        self._on_cuda = device.type == "cuda"
        self._parts = [weights, OptimizerBuffer(optimizer, names, pinned=self._on_cuda), *further]

    def take(self) -> Snapshot:
        """Copy the state as it is now; training may change it as soon as this returns."""
        tensors: dict[str, memoryview] = {}
        values: dict[str, Any] = {}
        for part in self._parts:
            copies = part.take()
            tensors |= copies.tensors
            values |= copies.values
        return Snapshot(tensors, values, self._when_copied())

    def _when_copied(self) -> Callable[[], None]:
        if not self._on_cuda:
            return lambda: None
        copied = torch.cuda.Event()  # what training does next on this stream runs after the copies, so it need not wait
        copied.record()
        return copied.synchronize
