"""Stage one: retrievers give each user's history a score for every item. They learn from the training part alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from pitstop.trainers.tasks.rank.histories import UserHistories
from pitstop.trainers.tasks.rank.sequential import train_sequential


class Retriever(Protocol):
    """A fitted retriever."""

    def scores(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """A higher number for a likelier next item: float32 of shape ``(histories, items)``."""


class Popularity:
    """The same scores for everybody: how often an item stands in the training part."""

    def __init__(self, sequences: UserHistories) -> None:
        self._counts = sequences.popularity().astype(np.float32)

    def scores(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """See ``Retriever``."""
        return np.repeat(self._counts[None], len(histories), axis=0)


class ItemNeighbours:
    """item-kNN (Sarwar et al. 2001): cosine of the items' user sets, the ``neighbours`` nearest of each.

    An item's score is the sum of its similarity to the items of the history, the nth from its end weighted by 1/n.
    """

    neighbours = 100
    recent = 50  # items of the history that count

    def __init__(self, sequences: UserHistories) -> None:
        self._items = len(sequences.titles)
        users = np.repeat(np.arange(len(sequences.user_ids)), np.diff(sequences.offsets))
        in_train = sequences.in_train()
        pairs = np.unique(np.stack([users[in_train], sequences.items[in_train].astype(np.int64)], axis=1), axis=0)
        self._near, self._similarity = self._nearest(pairs[:, 0], pairs[:, 1])

    def _nearest(self, users: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Neighbours (int64) and similarities (float32) of every item, of shape ``(items, neighbours)``."""
        width = min(self.neighbours, max(1, self._items - 1))
        near = np.zeros((self._items, width), dtype=np.int64)
        similarity = np.zeros((self._items, width), dtype=np.float32)
        items_of = np.split(items, np.cumsum(np.bincount(users))[:-1])  # of each user; ``users`` is in order
        by_item = users[np.argsort(items, kind="stable")]
        sizes = np.bincount(items, minlength=self._items)
        takers = np.split(by_item, np.cumsum(sizes)[:-1])
        for item in np.flatnonzero(sizes):
            neighbours, together = np.unique(np.concatenate([items_of[user] for user in takers[item]]), return_counts=True)
            cosine = together / np.sqrt(sizes[item] * sizes[neighbours])
            cosine[neighbours == item] = 0.0
            best = np.argsort(-cosine, kind="stable")[:width]
            near[item, : len(best)] = neighbours[best]
            similarity[item, : len(best)] = cosine[best]
        return near, similarity

    def scores(self, histories: Sequence[np.ndarray]) -> np.ndarray:
        """See ``Retriever``."""
        result = np.zeros((len(histories), self._items), dtype=np.float32)
        for row, history in enumerate(histories):
            last = history[-self.recent :][::-1]
            weights = (1.0 / np.arange(1, len(last) + 1)).astype(np.float32)
            np.add.at(result[row], self._near[last], self._similarity[last] * weights[:, None])
        return result


def fit(name: str, sequences: UserHistories, *, seed: int, epochs: int, say: Callable[[str], None]) -> Retriever:
    """Make and train the retriever that the settings name."""
    if name == "popularity":
        return Popularity(sequences)
    if name == "itemknn":
        return ItemNeighbours(sequences)
    return train_sequential(sequences, seed=seed, epochs=epochs, say=say)


def top(retriever: Retriever, histories: Sequence[np.ndarray], count: int) -> tuple[np.ndarray, np.ndarray]:
    """The ``count`` best items of each history that are not in it, best first, and their scores.

    int32 and float32 of shape ``(histories, count)``; equal scores stand in the order of the items, and where there are
    fewer items the rest of the row is -1.
    """
    items = np.full((len(histories), count), -1, dtype=np.int32)
    scores = np.zeros((len(histories), count), dtype=np.float32)
    for start in range(0, len(histories), 256):
        chunk = histories[start : start + 256]
        for row, values in enumerate(retriever.scores(chunk), start=start):
            unseen = np.ones(len(values), dtype=bool)
            unseen[histories[row]] = False
            best = _best(values, np.flatnonzero(unseen), count)
            items[row, : len(best)] = best
            scores[row, : len(best)] = values[best]
    return items, scores


def _best(values: np.ndarray, allowed: np.ndarray, count: int) -> np.ndarray:
    mine = values[allowed]
    if len(allowed) > count:  # sort only what can be among the best, all equals of the last included
        least = np.partition(mine, len(mine) - count)[len(mine) - count]
        allowed = allowed[mine >= least]
        mine = values[allowed]
    return allowed[np.argsort(-mine, kind="stable")][:count]
