"""Keeps the C heap from growing step by step when training on the CPU."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

GROWTH = 1.2  # resident memory at a step's end, relative to the least seen at one, that makes a trim due
_STATM = Path("/proc/self/statm")
_PAGE_BYTES = 4096


class TrimHeap:
    """Gives freed memory back to the system once fragments have made the process grow.

    Batches differ in length, so the activations of one rarely fit into the holes that those of the last one left: with
    glibc's allocator a training of SmolLM2 grew by half over 16 steps. Giving everything back after each step would cost
    a tenth of its time in page faults, so it is done only when memory has grown.
    """

    def __init__(self, trim: Callable[[], object], resident: Callable[[], int]) -> None:
        self._trim, self._resident = trim, resident
        self._least: int | None = None

    @classmethod
    def for_this_system(cls) -> TrimHeap | None:
        """The hook, or ``None`` where the allocator is not glibc's."""
        if not sys.platform.startswith("linux") or not _STATM.exists():
            return None
        malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        resident = lambda: int(_STATM.read_text().split()[1]) * _PAGE_BYTES  # noqa: E731
        return cls(lambda: malloc_trim(0), resident) if malloc_trim is not None else None

    def at_boundary(self, boundary: object) -> None:
        """Trim if memory has grown; called at the end of each step, whatever step it is."""
        del boundary
        resident = self._resident()
        self._least = resident if self._least is None else min(self._least, resident)
        if resident > GROWTH * self._least:
            self._trim()
