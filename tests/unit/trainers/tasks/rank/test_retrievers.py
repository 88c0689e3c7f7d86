"""Retrievers by hand: popularity, neighbours, and the best items that are not in a history."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.tasks.rank import retrievers
from pitstop.trainers.tasks.rank.histories import UserHistories

Make = Callable[..., UserHistories]


class Fixed:
    """A retriever with the same scores for everybody."""

    def __init__(self, *scores: float) -> None:
        self.row = np.array(scores, dtype=np.float32)

    def scores(self, histories: Any) -> np.ndarray:
        return np.repeat(self.row[None], len(histories), axis=0)


def test_the_best_unseen_items_come_first_and_equals_in_the_order_of_items() -> None:
    items, scores = retrievers.top(Fixed(1, 5, 3, 3, 5, 0), [np.array([4]), np.array([1, 2, 3, 4])], 3)
    assert items.tolist() == [[1, 2, 3], [0, 5, -1]]
    assert scores.tolist() == [[5, 3, 3], [1, 0, 0]]


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.sets(st.integers(0, 29), min_size=1), st.integers(1, 12))
def test_what_is_found_is_what_sorting_everything_would_give(scores: list[int], seen: set[int], count: int) -> None:
    history = np.array([item for item in seen if item < len(scores)], dtype=np.int32)
    found = retrievers.top(Fixed(*scores), [history], count)[0][0].tolist()
    unseen = [item for item in range(len(scores)) if item not in history]
    wanted = sorted(unseen, key=lambda item: -scores[item])[:count]
    assert found == wanted + [-1] * (count - len(wanted))


def test_popularity_counts_the_training_part_alone(make_sequences: Make) -> None:
    sequences = make_sequences([[0, 1, 2, 2], [0, 3, 2, 2], [0, 1, 3, 3]])
    assert retrievers.Popularity(sequences).scores([np.array([0])]).tolist() == [[3.0, 2.0, 0.0, 1.0]]


def test_similarity_of_items_is_the_cosine_of_their_users(make_sequences: Make) -> None:
    """Items 0 and 1 share two of three and two users: 2/√6. Items 0 and 2 share one of three and one: 1/√3."""
    sequences = make_sequences([[0, 1, 9, 9], [1, 0, 9, 9], [0, 2, 9, 9], [3, 4, 9, 9]], 10)
    near = retrievers.ItemNeighbours(sequences)
    scores = near.scores([np.array([0]), np.array([2, 0])])
    assert scores[0, [1, 2, 3, 9]] == pytest.approx([2 / 6**0.5, 1 / 3**0.5, 0, 0])
    assert scores[1, 1] == pytest.approx(2 / 6**0.5), "the last item of the history counts whole"
    assert scores[1, 0] == pytest.approx(1 / 3**0.5 / 2), "the last but one half"


def test_a_repeated_item_counts_once_for_its_user(make_sequences: Make) -> None:
    near = retrievers.ItemNeighbours(make_sequences([[0, 0, 1, 5, 5], [1, 2, 5, 5]], 6))
    assert near.scores([np.array([0])])[0, 1] == pytest.approx(1 / 2**0.5)
