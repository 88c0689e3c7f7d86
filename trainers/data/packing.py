"""Packing: several examples in one sequence of bounded length, found once for a data set.

The packs are a pure function of the examples' lengths, so every process and every resume finds the same ones.
"""

from __future__ import annotations

from collections.abc import Sequence

PACKING_VERSION = 1


def pack(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Best-fit decreasing (Johnson 1973): at most 11/9 of the fewest possible packs, plus 6/9.

    ``lengths`` are in tokens, each at most ``capacity``. Returns the example indices of each pack. Raises
    ``ValueError`` for a length outside ``1 … capacity``.
    """
    packs: list[list[int]] = []
    open_packs: list[list[int]] = [[] for _ in range(capacity + 1)]  # pack numbers, by free tokens
    free_sizes = 0  # bit n is set where a pack with n free tokens exists
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        length = lengths[index]
        if not 1 <= length <= capacity:
            raise ValueError(f"example {index} has {length} tokens; a pack holds 1 to {capacity}")
        fitting = free_sizes >> length
        if fitting:
            free = length + (fitting & -fitting).bit_length() - 1
            chosen = open_packs[free].pop()
            if not open_packs[free]:
                free_sizes &= ~(1 << free)
        else:
            free = capacity
            chosen = len(packs)
            packs.append([])
        packs[chosen].append(index)
        open_packs[free - length].append(chosen)
        free_sizes |= 1 << (free - length)
    return packs


def singles(count: int) -> list[list[int]]:
    """One pack an example: packing turned off."""
    return [[index] for index in range(count)]
