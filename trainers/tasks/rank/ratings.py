"""Ratings as they are read: who took what, and when."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field

import numpy as np


@dataclass
class Ratings:
    """Columns of equal length, 16 bytes a rating: positions in ``users`` and ``items`` (ids in order of appearance), and times.

    The value of a rating is not kept: that somebody took an item is all that counts here.
    """

    users: dict[str, int] = field(default_factory=dict)
    items: dict[str, int] = field(default_factory=dict)
    titles: dict[str, str] = field(default_factory=dict)
    _user: array[int] = field(default_factory=lambda: array("i"))
    _item: array[int] = field(default_factory=lambda: array("i"))
    _time: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self._time)

    def add(self, user: str, item: str, time: float) -> None:
        """Append one rating."""
        self._user.append(self.users.setdefault(user, len(self.users)))
        self._item.append(self.items.setdefault(item, len(self.items)))
        self._time.append(time)

    def columns(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users and items (int32) and times (float64), each of shape ``(ratings,)``."""
        return np.array(self._user, dtype=np.int32), np.array(self._item, dtype=np.int32), np.array(self._time)
