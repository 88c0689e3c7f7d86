"""k-core, order and leave-two-out."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.configs.errors import DataError
from pitstop.trainers.data.records import BadRows
from pitstop.trainers.tasks.rank.histories import UserHistories, build_histories, k_core
from pitstop.trainers.tasks.rank.ratings import Ratings
from pitstop.trainers.tasks.rank.reading import read_ratings

PAIRS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), max_size=80)


def _ratings(rows: list[tuple[str, str, float]], untitled: str = "") -> Ratings:
    ratings = Ratings()
    for row in rows:
        ratings.add(*row)
    ratings.titles = {item: f"Title of {item}" for item in ratings.items if item != untitled}
    return ratings


def _titles(sequences: UserHistories, items: np.ndarray) -> list[str]:
    return [sequences.titles[item].removeprefix("Title of ") for item in items]


def test_a_small_set_worked_out_by_hand() -> None:
    """Item z has two ratings and goes; then user c has two and goes; then x has three, and what is left is a 3-core."""
    rows = [("a", i, t) for i, t in (("x", 3.0), ("y", 1.0), ("w", 2.0), ("z", 4.0))]
    rows += [("b", i, t) for i, t in (("w", 1.0), ("x", 2.0), ("y", 3.0))]
    rows += [("c", i, t) for i, t in (("z", 1.0), ("x", 2.0), ("y", 3.0))]
    rows += [("d", i, t) for i, t in (("y", 1.0), ("x", 1.0), ("w", 0.0), ("x", 9.0))]
    sequences = build_histories(_ratings(rows), min_interactions=3, name="x")
    assert sequences.user_ids == ["a", "b", "d"]
    assert str(sequences.statistics) == "3 users, 3 items, 10 ratings"
    whole = [_titles(sequences, sequences.items[slice(*sequences.offsets[u : u + 2])]) for u in range(3)]
    assert whole == [["y", "w", "x"], ["w", "x", "y"], ["w", "x", "y", "x"]], "of one moment by id; a repeated item stays"
    assert _titles(sequences, sequences.train(2)) == ["w", "x"]
    assert _titles(sequences, sequences.history(2, "validation")) == ["w", "x"]
    assert _titles(sequences, sequences.history(2, "test")) == ["w", "x", "y"]
    assert [sequences.titles[sequences.target(2, split)][-1] for split in ("validation", "test")] == ["y", "x"]
    assert dict(zip(_titles(sequences, np.arange(3)), sequences.popularity().tolist(), strict=True)) == {"w": 2, "x": 1, "y": 1}


def test_ids_that_are_numbers_stand_in_the_order_of_their_values() -> None:
    rows = [(user, item, 0.0) for user in ("10", "9", "2") for item in ("100", "20", "3")]
    sequences = build_histories(_ratings(rows), min_interactions=3, name="x")
    assert sequences.user_ids == ["2", "9", "10"]
    assert _titles(sequences, sequences.items[:3]) == ["3", "20", "100"]


def test_an_id_of_thousands_of_digits_is_a_name_like_any_other() -> None:
    rows = [(user, item, float(n)) for user in ("9" * 5000, "2", "10") for n, item in enumerate(("3", "4", "5"))]
    assert build_histories(_ratings(rows), min_interactions=3, name="x").user_ids == ["10", "2", "9" * 5000]


def test_ratings_of_untitled_items_go_first_and_are_counted() -> None:
    rows = [(user, item, 0.0) for user in "abc" for item in "wxyz"]
    sequences = build_histories(_ratings(rows, untitled="z"), min_interactions=3, name="x")
    assert (sequences.statistics.items, sequences.statistics.ratings) == (3, 9)
    assert [str(notice) for notice in sequences.notices] == ["3 ratings of items without a title are left out, first x."]


def test_nothing_left_is_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match="nothing is left of 2 ratings"):
        build_histories(_ratings([("a", "x", 1.0), ("b", "y", 2.0)]), min_interactions=3, name="x")
    with pytest.raises(DataError, match="nothing is left of 0 ratings"):
        build_histories(_ratings([]), min_interactions=3, name="x")


@given(PAIRS, st.integers(1, 4))
def test_the_core_is_stable_and_the_largest(pairs: list[tuple[int, int]], least: int) -> None:
    users, items = (np.array([pair[side] for pair in pairs], dtype=np.int64) for side in (0, 1))
    kept = k_core(users, items, least)
    for side in (users, items):
        assert all(count >= least for count in Counter(side[kept].tolist()).values())
    left = list(range(len(pairs)))  # taking away one bad rating after the other ends in the same core
    while True:
        counts = [Counter(pairs[n][side] for n in left) for side in (0, 1)]
        bad = [n for n in left if counts[0][pairs[n][0]] < least or counts[1][pairs[n][1]] < least]
        if not bad:
            break
        left.remove(bad[-1])
    assert kept.tolist() == left


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=60))
def test_splits_share_no_rating_and_lose_none(rows: list[tuple[int, int, int]]) -> None:
    try:
        sequences = build_histories(_ratings([(f"u{u}", f"i{i}", float(t)) for u, i, t in rows]), min_interactions=3, name="x")
    except DataError:
        return
    for user in range(len(sequences.user_ids)):
        whole = sequences.items[slice(*sequences.offsets[user : user + 2])].tolist()
        parts = [*sequences.train(user), sequences.target(user, "validation"), sequences.target(user, "test")]
        assert parts == whole
    assert sequences.in_train().sum() == sequences.statistics.ratings - 2 * sequences.statistics.users


def test_the_digest_tells_sequences_apart(make_sequences) -> None:
    digests = {
        make_sequences(lists, 9).digest() for lists in ([[1, 2, 3], [4, 5, 6]], [[1, 2, 3, 4], [5, 6]], [[1, 2, 3], [4, 6, 5]])
    }
    assert len(digests) == 3


def test_movielens_100k_has_its_known_counts(ml_100k: Path) -> None:
    sequences = build_histories(read_ratings(str(ml_100k), BadRows(False)), min_interactions=5, name="ml-100k")
    assert str(sequences.statistics) == "943 users, 1,349 items, 99,287 ratings"
