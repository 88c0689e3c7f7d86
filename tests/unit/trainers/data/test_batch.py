"""Batches by hand."""

from __future__ import annotations

import numpy as np
import torch

from pitstop.trainers.data.batch import flat_batch, padded_batch
from pitstop.trainers.data.example import Example

CPU = torch.device("cpu")


def _two() -> list[Example]:
    first = Example(np.array([5, 6, 7], dtype=np.int32), np.array([False, True, True]))
    return [first, Example(np.array([8, 9], dtype=np.int32), np.array([False, True]))]


def test_a_flat_batch_by_hand() -> None:
    batch = flat_batch(_two(), CPU, flash=False)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7, 8, 9]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 0, 1]]
    assert batch.inputs["doc_lengths"] == (3, 2)
    assert batch.predictors.tolist() == [0, 1, 3]
    assert batch.targets.tolist() == [6, 7, 9]


def test_a_flat_batch_for_flash_attention_by_hand() -> None:
    inputs = flat_batch(_two(), CPU, flash=True).inputs
    assert inputs["cu_seq_lens_q"].tolist() == inputs["cu_seq_lens_k"].tolist() == [0, 3, 5]
    assert inputs["cu_seq_lens_q"].dtype == torch.int32
    assert inputs["max_length_q"] == inputs["max_length_k"] == 3
    assert "doc_lengths" not in inputs


def test_a_padded_batch_by_hand() -> None:
    batch = padded_batch(_two(), CPU, pad_id=2)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 7], [8, 9, 2]]
    assert batch.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 1, 0]]
    assert batch.predictors.tolist() == [0, 1, 3]
    assert batch.targets.tolist() == [6, 7, 9]
