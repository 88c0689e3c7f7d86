"""From ratings to each user's sequence of items: k-core, order in time, leave-two-out."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from pitstop.configs.errors import DataError
from pitstop.configs.notices import Notice
from pitstop.trainers.tasks.rank.ratings import Ratings

SPLITS = ("train", "validation", "test")
_HELD_OUT = {"validation": 2, "test": 1}  # how far from the end the target of a split stands

_UNTITLED = "{count} [rating|ratings] of items without a title [is|are] left out"
_LONGEST_NUMBER = 1000  # digits of an id that counts as a whole number


@dataclass(frozen=True)
class Statistics:
    """What is left of a data set: users, items and ratings after the k-core."""

    users: int
    items: int
    ratings: int

    def __str__(self) -> str:
        return f"{self.users:,} users, {self.items:,} items, {self.ratings:,} ratings"


@dataclass(frozen=True)
class UserHistories:
    """Every user's items in the order in which they were taken.

    ``items`` (int32, ``(ratings,)``) holds the sequences one after another, that of user u in
    ``offsets[u]:offsets[u + 1]`` (int64, ``(users + 1,)``). Users and items are numbered in the order of their ids.
    """

    user_ids: list[str]
    titles: list[str]
    offsets: np.ndarray
    items: np.ndarray
    notices: tuple[Notice, ...] = ()
    """Of ratings that are left out."""

    @property
    def statistics(self) -> Statistics:
        """Counts for people."""
        return Statistics(len(self.user_ids), len(self.titles), len(self.items))

    def train(self, user: int) -> np.ndarray:
        """The user's items but the last two."""
        return self.items[self.offsets[user] : self.offsets[user + 1] - 2]

    def history(self, user: int, split: str) -> np.ndarray:
        """What is known of a user when the target of ``split`` is to be found: all items before it."""
        return self.items[self.offsets[user] : self.offsets[user + 1] - _HELD_OUT[split]]

    def target(self, user: int, split: str) -> int:
        """The item to find: the last but one for ``validation``, the last for ``test``."""
        return int(self.items[self.offsets[user + 1] - _HELD_OUT[split]])

    def popularity(self) -> np.ndarray:
        """How often each item stands in the training part, int64 of shape ``(items,)``."""
        return np.bincount(self.items[self.in_train()], minlength=len(self.titles))

    def in_train(self) -> np.ndarray:
        """Which of ``items`` belong to the training part, bool of shape ``(ratings,)``."""
        mask = np.ones(len(self.items), dtype=bool)
        ends = self.offsets[1:]
        mask[ends - 1] = mask[ends - 2] = False
        return mask

    def digest(self) -> str:
        """SHA-256 over all sequences and the number of items: equal digests give equal retrievers."""
        digest = hashlib.sha256(f"{len(self.titles)}".encode())
        digest.update(self.offsets.astype("<i8").tobytes())
        digest.update(self.items.astype("<i4").tobytes())
        return digest.hexdigest()


def build_histories(ratings: Ratings, *, min_interactions: int, name: str) -> UserHistories:
    """Keep the k-core of the titled items and put each user's in order of time.

    Ratings of the same moment stand in the order of their item's id, as in LlamaRec (Yue et al. 2023); repeated items stay.
    ``min_interactions`` is at least 3, so that two items can be held out. Raises ``DataError`` where nothing is left.
    """
    user, item, time = ratings.columns()
    titled = np.fromiter((item_id in ratings.titles for item_id in ratings.items), dtype=bool, count=len(ratings.items))
    has_title = titled[item] if len(item) else np.zeros(0, dtype=bool)
    rows = np.flatnonzero(has_title)
    rows = rows[k_core(user[rows], item[rows], min_interactions)]
    if not len(rows):
        raise DataError(
            f"{name}: nothing is left of {len(ratings):,} ratings when every user and every titled item needs {min_interactions} of them.",
            hint="Give more data, or lower --rank-min-interactions (at least 3).",
        )
    untitled = Notice(_UNTITLED, count=int((~has_title).sum()), place=name, loss=True)
    reason = f"{{count}} [rating is|ratings are] left out, since the user or the item has fewer than {min_interactions} ratings"
    rare = Notice(reason, count=int(has_title.sum()) - len(rows), place=name, remedy="--rank-min-interactions sets the number.")
    users, user_ids = _renumbered(user[rows], list(ratings.users))
    items, item_ids = _renumbered(item[rows], list(ratings.items))
    order = np.lexsort((items, time[rows], users))
    offsets = np.concatenate(([0], np.cumsum(np.bincount(users, minlength=len(user_ids)))))
    return UserHistories(
        user_ids=user_ids,
        titles=[ratings.titles[item_id] for item_id in item_ids],
        offsets=offsets.astype(np.int64),
        items=items[order].astype(np.int32),
        notices=tuple(notice for notice in (untitled, rare) if notice.count),
    )


def k_core(users: np.ndarray, items: np.ndarray, least: int) -> np.ndarray:
    """Positions of the ratings (int64) in the largest part in which every user and every item has ``least`` or more."""
    rows = np.arange(len(users))
    while len(rows):
        u, i = users[rows], items[rows]
        good = (np.bincount(u)[u] >= least) & (np.bincount(i)[i] >= least)
        if good.all():
            break
        rows = rows[good]
    return rows


def _renumbered(numbers: np.ndarray, ids: list[str]) -> tuple[np.ndarray, list[str]]:
    """New numbers in the order of the ids (by value where all are whole numbers, else as text), and the ids in that order."""
    present = np.unique(numbers)
    if all(ids[n].isdecimal() and len(ids[n]) <= _LONGEST_NUMBER for n in present):
        ordered = sorted(present.tolist(), key=lambda n: (int(ids[n]), ids[n]))
    else:
        ordered = sorted(present.tolist(), key=lambda n: ids[n])
    new = np.full(len(ids), -1, dtype=np.int64)
    new[ordered] = np.arange(len(ordered))
    return new[numbers], [ids[n] for n in ordered]
