"""Batches of questions or images, cut into smaller pieces when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from pitstop.configs.errors import ResourceError, first_line, is_out_of_memory

Item = TypeVar("Item")
Result = TypeVar("Result")


class Pieces:
    """Batches of what can be computed in batches of any size: at most ``size`` items, and half as many each time memory runs out.

    Nothing is trained on these, so it needs nobody's leave. ``hint`` says what can be turned where a single item does not fit.
    """

    def __init__(self, size: int, hint: str) -> None:
        self.size, self.hint = size, hint

    def of(self, items: Sequence[Item], attempt: Callable[[Sequence[Item]], Result]) -> Iterator[Result]:
        """What ``attempt`` gives for each piece of ``items``, in order. ``ResourceError`` where a single item does not fit."""
        start = 0
        while start < len(items):
            piece = items[start : start + self.size]
            try:
                result = attempt(piece)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(piece) == 1:
                    raise ResourceError(f"Out of memory: {first_line(error)}", hint=self.hint) from error
                self.size = len(piece) // 2
                continue  # which drops the error, and with it the tensors of the batch
            yield result
            start += len(piece)
