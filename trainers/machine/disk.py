"""How much room checkpoints need, and whether it is there before anything is spent."""

from __future__ import annotations

from pathlib import Path

from pitstop.checkpointing.disk.storage import LocalStorage
from pitstop.configs.errors import ResourceError
from pitstop.configs.schema import Settings
from pitstop.configs.shown import human_size

OPTIMIZER_BYTES = {"adamw": 8.0, "adamw_8bit": 2.1, "paged_adamw_8bit": 2.1, "paged_adamw_32bit": 8.0}
"""Bytes of optimizer state a trainable parameter."""

_WEIGHT_BYTES = 4  # what is trained is float32
_EXTRA = 1 << 20  # names, settings, random states


def checkpoint_bytes(trainable: int, optimizer: str, *, average: bool = False) -> int:
    """About how many bytes a checkpoint of ``trainable`` parameters takes, with a moving ``average`` of them or without."""
    weights = _WEIGHT_BYTES * (2 if average else 1)
    return int(trainable * (weights + OPTIMIZER_BYTES[optimizer])) + _EXTRA


def check_room(settings: Settings, trainable: int) -> str | None:
    """Make sure that one checkpoint fits; a warning where those that are to be kept will not.

    Raises ``ResourceError`` where not even one does: training would only find out at its first save.
    """
    checkpoint = settings.training.checkpoint
    directory = Path(checkpoint.base_dir)
    free = LocalStorage().free_space(directory)
    training = settings.training
    size = checkpoint_bytes(trainable, training.optimizer, average=training.ema_decay is not None)
    if free < size:
        raise ResourceError(
            f"{directory} has no room for a single checkpoint: one takes about {human_size(size)}, {human_size(free)} are free.",
            hint="Free some space (pitstop prune --dry-run shows what can go), or choose another disk with --base-dir.",
        )
    keep = checkpoint.keep_last_n
    if keep is None or free >= (keep + 2) * size:  # the best one and the one being written come on top
        return None
    return (
        f"{directory} has room for {free // size} checkpoints of about {human_size(size)}; --keep-last-n {keep} needs up to "
        f"{keep + 2}. Keep fewer, free some space, or choose another disk with --base-dir."
    )
