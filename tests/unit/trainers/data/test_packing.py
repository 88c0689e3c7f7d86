"""Packing loses nothing, overfills nothing and always comes out the same."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.data.packing import Packs, pack, singles


def _lists(packs: Packs) -> list[list[int]]:
    return [packs[number].tolist() for number in range(len(packs))]


def _packed(lengths: list[int], capacity: int) -> list[list[int]]:
    return _lists(pack(lengths, capacity))


@st.composite
def _lengths(draw: st.DrawFn) -> tuple[list[int], int]:
    capacity = draw(st.integers(1, 60))
    return draw(st.lists(st.integers(1, capacity), max_size=60)), capacity


@given(_lengths())
def test_each_example_is_in_exactly_one_pack_and_no_pack_is_overfull(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    packs = _packed(lengths, capacity)
    assert sorted(index for members in packs for index in members) == list(range(len(lengths)))
    assert all(members and sum(lengths[i] for i in members) <= capacity for members in packs)
    assert _packed(list(lengths), capacity) == packs


@given(_lengths())
def test_no_two_packs_would_fit_into_one(case: tuple[list[int], int]) -> None:
    lengths, capacity = case
    filled = sorted(sum(lengths[i] for i in members) for members in _packed(lengths, capacity))
    assert len(filled) < 2 or filled[0] + filled[1] > capacity


def test_best_fit_decreasing_by_hand() -> None:
    # 7 → a(3 free); 6 → b(4); 5 → c(5); 4 → b, the tightest (0); 3 → a (0); 2 → c (3); 1 → c (2)
    assert _packed([1, 2, 3, 4, 5, 6, 7], 10) == [[6, 2], [5, 3], [4, 1, 0]]


def test_the_tightest_pack_is_chosen_not_the_first() -> None:
    # 6 → a(4 free), 7 → b(3 free): 3 goes where nothing is left over.
    assert _packed([6, 7, 3], 10) == [[1, 2], [0]]


def test_equal_lengths_keep_their_order() -> None:
    assert _packed([5, 5, 5, 5], 10) == [[0, 1], [2, 3]]


def test_a_full_example_has_a_pack_of_its_own_and_nothing_gives_nothing() -> None:
    assert _packed([8, 8], 8) == [[0], [1]]
    assert _packed([], 8) == []


@pytest.mark.parametrize("length", [0, -1, 9])
def test_impossible_lengths_are_named(length: int) -> None:
    with pytest.raises(ValueError, match=f"example 1 has {length} tokens; a pack holds 1 to 8"):
        _packed([3, length], 8)


def test_without_packing_each_example_is_alone() -> None:
    assert _lists(singles(3)) == [[0], [1], [2]]
    assert _lists(singles(0)) == []
