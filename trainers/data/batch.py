"""From examples to the tensors of one forward pass, without padding where the model allows it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from pitstop.trainers.data.example import Example


@dataclass(frozen=True)
class Batch:
    """One micro-batch.

    ``inputs`` are the model's keyword arguments. ``predictors`` (int64, ``(supervised,)``) are the positions, in the
    row-major order of ``input_ids``, whose output predicts a supervised token; ``targets`` are those tokens.
    """

    inputs: dict[str, Any]
    predictors: torch.Tensor
    targets: torch.Tensor


def flat_batch(examples: Sequence[Example], device: torch.device, *, flash: bool) -> Batch:
    """All examples in one row of shape ``(1, tokens)``, position ids starting anew with each.

    ``flash`` adds the arguments by which FlashAttention 2 in transformers keeps documents apart.
    """
    lengths = tuple(len(e) for e in examples)
    ids = np.concatenate([e.input_ids for e in examples]).astype(np.int64)
    positions = np.concatenate([np.arange(n, dtype=np.int64) for n in lengths])
    supervised = np.flatnonzero(np.concatenate([e.supervised for e in examples]))
    inputs: dict[str, Any] = {"input_ids": _to(ids, device)[None], "position_ids": _to(positions, device)[None]}
    if flash:
        ends = _to(np.cumsum([0, *lengths], dtype=np.int32), device)
        inputs |= {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends, "max_length_q": max(lengths), "max_length_k": max(lengths)}
    else:
        inputs["doc_lengths"] = lengths
    # The first token of a document is never supervised, so the position before is in the same document.
    return Batch(inputs, _to(supervised - 1, device), _to(ids[supervised], device))


def padded_batch(examples: Sequence[Example], device: torch.device, pad_id: int) -> Batch:
    """One example a row, padded on the right: for architectures that cannot keep documents of one row apart."""
    width = max(len(e) for e in examples)
    ids = np.full((len(examples), width), pad_id, dtype=np.int64)
    mask = np.zeros((len(examples), width), dtype=np.int64)
    supervised = np.zeros((len(examples), width), dtype=bool)
    for row, example in enumerate(examples):
        ids[row, : len(example)] = example.input_ids
        mask[row, : len(example)] = 1
        supervised[row, : len(example)] = example.supervised
    positions = np.flatnonzero(supervised)
    inputs = {"input_ids": _to(ids, device), "attention_mask": _to(mask, device)}
    return Batch(inputs, _to(positions - 1, device), _to(ids.reshape(-1)[positions], device))


def _to(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(np.ascontiguousarray(array))
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
