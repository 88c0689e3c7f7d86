"""Packing: several examples in one sequence of bounded length, found once for a data set.

The packs are a pure function of the examples' lengths, so every process and every resume finds the same ones.
"""

from __future__ import annotations

import hashlib
from array import array
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

PACKING_VERSION = 1


@dataclass(frozen=True)
class Packs:
    """Which examples each sequence holds: sequence ``i`` has ``members[bounds[i] : bounds[i + 1]]``, in that order.

    Both are ``int64``, of shapes ``(sequences + 1,)`` and ``(examples,)``; no sequence is empty.
    """

    bounds: np.ndarray
    members: np.ndarray

    def __len__(self) -> int:
        """Number of sequences."""
        return len(self.bounds) - 1

    def __getitem__(self, sequence: int) -> np.ndarray:
        return self.members[self.bounds[sequence] : self.bounds[sequence + 1]]

    def sums(self, per_example: np.ndarray) -> np.ndarray:
        """The sum of a figure of the examples over each sequence, as ``int64``."""
        if not len(self):
            return np.zeros(0, dtype=np.int64)
        return np.add.reduceat(per_example[self.members], self.bounds[:-1], dtype=np.int64)

    def digest(self) -> str:
        """SHA-256 of both arrays."""
        return hashlib.sha256(self.bounds.astype("<i8").tobytes() + self.members.astype("<i8").tobytes()).hexdigest()


@dataclass(frozen=True)
class Arrangement:
    """How a data set's examples are packed, and the fingerprint of all of it."""

    packs: Packs
    fingerprint: str


def pack(lengths: Sequence[int] | np.ndarray, capacity: int) -> Packs:
    """Best-fit decreasing (Johnson 1973): at most 11/9 of the fewest possible packs, plus 6/9.

    ``lengths`` are in tokens, each at most ``capacity``. Raises ``ValueError`` for a length outside ``1 … capacity``.
    """
    sizes = np.asarray(lengths, dtype=np.int64)
    order = np.argsort(-sizes, kind="stable")
    _check(sizes, capacity)
    chosen = array("q", bytes(8 * len(sizes)))  # the pack of each example, in the order in which they were placed
    open_packs: defaultdict[int, array[int]] = defaultdict(lambda: array("q"))  # pack numbers, by free tokens
    free_sizes = 0  # bit n is set where a pack with n free tokens exists
    packs = 0
    start = 0
    while start < len(order):  # in blocks: as Python's numbers all the lengths would take some hundred megabytes
        for turn, length in enumerate(sizes[order[start : start + _BLOCK]].tolist(), start):
            fitting = free_sizes >> length
            if fitting:
                free = length + (fitting & -fitting).bit_length() - 1
                number = open_packs[free].pop()
                if not open_packs[free]:
                    free_sizes &= ~(1 << free)
            else:
                free, number = capacity, packs
                packs += 1
            chosen[turn] = number
            open_packs[free - length].append(number)
            free_sizes |= 1 << (free - length)
        start += _BLOCK
    return _by_pack(np.frombuffer(chosen, dtype=np.int64) if len(sizes) else np.zeros(0, dtype=np.int64), order, packs)


_BLOCK = 1 << 16


def _check(sizes: np.ndarray, capacity: int) -> None:
    for index in np.flatnonzero((sizes < 1) | (sizes > capacity))[:1].tolist():
        raise ValueError(f"example {index} has {sizes[index]} tokens; a pack holds 1 to {capacity}")


def _by_pack(chosen: np.ndarray, order: np.ndarray, packs: int) -> Packs:
    bounds = np.zeros(packs + 1, dtype=np.int64)
    np.cumsum(np.bincount(chosen, minlength=packs), out=bounds[1:])
    return Packs(bounds, order[np.argsort(chosen, kind="stable")])


def singles(count: int) -> Packs:
    """One pack an example: packing turned off."""
    return Packs(np.arange(count + 1, dtype=np.int64), np.arange(count, dtype=np.int64))
