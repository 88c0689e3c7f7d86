"""Random choices as a pure function of a key: the same on every machine, in every order, under every version of NumPy."""

from __future__ import annotations

from collections.abc import Set

import numpy as np

from pitstop.trainers.data.order import splitmix64


def draws(count: int, *key: int) -> np.ndarray:
    """``count`` numbers of uint64 that look random, for this key."""
    state = np.zeros(1, dtype=np.uint64)
    for part in key:
        state = splitmix64(state ^ np.array([part], dtype=np.uint64))
    return splitmix64(np.arange(count, dtype=np.uint64) ^ state)


def shuffled(values: np.ndarray, *key: int) -> np.ndarray:
    """The values in another order."""
    return values[np.argsort(draws(len(values), *key), kind="stable")]


def sample(count: int, total: int, *key: int) -> np.ndarray:
    """``count`` of the numbers below ``total`` in ascending order, int64; all of them where there are no more."""
    if count >= total:
        return np.arange(total)
    return np.sort(shuffled(np.arange(total), *key)[:count])


def unseen(count: int, total: int, seen: Set[int], *key: int) -> np.ndarray:
    """``count`` different numbers below ``total`` that are not in ``seen``, int64; fewer where there are fewer."""
    if total - len(seen) < 2 * count:  # drawing and throwing away would take long
        allowed = np.array([number for number in range(total) if number not in seen], dtype=np.int64)
        return shuffled(allowed, *key)[:count]
    length = 2 * count
    while True:
        fitting = [number for number in (draws(length, *key) % np.uint64(total)).tolist() if number not in seen]
        chosen = list(dict.fromkeys(fitting))[:count]
        if len(chosen) == count:
            return np.array(chosen, dtype=np.int64)
        length *= 2  # a longer stream begins as the shorter one did
