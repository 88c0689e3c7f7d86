"""Smaller micro-batches with the same effective batch, and what a user whose memory ran out is told."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.data_settings import DataSettings
from pitstop.configs.schema import ModelSettings, Settings, TrainingSettings
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.sizing import Sizing, advice, smaller


@pytest.mark.parametrize(
    ("before", "after"),
    [((2, 1), (1, 2)), ((8, 2), (4, 4)), ((6, 1), (3, 2)), ((3, 2), (1, 6)), ((9, 1), (3, 3)), ((7, 1), (1, 7))],
)
def test_half_of_it_or_the_next_divisor_with_the_rest_accumulated(before: tuple[int, int], after: tuple[int, int]) -> None:
    assert smaller(BatchShape(*before, 2)) == BatchShape(*after, 2)


@given(st.integers(1, 500), st.integers(1, 50), st.integers(1, 8))
def test_the_effective_batch_never_changes_and_one_is_reached(size: int, accumulation: int, world: int) -> None:
    sizing = Sizing(BatchShape(size, accumulation, world), automatic=True)
    sequences, tried = sizing.shape.sequences, []

    def attempt(shape: BatchShape, recover: bool) -> str | None:
        tried.append(shape)
        assert shape.sequences == sequences
        return None if recover else "nothing smaller can be tried"

    assert sizing.fit(attempt) == "nothing smaller can be tried"
    assert all(after.batch_size <= before.batch_size // 2 for before, after in itertools.pairwise(tried))
    assert sizing.shape.batch_size == 1


def test_it_is_only_done_when_asked_for_and_told() -> None:
    assert Sizing(BatchShape(8, 1, 1), automatic=False).fit(lambda shape, recover: str(recover)) == "False"
    told: list[tuple[BatchShape, BatchShape]] = []
    sizing = Sizing(BatchShape(8, 1, 1), automatic=True, announce=lambda *shapes: told.append(shapes))
    assert sizing.fit(lambda shape, recover: shape.batch_size if shape.batch_size == 4 else None) == 4
    assert told == [(BatchShape(8, 1, 1), BatchShape(4, 2, 1))]


def test_the_advice_names_only_what_is_not_turned_yet() -> None:
    text = advice(Settings(training=TrainingSettings(batch_size=4, method="lora")))
    assert "--batch-size 2 --gradient-accumulation-steps 4" in text
    assert "--auto-batch-size" in text and "--gradient-checkpointing" in text
    assert "in a new run --max-length below 2048, --optimizer adamw_8bit, --method qlora or a smaller model" in text
    least = Settings(
        training=TrainingSettings(batch_size=1, method="qlora", optimizer="adamw_8bit"),
        model=ModelSettings(gradient_checkpointing=True),
        data=DataSettings(max_length=512),
    )
    assert advice(least) == "use less memory: in a new run --max-length below 512 or a smaller model"
