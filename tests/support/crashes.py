"""The process dies before any single I/O operation of something."""

from __future__ import annotations

import os
from collections.abc import Callable

from pitstop.checkpointing.disk.storage import Storage
from support.fault_matrix import Row
from support.stores import Counter, HookedStorage, in_child

CRASHED = 42


def crashing(at: int) -> HookedStorage:
    """A storage that ends the process before its operation number ``at``, counted from 0."""
    return HookedStorage(before=Counter(at, lambda: os._exit(CRASHED)))


def crash_everywhere(
    row: Row, prepare: Callable[[], object], body: Callable[[Storage], object], check: Callable[[int], object], *, every: int = 1
) -> int:
    """Run ``body`` in a child that dies before its k-th operation, for every k, from a fresh start each time.

    With small counts for every ``every``-th k, where the operations are many of few kinds.
    """
    for at in range(0, 10_000, 1 if row.is_full else every):
        prepare()
        code = in_child(lambda at=at: body(crashing(at)))  # type: ignore[misc]
        with row.trial(f"operation {at}"):
            assert code in (0, CRASHED)
            check(at)
        if code == 0:
            return at
    raise AssertionError("the body never came to its end")
