"""Random choices that are functions of their key."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from pitstop.trainers.tasks.rank.draws import draws, sample, shuffled, unseen


def test_numbers_are_those_of_splitmix64() -> None:
    """The chain of keys and the stream, computed with Python's own integers."""

    def step(value: int) -> int:
        z = (value + 0x9E3779B97F4A7C15) % 2**64
        z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        z = (z ^ (z >> 27)) * 0x94D049BB133111EB % 2**64
        return z ^ (z >> 31)

    key = step(step(0 ^ 42) ^ 7)
    assert draws(3, 42, 7).tolist() == [step(n ^ key) for n in range(3)]


@given(st.integers(0, 8), st.integers(1, 40), st.sets(st.integers(0, 39)), st.integers(0, 2**32 - 1))
def test_unseen_items_are_different_unseen_and_as_many_as_there_are(count: int, total: int, seen: set[int], seed: int) -> None:
    seen = {item for item in seen if item < total}
    chosen = unseen(count, total, frozenset(seen), seed, 1).tolist()
    assert len(chosen) == len(set(chosen)) == min(count, total - len(seen))
    assert not set(chosen) & seen
    assert all(0 <= item < total for item in chosen)


def test_every_item_is_drawn_about_equally_often() -> None:
    counts = np.bincount(np.concatenate([unseen(5, 50, frozenset({3}), 1, n) for n in range(2000)]), minlength=50)
    assert counts[3] == 0
    assert abs(counts[np.arange(50) != 3] - 2000 * 5 / 49).max() < 70  # five standard deviations


def test_samples_and_orders_follow_the_key() -> None:
    assert sample(9, 5, 1).tolist() == [0, 1, 2, 3, 4]
    chosen = sample(5, 100, 1)
    assert chosen.tolist() == sorted(set(chosen.tolist())) == sample(5, 100, 1).tolist() != sample(5, 100, 2).tolist()
    order = shuffled(np.arange(20), 1)
    assert sorted(order.tolist()) == list(range(20)) != order.tolist()
