"""The process dies before any single I/O operation of something."""

from __future__ import annotations

import os
from collections.abc import Callable

from pitstop.checkpointing.storage import Storage
from support.stores import Counter, HookedStorage, in_child

CRASHED = 42


def crashing(at: int) -> HookedStorage:
    return HookedStorage(before=Counter(at, lambda: os._exit(CRASHED)))


def crash_everywhere(prepare: Callable[[], None], body: Callable[[Storage], object], check: Callable[[int], None]) -> int:
    """Run ``body`` in a child that dies before its k-th operation, for every k, from a fresh start each time."""
    for at in range(10_000):
        prepare()
        code = in_child(lambda at=at: body(crashing(at)))  # type: ignore[misc]
        check(at)
        if code == 0:
            return at
        assert code == CRASHED
    raise AssertionError("the body never came to its end")
