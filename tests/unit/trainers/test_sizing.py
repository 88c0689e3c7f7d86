"""Smaller micro-batches with the same effective batch, and what a user whose memory ran out is told."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.schema import Settings
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.sizing import Sizing, advice, smaller


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 1), (1, 2)), ((8, 2), (4, 4)), ((6, 1), (3, 2)), ((3, 2), (1, 6)), ((9, 1), (3, 3)), ((7, 1), (1, 7))],
)
def test_half_of_it_or_the_next_divisor_with_the_rest_accumulated(before: tuple[int, int], after: tuple[int, int]) -> None:
    assert smaller(BatchShape(*before, 2)) == BatchShape(*after, 2)


@given(st.integers(1, 500), st.integers(1, 50), st.integers(1, 8))
def test_the_effective_batch_never_changes_and_one_is_reached(size: int, accumulation: int, world: int) -> None:
    sizing = Sizing(BatchShape(size, accumulation, world), automatic=True)
    sequences = sizing.shape.sequences
    while sizing.can_shrink:
        before = sizing.shape.batch_size
        sizing.shrink()
        assert sizing.shape.batch_size <= before // 2
        assert sizing.shape.sequences == sequences
    assert sizing.shape.batch_size == 1


def test_it_is_only_done_when_asked_for_and_told() -> None:
    assert not Sizing(BatchShape(8, 1, 1), automatic=False).can_shrink
    told: list[tuple[BatchShape, BatchShape]] = []
    Sizing(BatchShape(8, 1, 1), automatic=True, announce=lambda *shapes: told.append(shapes)).shrink()
    assert told == [(BatchShape(8, 1, 1), BatchShape(4, 2, 1))]


def test_the_advice_names_only_what_is_not_turned_yet() -> None:
    text = advice(Settings.model_validate({"training": {"batch_size": 4, "method": "lora"}}))
    assert "--batch-size 2 --gradient-accumulation-steps 4" in text
    assert "--auto-batch-size" in text and "--gradient-checkpointing" in text
    assert "in a new run --max-length below 2048, --optimizer adamw_8bit, --method qlora or a smaller model" in text
    least = {
        "training": {"batch_size": 1, "method": "qlora", "optimizer": "adamw_8bit"},
        "model": {"gradient_checkpointing": True},
        "data": {"max_length": 512},
    }
    assert advice(Settings.model_validate(least)) == "use less memory: in a new run --max-length below 512 or a smaller model"
