"""How an optimizer step is cut up, and the smaller micro-batches that are tried when memory runs out."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pitstop.configs.schema import Settings
from pitstop.trainers.data.order import BatchShape

Result = TypeVar("Result")


def smaller(shape: BatchShape) -> BatchShape:
    """Micro-batches of half the size (of the largest divisor below, where that is odd) with the same sequences a step.

    ``shape.batch_size`` is at least 2.
    """
    size = max(size for size in range(1, shape.batch_size // 2 + 1) if shape.batch_size % size == 0)
    return BatchShape(size, shape.accumulation * (shape.batch_size // size), shape.world_size)


class Sizing:
    """The shape in force. ``announce`` is told of each change, with the shape before and after."""

    def __init__(
        self, shape: BatchShape, *, automatic: bool, announce: Callable[[BatchShape, BatchShape], None] | None = None
    ) -> None:
        self.shape = shape
        self._automatic = automatic
        self._announce = announce

    def fit(self, attempt: Callable[[BatchShape, bool], Result | None]) -> Result:
        """What ``attempt(shape, recover)`` gives, called with smaller and smaller micro-batches while it gives None.

        ``recover`` asks for None instead of an error when memory runs out; it is false where nothing smaller can be tried.
        """
        while True:
            result = attempt(self.shape, self._automatic and self.shape.batch_size > 1)
            if result is not None:
                return result
            previous, self.shape = self.shape, smaller(self.shape)
            if self._announce is not None:
                self._announce(previous, self.shape)


_LEANER = {"full": "lora", "lora": "qlora"}


def advice(settings: Settings) -> str:
    """What a user whose memory ran out can turn, given what is turned already; the cheapest first."""
    training, size = settings.training, settings.training.batch_size
    ways = []
    if size > 1:
        half = smaller(BatchShape(size, training.gradient_accumulation_steps, 1))
        ways.append(
            f"--batch-size {half.batch_size} --gradient-accumulation-steps {half.accumulation} (the same effective batch; "
            "--auto-batch-size does it by itself)"
        )
    if not settings.model.gradient_checkpointing and not training.makes_images:
        ways.append("--gradient-checkpointing")
    new_run = [] if training.makes_images else [f"--max-length below {settings.data.max_length}"]
    if training.optimizer == "adamw":
        new_run.append("--optimizer adamw_8bit")
    if training.method in _LEANER and not training.makes_images:
        new_run.append(f"--method {_LEANER[training.method]}")
    ways.append(f"in a new run {' or '.join(filter(None, [', '.join(new_run), 'a smaller model']))}")
    return "use less memory: " + "; or ".join(ways)
