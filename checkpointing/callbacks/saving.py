"""What the callbacks have in common: saving without endangering the training, and retention."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

import torch

from pitstop.checkpointing.disk.storage import MOST_MISSES
from pitstop.checkpointing.manager import CheckpointManager
from pitstop.configs.errors import ResourceError, SettingsError

log = logging.getLogger("pitstop")


class CallbackSaver:
    """Saves through a manager: a full disk costs a checkpoint and not the training; retention follows each save."""

    def __init__(self, manager: CheckpointManager, keep_last_n: int | None) -> None:
        if keep_last_n is not None and (type(keep_last_n) is not int or keep_last_n < 1):
            raise SettingsError(f"keep_last_n is {keep_last_n!r}; at least one checkpoint is always kept", hint="None keeps all")
        self.manager, self.keep_last_n = manager, keep_last_n
        self._misses = 0
        self._refuses = False  # the disk, the rows of the log

    def log_metrics(self, step: int, metrics: Mapping[str, Any], epoch: float | None) -> None:
        """Add a row to the log; a disk that does not take it is told once, and does not end the training."""
        try:
            self.manager.log_metrics(step, metrics, epoch)
            self._refuses = False
        except ResourceError as error:
            if not self._refuses:
                log.warning("%s Training goes on.", error.message)
            self._refuses = True

    def save(self, write: Callable[[], Path], name: str, *, final: bool = False) -> bool:
        """Call ``write``, which commits ``name``; whether it did. ``ResourceError`` at the third miss in a row or a final one."""
        try:
            write()
        except ResourceError as error:
            self._misses += 1
            if final or self._misses >= MOST_MISSES:
                raise
            misses = f"{self._misses} of {MOST_MISSES} misses in a row"
            log.warning("%s was not saved (%s): %s Training goes on.", name, misses, error.message)
            return False
        self._misses = 0
        if self.keep_last_n is not None:
            self.manager.cleanup_old_checkpoints(self.keep_last_n)
        log.info("saved %s in %s", name, self.manager.run_dir)
        return True


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of ``values`` that are single numbers."""
    metrics: dict[str, float] = {}
    for name, value in values.items():
        number = value.item() if isinstance(value, torch.Tensor) and value.numel() == 1 else value
        if isinstance(number, Real) and not isinstance(number, bool):
            metrics[name] = float(number)
    return metrics


def refuse_several_processes(count: int, callback: str) -> None:
    """``SettingsError`` where the training runs in several processes, of which each has a random state of its own."""
    if count > 1:
        raise SettingsError(
            f"{callback} saves trainings of one process; this one has {count}",
            hint="`pitstop train --num-processes` trains on several, or save with the library's own checkpoints",
        )
