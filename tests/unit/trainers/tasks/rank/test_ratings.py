"""Ratings as columns."""

from __future__ import annotations

import numpy as np

from pitstop.trainers.tasks.rank.ratings import Ratings


def test_columns_hold_positions_in_the_order_of_appearance() -> None:
    ratings = Ratings()
    for user, item, time in (("u2", "i9", 5.5), ("u1", "i9", 1.0), ("u2", "i1", -3.0), ("u2", "i9", 5.5)):
        ratings.add(user, item, time)
    assert len(ratings) == 4
    assert (list(ratings.users), list(ratings.items)) == (["u2", "u1"], ["i9", "i1"])
    users, items, times = ratings.columns()
    assert (users.tolist(), items.tolist(), times.tolist()) == ([0, 1, 0, 0], [0, 0, 1, 0], [5.5, 1.0, -3.0, 5.5])
    assert (users.dtype, items.dtype, times.dtype) == (np.int32, np.int32, np.float64)


def test_no_ratings_are_empty_columns() -> None:
    assert len(Ratings()) == 0
    assert [column.shape for column in Ratings().columns()] == [(0,)] * 3
