"""Smaller micro-batches with the same effective batch, and what a user whose memory ran out is told."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.errors import ResourceError
from pitstop.configs.schema import Settings
from pitstop.trainers.data.order import BatchShape
from pitstop.trainers.loop.sizing import Pieces, Sizing, advice, smaller


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


class Room:
    """Holds so many items at once."""

    def __init__(self, items: int) -> None:
        self.items, self.tried = items, list[int]()

    def __call__(self, piece: Sequence[int]) -> list[int]:
        self.tried.append(len(piece))
        if len(piece) > self.items:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return list(piece)


@given(st.lists(st.integers(), max_size=40), st.integers(1, 50), st.integers(1, 40))
def test_pieces_get_smaller_until_they_fit_and_no_item_is_lost_or_done_twice(items: list[int], size: int, room: int) -> None:
    pieces, memory = Pieces(size, "hint"), Room(room)
    assert [item for found in pieces.of(items, memory) for item in found] == items
    failed = [count for count in memory.tried if count > room]
    assert all(after <= before // 2 for before, after in itertools.pairwise(failed))


def test_what_did_not_fit_once_is_not_tried_with_the_next_batch_either() -> None:
    pieces, memory = Pieces(8, "hint"), Room(3)
    assert list(pieces.of(range(8), memory)) == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert list(pieces.of(range(3), memory)) == [[0, 1], [2]]
    assert memory.tried == [8, 4, 2, 2, 2, 2, 2, 1]


def test_a_single_item_that_does_not_fit_ends_it_with_the_hint() -> None:
    with pytest.raises(ResourceError, match="Out of memory: CUDA out of memory") as refused:
        list(Pieces(4, "Ask for less.").of(range(4), Room(0)))
    assert refused.value.hint == "Ask for less."


def test_another_error_is_no_lack_of_memory() -> None:
    memory = Room(9)

    def fails(piece: Sequence[int]) -> None:
        memory(piece)
        raise RuntimeError("shapes do not match")

    with pytest.raises(RuntimeError, match="shapes"):
        list(Pieces(4, "hint").of(range(4), fails))
    assert memory.tried == [4]
