"""Pieces get smaller until they fit; nothing is lost or done twice."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.errors import ResourceError
from pitstop.trainers.machine.memory_pieces import Pieces


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
